//! The statistics extension.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::Target;
use crate::http::openapi::{Operation, Tag};
use crate::repository::Model;
use crate::scheduler::statistics::{DurationStatistic, Statistics};

/// `GET /v2/models/stats`.
pub(super) async fn of_all(State(app): AppState) -> HttpResult<Response> {
    Ok(answer(&app.inference.select(None, None)?))
}

/// `GET …/stats`: of one version, or of every ready version of the model.
pub(super) async fn of_model(State(app): AppState, target: Target) -> HttpResult<Response> {
    Ok(answer(&app.inference.select(Some(&target.model), target.version)?))
}

fn answer(models: &[Arc<Model>]) -> Response {
    let model_stats = models.iter().map(|model| ModelStatistics::of(model)).collect();
    Json(AnswerJson { model_stats }).into_response()
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Statistics")]
struct AnswerJson {
    model_stats: Vec<ModelStatistics>,
}

/// What the document says of both.
pub(super) fn operation(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, Tag::Inference, summary)
        .description("Cumulative since the model was loaded; times in nanoseconds.")
        .answers::<AnswerJson>("Counts and times of each version.")
}

#[derive(Serialize, JsonSchema)]
struct ModelStatistics {
    name: String,
    version: String,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: InferenceStatistics,
    batch_stats: Vec<BatchStatistics>,
    /// Nothing is reported: ONNX Runtime does not say what a session holds.
    memory_usage: [u8; 0],
}

#[derive(Serialize, JsonSchema)]
struct InferenceStatistics {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
    cache_hit: Duration,
    cache_miss: Duration,
}

#[derive(Serialize, JsonSchema)]
struct BatchStatistics {
    batch_size: usize,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
}

#[derive(Serialize, Default, JsonSchema)]
struct Duration {
    count: u64,
    ns: u64,
}

impl From<DurationStatistic> for Duration {
    fn from(DurationStatistic { count, ns }: DurationStatistic) -> Self {
        Self { count, ns }
    }
}

impl ModelStatistics {
    fn of(model: &Model) -> Self {
        Self::new(model.name(), model.version(), model.statistics())
    }

    fn new(name: &str, version: u64, statistics: Statistics) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_string(),
            last_inference: statistics.last_inference_ms,
            inference_count: statistics.inference_count,
            execution_count: statistics.execution_count,
            inference_stats: InferenceStatistics {
                success: statistics.success.into(),
                fail: statistics.fail.into(),
                queue: statistics.queue.into(),
                compute_input: statistics.compute_input.into(),
                compute_infer: statistics.compute_infer.into(),
                compute_output: statistics.compute_output.into(),
                cache_hit: statistics.cache_hit.into(),
                cache_miss: statistics.cache_miss.into(),
            },
            batch_stats: statistics
                .batches
                .into_iter()
                .map(|(batch_size, batch)| BatchStatistics {
                    batch_size,
                    compute_input: batch.compute_input.into(),
                    compute_infer: batch.compute_infer.into(),
                    compute_output: batch.compute_output.into(),
                })
                .collect(),
            memory_usage: [],
        }
    }
}
