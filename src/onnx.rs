//! The ONNX protobuf: its messages, reading and writing of model files, and access to tensor data.
//!
//! The messages are generated from `proto/onnx.proto`, which holds the whole schema: a model that is read and written again
//! loses nothing but an order of nodes that is none. Nothing here knows which architectures exist, or how a model is run.

mod external;
mod order;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use bytes::{BufMut, Bytes};
use prost::{Message, encode_length_delimiter, length_delimiter_len};

use crate::error::{Error, Result};
use crate::tensor::{DataType, Element, Tensor, element_count};

pub use external::{external_files, read_external_data};
pub use proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TypeProto, ValueInfoProto,
};

/// The generated messages. Nested types are in modules: `attribute_proto::AttributeType`, for instance.
pub mod proto {
    #![expect(missing_docs, clippy::pedantic, reason = "generated code; the schema documents itself")]

    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

use proto::attribute_proto::AttributeType;
use proto::tensor_proto::{DataLocation, DataType as OnnxType};
use proto::tensor_shape_proto::{Dimension, dimension};
use proto::{TensorShapeProto, type_proto};

/// The numbers of the fields that [`write_model`] writes by hand.
const MODEL_GRAPH: u8 = 7;
const GRAPH_INITIALIZER: u8 = 5;
const TENSOR_RAW_DATA: u8 = 9;

/// Reads the model file at `path`. The initializers share one buffer with the file. Nodes are in an order in which they can be computed,
/// whatever the file's.
///
/// # Errors
/// `NotFound` when the file cannot be read, `InvalidArgument` when it is not an ONNX model.
pub fn read_model(path: &Path) -> Result<ModelProto> {
    let bytes = fs::read(path)
        .map_err(|error| Error::not_found(format!("{} cannot be read", path.display())).with_source(error))?;
    let mut model = ModelProto::decode(Bytes::from(bytes))
        .map_err(|error| Error::invalid(format!("{} is not an ONNX model", path.display())).with_source(error))?;
    // Many a short file is a valid protobuf with nothing but unknown fields.
    match &mut model.graph {
        Some(graph) => order::sort(graph),
        None => return Err(Error::invalid(format!("{} is not an ONNX model: it has no graph", path.display()))),
    }
    Ok(model)
}

/// Writes `model` piece by piece, so that its weights are never in memory a second time.
///
/// # Errors
/// Those of `writer`.
pub fn write_model(mut model: ModelProto, writer: &mut impl Write) -> io::Result<()> {
    let mut graph = model.graph.take().unwrap_or_default();
    let initializers = std::mem::take(&mut graph.initializer);
    let initializers_bytes: usize =
        initializers.iter().map(Message::encoded_len).map(|bytes| 1 + length_delimiter_len(bytes) + bytes).sum();

    let mut head = model.encode_to_vec();
    put_prefix(MODEL_GRAPH, graph.encoded_len() + initializers_bytes, &mut head)?;
    head.extend(graph.encode_to_vec());
    writer.write_all(&head)?;

    for mut initializer in initializers {
        let mut prefix = Vec::new();
        put_prefix(GRAPH_INITIALIZER, initializer.encoded_len(), &mut prefix)?;
        let raw_data = std::mem::take(&mut initializer.raw_data);
        prefix.extend(initializer.encode_to_vec());
        if !raw_data.is_empty() {
            put_prefix(TENSOR_RAW_DATA, raw_data.len(), &mut prefix)?;
        }
        writer.write_all(&prefix)?;
        writer.write_all(&raw_data)?;
    }
    writer.flush()
}

/// Starts a length-delimited field: wire type 2, and a number that fits into the one byte of the key.
fn put_prefix(field: u8, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.put_u8(field << 3 | 2);
    encode_length_delimiter(length, buffer).map_err(io::Error::other)
}

impl TensorProto {
    /// An initializer called `name` that shares the tensor's buffer.
    ///
    /// # Errors
    /// `InvalidArgument` for byte strings, which ONNX does not keep in one buffer.
    pub fn new(name: impl Into<String>, tensor: &Tensor) -> Result<Self> {
        let Some(data_type) = onnx_type(tensor.data_type()) else {
            return Err(Error::invalid(format!("a {} tensor cannot be an initializer", tensor.data_type())));
        };
        Ok(Self {
            name: name.into(),
            data_type: data_type.into(),
            dims: tensor.shape().iter().map(|&dimension| dimension as i64).collect(),
            raw_data: tensor.bytes().clone(),
            ..Self::default()
        })
    }

