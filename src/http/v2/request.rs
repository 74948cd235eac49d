//! The wire form of an inference request: JSON, JSON with raw tensors behind it, or one raw tensor alone.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::http::json::{self, Bounded, Object};
use crate::http::tensor_json::{MAX_RANK, read_tensor};
use crate::inference::RequestedOutput;
use crate::tensor::{DataType, Tensor, TensorSpec};

/// How many tensors a request may bring or name. Classifiers have one or two.
const MAX_TENSORS: usize = 64;

/// A request read from its wire form.
#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) inputs: Vec<(String, Tensor)>,
    pub(super) outputs: Vec<RequestedOutput>,
    pub(super) top_k: Option<usize>,
    pub(super) priority: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) form: AnswerForm,
}

/// What the request says about the form of its answer.
#[derive(Debug, Default)]
pub(super) struct AnswerForm {
    /// To be echoed.
    pub(super) id: Option<String>,
    /// Whether an output that says nothing of its own is sent as binary data.
    binary_by_default: bool,
    /// What each requested output says, in the order of [`ParsedRequest::outputs`]; empty when none was named.
    binary_outputs: Vec<Option<bool>>,
}

impl AnswerForm {
    /// Whether the answer's output at `index` is sent as binary data.
    pub(super) fn is_binary(&self, index: usize) -> bool {
        self.binary_outputs.get(index).copied().flatten().unwrap_or(self.binary_by_default)
    }
}

/// The limits that reading a request obeys.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadLimits {
    pub(super) max_json_depth: usize,
    pub(super) max_tensor_bytes: usize,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with `inputs`")]
struct RequestJson<'a> {
    id: Option<String>,
    parameters: Option<Object<RequestParameters>>,
    #[serde(borrow)]
    inputs: Bounded<Object<InputJson<'a>>, MAX_TENSORS>,
    outputs: Option<Bounded<Object<OutputJson>, MAX_TENSORS>>,
}

/// Parameters of other names are ignored, as the protocol has it.
#[derive(Deserialize, Default)]
struct RequestParameters {
    priority: Option<u32>,
    /// Microseconds.
    timeout: Option<u64>,
    binary_data_output: Option<bool>,
    top_k: Option<usize>,
}

#[derive(Deserialize)]
struct InputJson<'a> {
    name: String,
    shape: Bounded<i64, MAX_RANK>,
    datatype: DataType,
    parameters: Option<Object<InputParameters>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct InputParameters {
    binary_data_size: Option<usize>,
    shared_memory_region: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct OutputJson {
    name: String,
    parameters: Option<Object<OutputParameters>>,
}

#[derive(Deserialize, Default)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<usize>,
    shared_memory_region: Option<IgnoredAny>,
}

/// Reads a body that is JSON, or begins with `json_length` bytes of JSON before raw tensors.
///
/// # Errors
/// `InvalidArgument` for whatever does not fit the protocol or does not add up, `PayloadTooLarge` for a tensor over the limit.
pub(super) fn read(body: &Bytes, json_length: Option<usize>, limits: ReadLimits) -> Result<ParsedRequest> {
    let split = json_length.unwrap_or(body.len());
    if split > body.len() {
        return Err(Error::invalid(format!(
            "Inference-Header-Content-Length is {split}, but the body has {} bytes",
            body.len()
        )));
    }
    let request: RequestJson = json::parse(&body[..split], limits.max_json_depth, "an inference request")?;

    let mut binary = BinaryPart { rest: body.slice(split..), is_declared: json_length.is_some() };
    let mut inputs: Vec<(String, Tensor)> = Vec::with_capacity(request.inputs.0.len());
    for Object(input) in request.inputs.0 {
        if inputs.iter().any(|(name, _)| *name == input.name) {
            return Err(Error::invalid(format!("input {} is given twice", input.name)));
        }
        let tensor = read_input(&input, &mut binary, limits)
            .map_err(|error| Error::new(error.kind(), format!("input {}: {error}", input.name)))?;
        inputs.push((input.name, tensor));
    }
    if !binary.rest.is_empty() {
        return Err(Error::invalid(format!(
            "{} bytes are left over behind the last input's binary data",
            binary.rest.len()
        )));
    }

    let mut form = AnswerForm { id: request.id, ..AnswerForm::default() };
    let mut outputs = Vec::new();
    for Object(output) in request.outputs.unwrap_or_default().0 {
        let parameters = output.parameters.map(|Object(parameters)| parameters).unwrap_or_default();
        refuse_shared_memory(parameters.shared_memory_region)?;
        form.binary_outputs.push(parameters.binary_data);
        // 0 is how clients say "no classification".
        let classification = parameters.classification.filter(|&k| k > 0);
        outputs.push(RequestedOutput { name: output.name, classification });
    }
    let parameters = request.parameters.map(|Object(parameters)| parameters).unwrap_or_default();
    // 0 is how clients say "the default", for each of these.
    form.binary_by_default = parameters.binary_data_output.unwrap_or(false);
    Ok(ParsedRequest {
        inputs,
        outputs,
        top_k: parameters.top_k.filter(|&k| k > 0),
        priority: parameters.priority.filter(|&priority| priority > 0),
        timeout: parameters.timeout.filter(|&timeout| timeout > 0).map(Duration::from_micros),
        form,
    })
}

