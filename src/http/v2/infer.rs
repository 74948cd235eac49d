//! `POST …/infer`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::JSON_LENGTH;
use super::request::{ParsedRequest, ReadLimits, read, read_raw};
use super::response;
use crate::error::{Error, Result};
use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::{Payload, Target};
use crate::http::json::off_worker;
use crate::http::openapi::{Operation, Tag};
use crate::inference::InferRequest;

/// What the document says of [`infer`].
pub(super) fn operation() -> Operation {
    let tensor = |properties: Value| {
        json!({
            "type": "object",
            "required": ["name", "shape", "datatype"],
            "properties": {
                "name": {"type": "string"},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "datatype": {"type": "string", "description": "`FP32` for instance; `BYTES` for encoded pictures."},
                "parameters": properties,
                "data": {"type": "array", "description": "Flat in row-major order, or nested as `shape` says."},
            },
        })
    };
    let binary_size = json!({"type": "object", "properties": {"binary_data_size": {"type": "integer"}}});
    let outputs = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "parameters": {
                "type": "object",
                "properties": {"binary_data": {"type": "boolean"}, "classification": {"type": "integer"}},
            },
        },
    });
    let parameters = json!({
        "type": "object",
        "properties": {
            "priority": {"type": "integer", "description": "1 is the most urgent."},
            "timeout": {"type": "integer", "description": "Microseconds."},
            "binary_data_output": {"type": "boolean"},
            "top_k": {"type": "integer", "description": "Asks for a classification of every output."},
        },
    });
    let request = json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": parameters,
            "inputs": {"type": "array", "items": tensor(binary_size.clone())},
            "outputs": {"type": "array", "items": outputs},
        },
    });
    let answer = json!({
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "outputs": {"type": "array", "items": tensor(binary_size)},
        },
    });
    Operation::new("infer", Tag::Inference, "Run a model on tensors or encoded pictures")
        .description("Tensors are JSON, or bytes behind the JSON whose length the header has; 0 is one raw tensor and nothing else.")
        .header("Inference-Header-Content-Length", "Bytes of JSON at the start of a body that has binary tensors.")
        .json_body(request)
        .bytes_body("application/octet-stream")
        .answers_json("The outputs.", answer)
        .answers_bytes("The outputs.", "application/octet-stream")
        .refused_with(&[415, 504])
}

/// Runs a model on tensors. Nothing is parsed before the request has its place in the model's queue.
pub(super) async fn infer(
    State(app): AppState,
    target: Target,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let json_length = json_length(&headers)?;
    let model = app.inference.model(&target.model, target.version)?;
    let mut admission = app.inference.admit_unparsed(Arc::clone(&model), payload.context())?;

    let parsed = match json_length {
        Some(0) => read_raw(payload.bytes, model.input()),
        _ => {
            let limits = ReadLimits {
                max_json_depth: app.config.max_json_depth,
                max_tensor_bytes: app.inference.limits().max_tensor_bytes,
            };
            let json_bytes = json_length.unwrap_or(payload.bytes.len());
            off_worker(json_bytes, move || read(&payload.bytes, json_length, limits)).await
        }
    };
    let request = match parsed {
        Ok(request) => request,
        Err(error) => {
            admission.reject(&error);
            return Err(error.into());
        }
    };
    admission.context_mut().priority = request.priority;
    admission.context_mut().timeout = request.timeout;
    let ParsedRequest { inputs, outputs, top_k, form, .. } = request;
    let answer = app.inference.infer(admission, InferRequest { inputs, outputs, top_k }).await?;

    let bytes = answer.outputs.iter().map(|(_, tensor)| tensor.bytes().len()).sum();
    Ok(off_worker(bytes, move || response::write(model.name(), model.version(), &answer.outputs, &form)).await?)
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    match value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
    {
        Some(length) => Ok(Some(length)),
        None => Err(Error::invalid("Inference-Header-Content-Length is not a number of bytes")),
    }
}