    /// The tensor's elements, sharing the buffer where the file has them in one piece.
    ///
    /// # Errors
    /// `InvalidArgument` when the elements are in another file, of a type that [`DataType`] lacks, or not as many as the
    /// shape says.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let shape = self
            .dims
            .iter()
            .map(|&dimension| usize::try_from(dimension))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::invalid(format!("the tensor {} has the shape {:?}", self.name, self.dims)))?;
        if self.data_location() == DataLocation::External {
            return Err(Error::invalid(format!("the elements of the tensor {} are in another file", self.name)));
        }
        let Some(data_type) = OnnxType::try_from(self.data_type).ok().and_then(data_type) else {
            return Err(Error::invalid(format!(
                "the tensor {} holds elements of ONNX's type {}, which are not read here",
                self.name, self.data_type
            )));
        };
        if !self.raw_data.is_empty() || element_count(&shape)? == 0 {
            return Tensor::new(data_type, shape, self.raw_data.clone());
        }
        match data_type {
            DataType::Fp32 => Tensor::from_vec(shape, self.float_data.clone()),
            DataType::Fp64 => Tensor::from_vec(shape, self.double_data.clone()),
            DataType::Int64 => Tensor::from_vec(shape, self.int64_data.clone()),
            DataType::Uint64 => Tensor::from_vec(shape, self.uint64_data.clone()),
            DataType::Uint32 => narrow(shape, &self.uint64_data, |value| value as u32),
            DataType::Int32 => Tensor::from_vec(shape, self.int32_data.clone()),
            DataType::Int16 => narrow(shape, &self.int32_data, |value| value as i16),
            DataType::Int8 => narrow(shape, &self.int32_data, |value| value as i8),
            DataType::Uint16 => narrow(shape, &self.int32_data, |value| value as u16),
            DataType::Uint8 => narrow(shape, &self.int32_data, |value| value as u8),
            // The field holds the bit pattern.
            DataType::Fp16 => narrow(shape, &self.int32_data, |value| half::f16::from_bits(value as u16)),
            DataType::Bool => {
                let bytes: Vec<u8> = self.int32_data.iter().map(|&value| u8::from(value != 0)).collect();
                Tensor::new(DataType::Bool, shape, bytes.into())
            }
            DataType::Bytes => Tensor::from_byte_strings(&self.string_data)?.reshape(shape),
        }
    }
}

/// ONNX keeps small integers in a wider field.
fn narrow<W: Copy, T: Element>(shape: Vec<usize>, wide: &[W], cast: impl Fn(W) -> T) -> Result<Tensor> {
    Tensor::from_vec(shape, wide.iter().map(|&value| cast(value)).collect())
}

/// ONNX's name of `data_type`, `None` for byte strings.
pub fn onnx_type(data_type: DataType) -> Option<OnnxType> {
    Some(match data_type {
        DataType::Bool => OnnxType::Bool,
        DataType::Uint8 => OnnxType::Uint8,
        DataType::Uint16 => OnnxType::Uint16,
        DataType::Uint32 => OnnxType::Uint32,
        DataType::Uint64 => OnnxType::Uint64,
        DataType::Int8 => OnnxType::Int8,
        DataType::Int16 => OnnxType::Int16,
        DataType::Int32 => OnnxType::Int32,
        DataType::Int64 => OnnxType::Int64,
        DataType::Fp16 => OnnxType::Float16,
        DataType::Fp32 => OnnxType::Float,
        DataType::Fp64 => OnnxType::Double,
        DataType::Bytes => return None,
    })
}

/// The data type that ONNX calls `onnx_type`, `None` where there is none.
pub fn data_type(onnx_type: OnnxType) -> Option<DataType> {
    Some(match onnx_type {
        OnnxType::Bool => DataType::Bool,
        OnnxType::Uint8 => DataType::Uint8,
        OnnxType::Uint16 => DataType::Uint16,
        OnnxType::Uint32 => DataType::Uint32,
        OnnxType::Uint64 => DataType::Uint64,
        OnnxType::Int8 => DataType::Int8,
        OnnxType::Int16 => DataType::Int16,
        OnnxType::Int32 => DataType::Int32,
        OnnxType::Int64 => DataType::Int64,
        OnnxType::Float16 => DataType::Fp16,
        OnnxType::Float => DataType::Fp32,
        OnnxType::Double => DataType::Fp64,
        OnnxType::String => DataType::Bytes,
        _ => return None,
    })
}

