//! The model configuration extension: what is served, in the form of Triton's `ModelConfig` as JSON.
//!
//! `perf_analyzer` reads `max_batch_size`, `input`, `output`, `dynamic_batching` and `model_transaction_policy` from here.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::Target;
use crate::triton;

/// `GET …/config`.
pub(super) async fn show(State(app): AppState, target: Target) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    Ok(Json(triton::to_json(&model.describe())).into_response())
}
