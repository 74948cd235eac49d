//! The model configuration extension: what is served, in the form of Triton's `ModelConfig` as JSON.
//!
//! `perf_analyzer` reads `max_batch_size`, `input`, `output`, `dynamic_batching` and `model_transaction_policy` from here.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::Target;
use crate::http::openapi::{Operation, Tag};
use crate::triton;

/// What the document says of [`show`].
pub(super) fn operation() -> Operation {
    let schema = json!({
        "type": "object",
        "required": ["name", "max_batch_size", "input", "output"],
        "description": "Triton's message `ModelConfig` as JSON.",
        "properties": {
            "name": {"type": "string"},
            "max_batch_size": {"type": "integer"},
            "input": {"type": "array", "items": {"type": "object"}},
            "output": {"type": "array", "items": {"type": "object"}},
        },
    });
    Operation::new("model_config", Tag::Inference, "The configuration of a model in Triton's form")
        .answers_json("The configuration.", schema)
}

/// `GET …/config`.
pub(super) async fn show(State(app): AppState, target: Target) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    Ok(Json(triton::to_json(&model.describe())).into_response())
}
