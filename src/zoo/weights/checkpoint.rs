//! Checkpoint files: which format one has, and its tensors by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::{archive, pytorch};
use crate::error::{Error, Result};
use crate::tensor::{DataType, Tensor, element_count};

/// Element types of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says what it is")]
pub enum WeightType {
    Bool,
    Uint8,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
}

impl WeightType {
    /// The size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Int16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Int32 | Self::Fp32 => 4,
            Self::Int64 | Self::Fp64 => 8,
        }
    }
}

/// One tensor of a checkpoint, contiguous and row-major. Its bytes are shared with the file's wherever they lie so there.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightTensor {
    data_type: WeightType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl WeightTensor {
    /// A tensor over little-endian `bytes`.
    ///
    /// # Errors
    /// `InvalidArgument` when the bytes are not exactly what shape and type ask for.
    pub fn new(data_type: WeightType, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        if element_count(&shape)?.checked_mul(data_type.size()) != Some(bytes.len()) {
            return Err(Error::invalid(format!(
                "a {data_type:?} tensor of shape {shape:?} cannot have {} bytes",
                bytes.len()
            )));
        }
        Ok(Self { data_type, shape, bytes })
    }

    /// The element type.
    pub fn data_type(&self) -> WeightType {
        self.data_type
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as little-endian bytes, row-major.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The tensor, called `key` in errors, in FP32: shared where it is FP32 already.
    pub(super) fn to_fp32(&self, key: &str) -> Result<Tensor> {
        let values = match self.data_type {
            WeightType::Fp32 => {
                return Tensor::new(DataType::Fp32, self.shape.clone(), self.bytes.clone());
            }
            WeightType::Fp16 => self.elements(|bytes| f16::from_le_bytes(bytes).to_f32()),
            WeightType::Bf16 => self.elements(|bytes| bf16::from_le_bytes(bytes).to_f32()),
            WeightType::Fp64 => self.elements(|bytes| f64::from_le_bytes(bytes) as f32),
            other => return Err(Error::invalid(format!("the tensor {key} holds {other:?}, which cannot be weights"))),
        };
        Tensor::from_vec(self.shape.clone(), values)
    }

    fn elements<const SIZE: usize>(&self, convert: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
        self.bytes.as_chunks::<SIZE>().0.iter().map(|&bytes| convert(bytes)).collect()
    }
}

/// The tensors of a checkpoint, ordered by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    tensors: BTreeMap<String, WeightTensor>,
}

impl Checkpoint {
    /// Reads the `.safetensors` file or PyTorch checkpoint at `path`; the file's content says which it is.
    ///
    /// # Errors
    /// `NotFound` when the file cannot be read, otherwise those of [`Self::parse`], with the path.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path)
            .map_err(|error| Error::not_found(format!("{} cannot be read", path.display())).with_source(error))?;
        Self::parse(&bytes.into()).map_err(|error| {
            Error::invalid(format!("{} cannot be read as a checkpoint: {}", path.display(), error.chain()))
        })
    }

    /// Reads a checkpoint in one of the formats:
    /// - safetensors, <https://github.com/huggingface/safetensors#format>;
    /// - the zip archives of `torch.save` since PyTorch 1.6;
    /// - the pickles followed by raw storages that it wrote before.
    ///
    /// # Errors
    /// `InvalidArgument` when the bytes are none of these, are damaged, or ask for anything but the rebuilding of tensors.
    pub fn parse(bytes: &Bytes) -> Result<Self> {
        let tensors = if bytes.starts_with(archive::MAGIC) {
            pytorch::read_archive(bytes)?
        } else if bytes.starts_with(pytorch::LEGACY_MAGIC) {
            pytorch::read_legacy(bytes)?
        } else {
            read_safetensors(bytes)?
        };
        if tensors.is_empty() {
            return Err(Error::invalid("there are no tensors in it"));
        }
        Ok(Self { tensors: strip_data_parallel(tensors) })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&WeightTensor> {
        self.tensors.get(name)
    }

    /// All tensors, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &WeightTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

/// Models trained with `torch.nn.DataParallel` carry `module.` before every name.
fn strip_data_parallel(tensors: BTreeMap<String, WeightTensor>) -> BTreeMap<String, WeightTensor> {
    if !tensors.keys().all(|name| name.starts_with("module.")) {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (name["module.".len()..].to_owned(), tensor)).collect()
}

fn read_safetensors(bytes: &Bytes) -> Result<BTreeMap<String, WeightTensor>> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        Error::invalid("it is neither a safetensors file nor a PyTorch checkpoint").with_source(error)
    })?;
    file.iter()
        .map(|(name, view)| {
            let data_type = match view.dtype() {
                Dtype::BOOL => WeightType::Bool,
                Dtype::U8 => WeightType::Uint8,
                Dtype::I8 => WeightType::Int8,
                Dtype::I16 => WeightType::Int16,
                Dtype::I32 => WeightType::Int32,
                Dtype::I64 => WeightType::Int64,
                Dtype::F16 => WeightType::Fp16,
                Dtype::BF16 => WeightType::Bf16,
                Dtype::F32 => WeightType::Fp32,
                Dtype::F64 => WeightType::Fp64,
                other => {
                    return Err(Error::invalid(format!("the tensor {name} holds {other}, which is not read here")));
                }
            };
            let tensor = WeightTensor::new(data_type, view.shape().to_vec(), bytes.slice_ref(view.data()))?;
            Ok((name.to_owned(), tensor))
        })
        .collect()
}
