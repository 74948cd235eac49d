//! Health and metadata.

use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::Target;
use crate::http::middleware::Probe;
use crate::http::openapi::{Operation, Tag};
use crate::http::routes::Routes;
use crate::inference::{EXTENSIONS, Inference, Unready};
use crate::repository::Lack;
use crate::tensor::TensorSpec;

#[derive(Serialize, JsonSchema)]
pub(super) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: &'static [&'static str],
}

/// What the document says of [`server`].
pub(super) fn server_operation() -> Operation {
    Operation::new("server_metadata", Tag::Inference, "Name, version and extensions of the server")
        .answers::<ServerMetadata>("What the server is.")
}

/// `GET /v2`.
pub(super) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS })
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Live {
    live: bool,
}

/// What the document says of [`live`].
pub(super) fn live_operation() -> Operation {
    Operation::new("live", Tag::Health, "Whether the server is alive").answers::<Live>("It is.")
}

/// `GET /v2/health/live`: that this answers is the answer.
pub(super) async fn live() -> (Extension<Probe>, Json<Live>) {
    (Extension(Probe), Json(Live { live: true }))
}

#[derive(Serialize, JsonSchema)]
struct Ready {
    ready: bool,
    /// Why it is not ready, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What the document says of [`with_readiness`]'s route under the name `id`.
fn ready_operation(id: &'static str) -> Operation {
    Operation::new(id, Tag::Health, "Whether the server should get traffic")
        .answers::<Ready>("It should.")
        .or_answers::<Ready>(503, "It loads its models, lacks one that it must have, or is shutting down.")
}

/// Has `path` say, as `GET /v2/health/ready` does, whether the server should get traffic. With `names_models` it says also which models
/// are missing, which is not for those to know who may not see what there is.
pub(in crate::http) fn with_readiness<S>(
    routes: Routes<S>,
    path: &str,
    id: &'static str,
    names_models: bool,
) -> Routes<S>
where
    S: Clone + Send + Sync + 'static,
    Inference: FromRef<S>,
{
    let ready = async move |State(inference): State<Inference>| {
        let error = inference.unready().map(|reason| match reason {
            Unready::Lacks(Lack::These(_)) if !names_models => {
                "models that are to be served do not: the index and the metrics port say which".to_owned()
            }
            reason => reason.to_string(),
        });
        let ready = error.is_none();
        (readiness_status(ready), Extension(Probe), Json(Ready { ready, error }))
    };
    routes.get(path, ready, ready_operation(id))
}

#[derive(Serialize, JsonSchema)]
struct ModelReady<'a> {
    name: &'a str,
    ready: bool,
}

/// What the document says of [`model_ready`].
pub(super) fn model_ready_operation() -> Operation {
    Operation::new("model_ready", Tag::Inference, "Whether a model, or a version of it, can be used")
        .answers::<ModelReady>("It can.")
        .or_answers::<ModelReady>(503, "It can't.")
}

/// `GET …/ready`: whether one model, or one version, can be used.
pub(super) async fn model_ready(State(app): AppState, target: Target) -> HttpResult<Response> {
    let ready = app.inference.is_model_ready(&target.model, target.version)?;
    Ok((readiness_status(ready), Json(ModelReady { name: &target.model, ready })).into_response())
}

fn readiness_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(Serialize, JsonSchema)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'static str,
    inputs: [TensorMetadata<'a>; 1],
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize, JsonSchema)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
}

impl<'a> From<&'a TensorSpec> for TensorMetadata<'a> {
    fn from(spec: &'a TensorSpec) -> Self {
        Self { name: &spec.name, datatype: spec.data_type.as_str(), shape: &spec.shape }
    }
}

/// What the document says of [`model`].
pub(super) fn model_operation() -> Operation {
    Operation::new("model_metadata", Tag::Inference, "Inputs and outputs of a model")
        .description("The batch dimension is included; -1 is variable.")
        .answers::<ModelMetadata>("What goes in and comes out.")
}

/// `GET /v2/models/M[/versions/V]`: the graph's inputs and outputs, the batch dimension included, `-1` where one is open.
pub(super) async fn model(State(app): AppState, target: Target) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    let metadata = ModelMetadata {
        name: model.name(),
        versions: app.inference.versions(model.name()).iter().map(u64::to_string).collect(),
        platform: model.platform(),
        inputs: [model.input().into()],
        outputs: model.outputs().iter().map(TensorMetadata::from).collect(),
    };
    Ok(Json(metadata).into_response())
}