impl AttributeProto {
    /// An integer attribute.
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), r#type: AttributeType::Int.into(), i: value, ..Self::default() }
    }

    /// An attribute of several integers.
    pub fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> Self {
        let ints = values.into_iter().map(|value| value as i64).collect();
        Self { name: name.to_owned(), r#type: AttributeType::Ints.into(), ints, ..Self::default() }
    }

    /// A floating-point attribute.
    pub fn float(name: &str, value: f32) -> Self {
        Self { name: name.to_owned(), r#type: AttributeType::Float.into(), f: value, ..Self::default() }
    }
}

impl NodeProto {
    /// The attribute called `name`.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// What the node is called: its name, which may be absent, or else the first value that it gives.
    pub fn called(&self) -> &str {
        if self.name.is_empty() { self.output.first().map_or("", String::as_str) } else { &self.name }
    }

    /// Whether its operator is one of ONNX's own.
    pub fn is_standard(&self) -> bool {
        is_standard(&self.domain)
    }
}

impl ModelProto {
    /// The version of ONNX's own operators.
    pub fn opset(&self) -> i64 {
        self.opset_import.iter().find(|import| is_standard(&import.domain)).map_or(1, |import| import.version)
    }
}

/// Whether the operators of `domain` are ONNX's own.
fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

impl ValueInfoProto {
    /// A tensor called `name` of shape `[batch, row…]`, whose first dimension is open and goes by the name `batch`.
    pub fn batched(name: &str, element: OnnxType, batch: &str, row: &[usize]) -> Self {
        let batch = dimension::Value::DimParam(batch.to_owned());
        let row = row.iter().map(|&size| dimension::Value::DimValue(size as i64));
        let dim = std::iter::once(batch)
            .chain(row)
            .map(|value| Dimension { value: Some(value), ..Dimension::default() })
            .collect();
        let tensor = type_proto::Tensor { elem_type: element.into(), shape: Some(TensorShapeProto { dim }) };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        Self { name: name.to_owned(), r#type: Some(r#type), ..Self::default() }
    }
}

impl StringStringEntryProto {
    /// One entry of a model's metadata.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelProto {
        let weights = Tensor::from_vec(vec![2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let typed = TensorProto {
            name: "typed".to_owned(),
            dims: vec![2],
            data_type: OnnxType::Int64.into(),
            int64_data: vec![-1, 7],
            ..TensorProto::default()
        };
        ModelProto {
            ir_version: 8,
            producer_name: "test".to_owned(),
            graph: Some(GraphProto {
                name: "graph".to_owned(),
                node: vec![NodeProto { op_type: "Relu".to_owned(), ..NodeProto::default() }],
                initializer: vec![TensorProto::new("weights", &weights).unwrap(), typed],
                input: vec![ValueInfoProto::batched("input", OnnxType::Float, "N", &[3, 224, 224])],
                ..GraphProto::default()
            }),
            metadata_props: vec![StringStringEntryProto::new("key", "value")],
            ..ModelProto::default()
        }
    }

    #[test]
    fn a_model_written_piece_by_piece_is_the_same_model() {
        let mut bytes = Vec::new();
        write_model(model(), &mut bytes).unwrap();
        assert_eq!(ModelProto::decode(Bytes::from(bytes)).unwrap(), model());
    }

    #[test]
    fn tensors_are_read_from_raw_bytes_and_from_typed_fields() {
        let graph = model().graph.unwrap();
        let raw = graph.initializer[0].to_tensor().unwrap();
        assert_eq!(raw.shape(), [2, 3]);
        assert_eq!(*raw.to_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let typed = graph.initializer[1].to_tensor().unwrap();
        assert_eq!(*typed.to_slice::<i64>().unwrap(), [-1, 7]);

        let half = TensorProto {
            dims: vec![2],
            data_type: OnnxType::Float16.into(),
            int32_data: vec![0x3c00, 0xc000],
            ..TensorProto::default()
        };
        let values = half.to_tensor().unwrap();
        assert_eq!(*values.to_slice::<half::f16>().unwrap(), [half::f16::ONE, half::f16::from_f32(-2.0)]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let tensor = |dims: Vec<i64>| TensorProto {
            dims,
            data_type: OnnxType::Float.into(),
            float_data: vec![1.0; 4],
            ..TensorProto::default()
        };
        assert!(tensor(vec![2, 2]).to_tensor().is_ok());
        assert!(tensor(vec![5]).to_tensor().is_err());
        assert!(tensor(vec![-4]).to_tensor().is_err());
        assert!(tensor(vec![i64::MAX, i64::MAX]).to_tensor().is_err());
    }

    #[test]
    fn a_file_that_is_no_model_is_refused() {
        let directory = std::env::temp_dir().join(format!("convoy-onnx-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("model.onnx");
        for bytes in [&b""[..], b"\x08\x08", b"PK\x03\x04 not a protobuf"] {
            fs::write(&path, bytes).unwrap();
            let error = read_model(&path).unwrap_err();
            assert!(error.message().contains("is not an ONNX model"), "{error}");
        }
        assert!(read_model(&directory.join("absent.onnx")).unwrap_err().message().contains("cannot be read"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
