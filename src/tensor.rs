//! Tensors as they travel between the wire, preprocessing, the scheduler and the engine.
//!
//! A [`Tensor`] is a data type, a shape and little-endian, row-major bytes behind a cheap-clone handle. One form serves all
//! wire encodings, and a batch's output is cut into its requests' rows without a copy.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Element types, named as the Open Inference Protocol names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "each name says what it is")]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    /// Byte strings: in [`Tensor::bytes`] each element is a `u32` length and that many bytes.
    Bytes,
}

impl DataType {
    const ALL: [Self; 13] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The size of one element in bytes, or `None` for [`DataType::Bytes`], whose elements differ.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The protocol's name, `"FP32"` for instance.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

impl FromStr for DataType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|data_type| data_type.as_str() == name)
            .ok_or_else(|| Error::invalid(format!("there is no datatype {name}")))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Rust type that can be a tensor's element.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// The data type that this Rust type stores.
    const DATA_TYPE: DataType;
}

macro_rules! element {
    ($($rust:ty => $data_type:ident),* $(,)?) => {
        $(impl Element for $rust { const DATA_TYPE: DataType = DataType::$data_type; })*
    };
}

element! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    half::f16 => Fp16, f32 => Fp32, f64 => Fp64,
}

/// What a model says of one of its inputs or outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// The element type.
    pub data_type: DataType,
    /// The dimensions, the batch dimension included; `-1` where the graph leaves one open.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a tensor of `shape` has as many dimensions, and from number `first` on these sizes; an open one takes any.
    pub fn takes(&self, shape: &[usize], first: usize) -> bool {
        let fits = |(&want, &got): (&i64, &usize)| want < 0 || usize::try_from(want).is_ok_and(|want| want == got);
        shape.len() == self.shape.len() && self.shape.iter().zip(shape).skip(first).all(fits)
    }
}

/// A dense tensor: data type, shape and little-endian row-major bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    data_type: DataType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Tensor {
    /// A tensor over `bytes`.
    ///
    /// # Errors
    /// `InvalidArgument` when the shape overflows, or the bytes are not exactly what shape and data type ask for. Elements of
    /// [`DataType::Bytes`] are walked, so that a truncated or over-long one is found here.
    pub fn new(data_type: DataType, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let count = element_count(&shape)?;
        match data_type.size() {
            Some(size) => {
                let expected = count.checked_mul(size);
                if expected != Some(bytes.len()) {
                    return Err(Error::invalid(format!(
                        "a {data_type} tensor of shape {shape:?} takes {count} elements of {size} bytes, but {} bytes were given",
                        bytes.len()
                    )));
                }
            }
            None => {
                let found = count_byte_strings(&bytes)?;
                if found != count {
                    return Err(Error::invalid(format!(
                        "a BYTES tensor of shape {shape:?} takes {count} elements, but {found} were given"
                    )));
                }
            }
        }
        Ok(Self { data_type, shape, bytes })
    }

    /// A tensor of nothing but zeros.
    ///
    /// # Errors
    /// `InvalidArgument` when the shape overflows, and for strings, which have no zero.
    pub fn zeros(data_type: DataType, shape: Vec<usize>) -> Result<Self> {
        let size = data_type.size().ok_or_else(|| Error::invalid("strings have no zero"))?;
        let bytes = element_count(&shape)? * size;
        Self::new(data_type, shape, vec![0; bytes].into())
    }

    /// A tensor that owns `values`; no copy is made.
    ///
    /// # Errors
    /// `InvalidArgument` when the shape does not take exactly `values.len()` elements.
    pub fn from_vec<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Result<Self> {
        struct Owned<T>(Vec<T>);
        impl<T: Element> AsRef<[u8]> for Owned<T> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        Self::new(T::DATA_TYPE, shape, Bytes::from_owner(Owned(values)))
    }

    /// A tensor of byte strings, shape `[elements.len()]`.
    ///
    /// # Errors
    /// `PayloadTooLarge` when an element is longer than a `u32` can say.
    pub fn from_byte_strings<S: AsRef<[u8]>>(elements: &[S]) -> Result<Self> {
        let total = elements.iter().map(|element| 4 + element.as_ref().len()).sum();
        let mut bytes = Vec::with_capacity(total);
        for element in elements {
            let element = element.as_ref();
            let length = u32::try_from(element.len())
                .map_err(|_| Error::too_large("an element of a BYTES tensor can hold at most 4 GiB"))?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(element);
        }
        Ok(Self { data_type: DataType::Bytes, shape: vec![elements.len()], bytes: bytes.into() })
    }

    /// The element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The raw bytes: little-endian, row-major.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as `T`: borrowed where the bytes happen to be aligned, copied otherwise.
    ///
    /// # Errors
    /// `InvalidArgument` when the tensor holds another type.
    pub fn to_slice<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        if self.data_type != T::DATA_TYPE {
            return Err(Error::invalid(format!(
                "a tensor of {} was expected, not of {}",
                T::DATA_TYPE,
                self.data_type
            )));
        }
        Ok(match bytemuck::try_cast_slice(&self.bytes) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(&self.bytes)),
        })
    }

    /// The byte strings of a [`DataType::Bytes`] tensor, each sharing this tensor's buffer.
    ///
    /// # Errors
    /// `InvalidArgument` when the tensor holds another type.
    pub fn to_byte_strings(&self) -> Result<Vec<Bytes>> {
        if self.data_type != DataType::Bytes {
            return Err(Error::invalid(format!("a tensor of BYTES was expected, not of {}", self.data_type)));
        }
        byte_strings(&self.bytes).map(|element| Ok(self.bytes.slice(element?))).collect()
    }

    /// Rows `start..start + count` along the first dimension, sharing this tensor's buffer.
    ///
    /// # Panics
    /// When the rows are out of range or the tensor holds byte strings: the scheduler batches neither.
    pub fn rows(&self, start: usize, count: usize) -> Self {
        let rows = self.shape[0];
        assert!(start + count <= rows, "rows {start}..{} of {rows}", start + count);
        assert!(self.data_type != DataType::Bytes, "byte strings have no fixed row size");
        let row_bytes = self.bytes.len().checked_div(rows).unwrap_or(0);
        let mut shape = self.shape.clone();
        shape[0] = count;
        Self {
            data_type: self.data_type,
            shape,
            bytes: self.bytes.slice(start * row_bytes..(start + count) * row_bytes),
        }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// `InvalidArgument` when the shape takes another number of elements.
    pub fn reshape(self, shape: Vec<usize>) -> Result<Self> {
        if element_count(&shape)? != self.len() {
            return Err(Error::invalid(format!("a tensor of shape {:?} cannot take the shape {shape:?}", self.shape)));
        }
        Ok(Self { shape, ..self })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?}, {} bytes)", self.data_type, self.shape, self.bytes.len())
    }
}

