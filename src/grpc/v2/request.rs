//! The wire form of an inference request.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::proto::inference::infer_parameter::ParameterChoice;
use super::super::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::super::proto::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use crate::error::{Error, Result};
use crate::inference::{InferRequest, RequestedOutput};
use crate::tensor::{DataType, Element, Tensor};

/// How many tensors a request may bring or name. Classifiers have one or two.
const MAX_TENSORS: usize = 64;
/// The most dimensions that a tensor may have.
const MAX_RANK: usize = 32;

/// A request's, an input's or an output's parameters. Those of other names are ignored, as the protocol has it.
type Parameters = BTreeMap<String, InferParameter>;

/// What a request says of how it is to be scheduled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scheduling {
    pub(super) priority: Option<u32>,
    pub(super) timeout: Option<Duration>,
}

impl Scheduling {
    /// Reads `priority` and `timeout` (microseconds); 0 is how clients say "the default" for either.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is not a number, negative or too large.
    pub(super) fn read(parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            priority: number(parameters, "priority")?,
            timeout: number(parameters, "timeout")?.map(Duration::from_micros),
        })
    }
}

/// How many bytes the numbers of a request take beside the message that they came in, where one byte can become eight.
pub(super) fn numbers_bytes(request: &ModelInferRequest) -> usize {
    let of_contents = |contents: &InferTensorContents| {
        size_of_val(&*contents.bool_contents)
            + size_of_val(&*contents.int_contents)
            + size_of_val(&*contents.int64_contents)
            + size_of_val(&*contents.uint_contents)
            + size_of_val(&*contents.uint64_contents)
            + size_of_val(&*contents.fp32_contents)
            + size_of_val(&*contents.fp64_contents)
    };
    let of_input =
        |input: &InferInputTensor| size_of_val(&*input.shape) + input.contents.as_ref().map_or(0, of_contents);
    request.inputs.iter().map(of_input).sum()
}

/// Reads a request's tensors and the outputs that it asks for.
///
/// # Errors
/// `InvalidArgument` for whatever does not fit the protocol or does not add up.
pub(super) fn read(request: ModelInferRequest) -> Result<InferRequest> {
    let ModelInferRequest { parameters, inputs, outputs, raw_input_contents: raw, .. } = request;
    if inputs.len().max(outputs.len()) > MAX_TENSORS {
        return Err(Error::invalid(format!("a request may bring and name at most {MAX_TENSORS} tensors")));
    }
    let is_raw = !raw.is_empty();
    if is_raw && inputs.iter().any(|input| input.contents.is_some()) {
        return Err(Error::invalid("both raw_input_contents and an input's contents are given"));
    }
    if is_raw && raw.len() != inputs.len() {
        return Err(Error::invalid(format!(
            "there are {} inputs, but raw_input_contents has {} entries",
            inputs.len(),
            raw.len()
        )));
    }

    let mut raw = raw.into_iter();
    let mut tensors: Vec<(String, Tensor)> = Vec::with_capacity(inputs.len());
    for mut input in inputs {
        let name = std::mem::take(&mut input.name);
        if tensors.iter().any(|(other, _)| *other == name) {
            return Err(Error::invalid(format!("input {name} is given twice")));
        }
        let tensor = read_input(input, raw.next())
            .map_err(|error| error.map_message(|message| format!("input {name}: {message}")))?;
        tensors.push((name, tensor));
    }
    let outputs = outputs.into_iter().map(read_output).collect::<Result<_>>()?;
    Ok(InferRequest { inputs: tensors, outputs, top_k: number(&parameters, "top_k")? })
}

