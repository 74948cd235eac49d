//! The model configuration extension: what is served, in the form of Triton's `ModelConfig` as JSON.
//!
//! `perf_analyzer` reads `max_batch_size`, `input`, `output`, `dynamic_batching` and `model_transaction_policy` from here.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::Target;
use crate::repository::Model;
use crate::repository::layout::LABELS_FILE;
use crate::tensor::{DataType, TensorSpec};

/// The platform that metadata and configuration name.
pub(super) const PLATFORM: &str = "onnxruntime_onnx";

/// `GET …/config`.
pub(super) async fn show(State(app): AppState, target: Target) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    Ok(Json(ModelConfig::of(&model)).into_response())
}

#[derive(Serialize)]
struct ModelConfig<'a> {
    name: &'a str,
    platform: &'static str,
    backend: &'static str,
    default_model_filename: &'static str,
    max_batch_size: usize,
    input: [Input<'a>; 1],
    output: Vec<Output<'a>>,
    instance_group: [InstanceGroup<'a>; 1],
    /// Absent where the batch dimension is fixed, as nothing can be batched then.
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic_batching: Option<DynamicBatching>,
    model_transaction_policy: TransactionPolicy,
}

#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    data_type: String,
    format: &'static str,
    dims: &'a [i64],
    is_shape_tensor: bool,
    allow_ragged_batch: bool,
    optional: bool,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    data_type: String,
    dims: &'a [i64],
    label_filename: &'a str,
    is_shape_tensor: bool,
}

#[derive(Serialize)]
struct InstanceGroup<'a> {
    name: &'a str,
    kind: &'static str,
    count: usize,
}

#[derive(Serialize)]
struct DynamicBatching {
    preferred_batch_size: [usize; 0],
    max_queue_delay_microseconds: u64,
}

#[derive(Serialize)]
struct TransactionPolicy {
    decoupled: bool,
}

impl<'a> ModelConfig<'a> {
    fn of(model: &'a Model) -> Self {
        // Triton's convention: a graph with a fixed batch dimension has 0 here, and that dimension in its dims.
        let batched = !model.has_fixed_batch();
        Self {
            name: model.name(),
            platform: PLATFORM,
            backend: "onnxruntime",
            default_model_filename: "model.onnx",
            max_batch_size: if batched { model.max_batch_size() } else { 0 },
            input: [Input {
                name: &model.input().name,
                data_type: type_name(model.input().data_type),
                format: "FORMAT_NONE",
                dims: dims(model.input(), batched),
                is_shape_tensor: false,
                allow_ragged_batch: false,
                optional: false,
            }],
            output: model
                .outputs()
                .iter()
                .map(|spec| Output {
                    name: &spec.name,
                    data_type: type_name(spec.data_type),
                    dims: dims(spec, batched),
                    label_filename: label_filename(model),
                    is_shape_tensor: false,
                })
                .collect(),
            instance_group: [InstanceGroup {
                name: model.name(),
                kind: if model.provider() == "cpu" { "KIND_CPU" } else { "KIND_GPU" },
                count: model.scheduler().instance_count(),
            }],
            dynamic_batching: batched.then(|| DynamicBatching {
                preferred_batch_size: [],
                max_queue_delay_microseconds: model.config().batching.max_queue_delay_us,
            }),
            model_transaction_policy: TransactionPolicy { decoupled: false },
        }
    }
}

/// The shape without its batch dimension, which a configuration leaves to `max_batch_size`.
fn dims(spec: &TensorSpec, batched: bool) -> &[i64] {
    if batched { spec.shape.get(1..).unwrap_or_default() } else { &spec.shape }
}

fn label_filename(model: &Model) -> &str {
    match &model.config().labels {
        _ if model.labels().is_empty() => "",
        Some(path) => path.to_str().unwrap_or_default(),
        None => LABELS_FILE,
    }
}

/// The configuration's name of a data type, which differs from the protocol's for byte strings alone.
fn type_name(data_type: DataType) -> String {
    match data_type {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}
