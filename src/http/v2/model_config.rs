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
use crate::repository::{Description, TensorDescription};
use crate::tensor::DataType;

/// `GET …/config`.
pub(super) async fn show(State(app): AppState, target: Target) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    Ok(Json(ModelConfig::from(model.describe())).into_response())
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
    /// Empty for an ensemble.
    instance_group: Vec<InstanceGroup<'a>>,
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

impl<'a> From<Description<'a>> for ModelConfig<'a> {
    fn from(model: Description<'a>) -> Self {
        let output = |TensorDescription { name, data_type, dims }| Output {
            name,
            data_type: type_name(data_type),
            dims,
            label_filename: model.label_filename,
            is_shape_tensor: false,
        };
        let group = InstanceGroup {
            name: model.name,
            kind: if model.is_on_gpu { "KIND_GPU" } else { "KIND_CPU" },
            count: model.instance_count,
        };
        Self {
            name: model.name,
            platform: model.platform,
            backend: model.backend,
            default_model_filename: model.filename,
            max_batch_size: model.max_batch_size,
            input: [Input {
                name: model.input.name,
                data_type: type_name(model.input.data_type),
                format: "FORMAT_NONE",
                dims: model.input.dims,
                is_shape_tensor: false,
                allow_ragged_batch: false,
                optional: false,
            }],
            output: model.outputs.iter().copied().map(output).collect(),
            instance_group: (model.instance_count > 0).then_some(group).into_iter().collect(),
            dynamic_batching: model.batching.map(|batching| DynamicBatching {
                preferred_batch_size: [],
                max_queue_delay_microseconds: batching.max_queue_delay_us,
            }),
            model_transaction_policy: TransactionPolicy { decoupled: false },
        }
    }
}

/// The configuration's name of a data type, which differs from the protocol's for byte strings alone.
fn type_name(data_type: DataType) -> String {
    match data_type {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}
