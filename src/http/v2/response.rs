//! The wire form of an inference answer: JSON, or JSON with raw tensors behind it.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::JSON_LENGTH;
use super::request::AnswerForm;
use crate::error::{Error, Result};
use crate::http::tensor_json::JsonData;
use crate::tensor::Tensor;

#[derive(Serialize)]
struct AnswerJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    model_name: &'a str,
    model_version: &'a str,
    outputs: Vec<OutputJson<'a>>,
}

#[derive(Serialize)]
struct OutputJson<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonData<'a>>,
}

#[derive(Serialize)]
struct OutputParameters {
    binary_data_size: usize,
}

/// Writes the answer of `model_name` in the form that the request asked for.
///
/// # Errors
/// `InvalidArgument` for an FP16 output that was not asked for as binary data.
pub(super) fn write(
    model_name: &str,
    model_version: u64,
    outputs: &[(String, Tensor)],
    form: &AnswerForm,
) -> Result<Response> {
    let mut binary = Vec::new();
    let mut described = Vec::with_capacity(outputs.len());
    for (index, (name, tensor)) in outputs.iter().enumerate() {
        let is_binary = form.is_binary(index);
        if is_binary {
            binary.push(tensor.bytes());
        }
        described.push(OutputJson {
            name,
            datatype: tensor.data_type().as_str(),
            shape: tensor.shape(),
            parameters: is_binary.then(|| OutputParameters { binary_data_size: tensor.bytes().len() }),
            data: if is_binary { None } else { Some(JsonData::new(name, tensor)?) },
        });
    }
    let answer = AnswerJson {
        id: form.id.as_deref(),
        model_name,
        model_version: &model_version.to_string(),
        outputs: described,
    };
    let mut body = serde_json::to_vec(&answer)
        .map_err(|error| Error::internal("the answer could not be written as JSON").with_source(error))?;
    if binary.is_empty() {
        return Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response());
    }
    let json_length = body.len();
    body.reserve_exact(binary.iter().map(|bytes| bytes.len()).sum());
    for bytes in binary {
        body.extend_from_slice(bytes);
    }
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (JSON_LENGTH, json_length.to_string())];
    Ok((headers, body).into_response())
}