/// Reads a body that is the raw bytes of the model's input, batch 1. The answer is binary.
///
/// # Errors
/// `InvalidArgument` when the bytes do not fill the input's shape.
pub(super) fn read_raw(body: Bytes, input: &TensorSpec) -> Result<ParsedRequest> {
    let tensor = if input.data_type == DataType::Bytes {
        Tensor::from_byte_strings(&[body])?.reshape(raw_shape(input, 1)?)?
    } else {
        let elements = body.len() / input.data_type.size().unwrap_or(1);
        Tensor::new(input.data_type, raw_shape(input, elements)?, body)?
    };
    Ok(ParsedRequest {
        inputs: vec![(input.name.clone(), tensor)],
        outputs: Vec::new(),
        top_k: None,
        priority: None,
        timeout: None,
        form: AnswerForm { binary_by_default: true, ..AnswerForm::default() },
    })
}

/// The shape of a raw request: batch 1, and at most one other open dimension from the number of elements.
fn raw_shape(input: &TensorSpec, elements: usize) -> Result<Vec<usize>> {
    let mut shape = input.shape.clone();
    if let Some(batch) = shape.first_mut().filter(|batch| **batch < 0) {
        *batch = 1;
    }
    if shape.iter().filter(|&&dimension| dimension < 0).count() > 1 {
        return Err(Error::invalid(format!(
            "the input's shape {:?} has too many open dimensions for a raw request: send it as JSON",
            input.shape
        )));
    }
    let known: usize = shape.iter().filter_map(|&dimension| usize::try_from(dimension).ok()).product();
    let open = elements.checked_div(known).unwrap_or(0);
    Ok(shape.iter().map(|&dimension| usize::try_from(dimension).unwrap_or(open)).collect())
}

/// The raw tensors behind the JSON, in the order of the inputs.
struct BinaryPart {
    rest: Bytes,
    is_declared: bool,
}

impl BinaryPart {
    fn take(&mut self, size: usize) -> Result<Bytes> {
        if !self.is_declared {
            return Err(Error::invalid(
                "binary_data_size is given, but the request has no Inference-Header-Content-Length header",
            ));
        }
        if size > self.rest.len() {
            return Err(Error::invalid(format!(
                "binary_data_size is {size}, but {} bytes of binary data are left",
                self.rest.len()
            )));
        }
        Ok(self.rest.split_to(size))
    }
}

fn read_input(input: &InputJson, binary: &mut BinaryPart, limits: ReadLimits) -> Result<Tensor> {
    let shape = input
        .shape
        .0
        .iter()
        .map(|&dimension| usize::try_from(dimension))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::invalid(format!("the shape {:?} has a negative dimension", input.shape.0)))?;
    let parameters = input.parameters.as_ref().map(|Object(parameters)| parameters);
    refuse_shared_memory(parameters.and_then(|parameters| parameters.shared_memory_region))?;
    match (parameters.and_then(|parameters| parameters.binary_data_size), input.data) {
        (Some(_), Some(_)) => Err(Error::invalid("both data and binary_data_size are given")),
        (None, None) => Err(Error::invalid("neither data nor binary_data_size is given")),
        (Some(size), None) => Tensor::new(input.datatype, shape, binary.take(size)?),
        (None, Some(data)) => read_tensor(data.get(), input.datatype, shape, limits.max_tensor_bytes),
    }
}

fn refuse_shared_memory(region: Option<IgnoredAny>) -> Result<()> {
    match region {
        None => Ok(()),
        Some(_) => Err(Error::invalid("shared memory is not offered: send the tensor with the request")),
    }
}

#[cfg(test)]
mod tests;