fn read_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor> {
    refuse_shared_memory(&input.parameters)?;
    let data_type: DataType = input.datatype.parse()?;
    if input.shape.len() > MAX_RANK {
        return Err(Error::invalid(format!("a tensor may have at most {MAX_RANK} dimensions")));
    }
    let shape = input
        .shape
        .iter()
        .map(|&dimension| usize::try_from(dimension))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::invalid(format!("the shape {:?} has a negative dimension", input.shape)))?;
    match (raw, input.contents) {
        (Some(bytes), _) => Tensor::new(data_type, shape, bytes),
        (None, Some(contents)) => read_contents(data_type, shape, contents),
        (None, None) => Err(Error::invalid("neither contents nor raw_input_contents is given")),
    }
}

/// Makes a tensor of typed contents, which may be in no other field than the one that fits `data_type`.
fn read_contents(data_type: DataType, shape: Vec<usize>, contents: InferTensorContents) -> Result<Tensor> {
    let expected = match data_type {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 => return Err(Error::invalid("FP16 has no typed contents: send it in raw_input_contents")),
    };
    let given = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ];
    if let Some((other, _)) = given.into_iter().find(|&(field, is_empty)| field != expected && !is_empty) {
        return Err(Error::invalid(format!("elements of {data_type} belong into {expected}, not into {other}")));
    }
    match data_type {
        DataType::Bool => {
            let bytes: Vec<u8> = contents.bool_contents.into_iter().map(u8::from).collect();
            Tensor::new(DataType::Bool, shape, bytes.into())
        }
        DataType::Int8 => narrow::<i8, _>(shape, contents.int_contents),
        DataType::Int16 => narrow::<i16, _>(shape, contents.int_contents),
        DataType::Int32 => Tensor::from_vec(shape, contents.int_contents),
        DataType::Int64 => Tensor::from_vec(shape, contents.int64_contents),
        DataType::Uint8 => narrow::<u8, _>(shape, contents.uint_contents),
        DataType::Uint16 => narrow::<u16, _>(shape, contents.uint_contents),
        DataType::Uint32 => Tensor::from_vec(shape, contents.uint_contents),
        DataType::Uint64 => Tensor::from_vec(shape, contents.uint64_contents),
        DataType::Fp32 => Tensor::from_vec(shape, contents.fp32_contents),
        DataType::Fp64 => Tensor::from_vec(shape, contents.fp64_contents),
        DataType::Bytes => Tensor::from_byte_strings(&contents.bytes_contents)?.reshape(shape),
        DataType::Fp16 => unreachable!("refused above"),
    }
}

/// A tensor of a type that the wire carries in a wider one.
fn narrow<T: Element + TryFrom<W>, W: Copy + std::fmt::Display>(shape: Vec<usize>, values: Vec<W>) -> Result<Tensor> {
    let values = values
        .into_iter()
        .map(|value| T::try_from(value).map_err(|_| Error::invalid(format!("{value} is no {}", T::DATA_TYPE))))
        .collect::<Result<Vec<T>>>()?;
    Tensor::from_vec(shape, values)
}

fn read_output(output: InferRequestedOutputTensor) -> Result<RequestedOutput> {
    refuse_shared_memory(&output.parameters)?;
    Ok(RequestedOutput { classification: number(&output.parameters, "classification")?, name: output.name })
}

fn refuse_shared_memory(parameters: &Parameters) -> Result<()> {
    if parameters.contains_key("shared_memory_region") {
        return Err(Error::invalid("shared memory is not offered: send the tensor with the request"));
    }
    Ok(())
}

/// The parameter `name` where it is there and not 0, which is how clients say "none" or "the default".
fn number<T: TryFrom<u64> + PartialEq + Default>(parameters: &Parameters, name: &str) -> Result<Option<T>> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let value = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(value)) => u64::try_from(value).ok(),
        Some(ParameterChoice::Uint64Param(value)) => Some(value),
        _ => None,
    };
    let value = value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
        Error::invalid(format!("the parameter {name} is not a whole number of a size that it can have"))
    })?;
    Ok(Some(value).filter(|value| *value != T::default()))
}

#[cfg(test)]
mod tests;