/// The number of elements that `shape` takes.
///
/// # Errors
/// `InvalidArgument` when the product overflows.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &dimension| product.checked_mul(dimension))
        .ok_or_else(|| Error::invalid(format!("the shape {shape:?} has more elements than can be counted")))
}

/// The ranges that the elements of a BYTES tensor take in `bytes`. Nothing is allocated: what a length prefix promises, and how
/// many elements there are, is the client's to say.
fn byte_strings(bytes: &[u8]) -> impl Iterator<Item = Result<Range<usize>>> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let prefix = bytes.get(offset..).filter(|rest| !rest.is_empty())?;
        let Some(&prefix) = prefix.first_chunk::<4>() else {
            offset = bytes.len();
            return Some(Err(Error::invalid("a BYTES tensor ends inside an element's length")));
        };
        let length = u32::from_le_bytes(prefix) as usize;
        let start = offset + 4;
        let left = bytes.len() - start;
        if left < length {
            offset = bytes.len();
            return Some(Err(Error::invalid(format!(
                "a BYTES tensor says an element has {length} bytes, but {left} are left"
            ))));
        }
        offset = start + length;
        Some(Ok(start..offset))
    })
}

fn count_byte_strings(bytes: &[u8]) -> Result<usize> {
    byte_strings(bytes).try_fold(0, |count, element| element.map(|_| count + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_the_buffer() {
        let tensor = Tensor::from_vec(vec![3, 2], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let row = tensor.rows(1, 2);
        assert_eq!(row.shape(), [2, 2]);
        assert_eq!(*row.to_slice::<f32>().unwrap(), [3.0, 4.0, 5.0, 6.0]);
        assert_eq!(row.bytes().as_ptr(), tensor.bytes()[8..].as_ptr());
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        assert!(Tensor::new(DataType::Fp32, vec![2, 2], Bytes::from_static(&[0; 15])).is_err());
        assert!(Tensor::new(DataType::Fp32, vec![usize::MAX, 2], Bytes::new()).is_err());
        assert!(Tensor::new(DataType::Fp64, vec![usize::MAX / 4], Bytes::new()).is_err());
        assert!(Tensor::from_vec(vec![3], vec![1f32, 2.0]).is_err());
    }

    #[test]
    fn byte_strings_are_walked_and_truncation_is_found() {
        let tensor = Tensor::from_byte_strings(&[b"ab".as_slice(), b"", b"cde"]).unwrap();
        assert_eq!(tensor.shape(), [3]);
        assert_eq!(tensor.to_byte_strings().unwrap(), [b"ab".as_slice(), b"", b"cde"]);

        let truncated = tensor.bytes().slice(..tensor.bytes().len() - 1);
        assert!(Tensor::new(DataType::Bytes, vec![3], truncated).is_err());
        assert!(Tensor::new(DataType::Bytes, vec![1], Bytes::from_static(&[255, 255, 255, 127, 0])).is_err());
        assert!(Tensor::new(DataType::Bytes, vec![1], Bytes::from_static(&[1, 0])).is_err());
        assert!(Tensor::new(DataType::Bytes, vec![2], tensor.bytes().clone()).is_err());
    }

    #[test]
    fn unaligned_bytes_are_copied() {
        let mut raw = vec![0u8];
        raw.extend_from_slice(&1.5f32.to_le_bytes());
        let bytes = Bytes::from(raw).slice(1..);
        let tensor = Tensor::new(DataType::Fp32, vec![1], bytes).unwrap();
        assert_eq!(*tensor.to_slice::<f32>().unwrap(), [1.5]);
    }
}
