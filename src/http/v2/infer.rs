//! `POST …/infer`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::JSON_LENGTH;
use super::request::{ReadLimits, read, read_raw};
use super::response;
use crate::error::{Error, Result};
use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::{Payload, Target};
use crate::http::json::off_worker;
use crate::inference::InferRequest;

/// Runs a model on tensors. Nothing is parsed before the request has its place in the model's queue.
pub(super) async fn infer(
    State(app): AppState,
    target: Target,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let json_length = json_length(&headers)?;
    let admission = app.inference.admit(app.inference.model(&target.model, target.version)?)?;
    let model = admission.model().clone();

    let request = if json_length == Some(0) {
        read_raw(payload.bytes.clone(), model.inputs(), model.max_batch_size())?
    } else {
        let body = payload.bytes.clone();
        let limits = ReadLimits {
            max_json_depth: app.config.max_json_depth,
            max_tensor_bytes: app.inference.limits().max_tensor_bytes,
        };
        off_worker(json_length.unwrap_or(body.len()), move || read(&body, json_length, limits)).await?
    };
    let context = payload.context(request.priority, request.timeout);
    let (inputs, outputs, top_k) = (request.inputs, request.outputs, request.top_k);
    let answer = app.inference.infer(admission, InferRequest { inputs, outputs, top_k, context }).await?;

    let bytes = answer.outputs.iter().map(|(_, tensor)| tensor.bytes().len()).sum();
    let form = request.form;
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
