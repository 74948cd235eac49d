//! Health and metadata.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::Target;
use crate::http::middleware::Probe;
use crate::inference::{EXTENSIONS, Inference};
use crate::tensor::TensorSpec;

#[derive(Serialize)]
pub(super) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: &'static [&'static str],
}

/// `GET /v2`.
pub(super) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS })
}

#[derive(Serialize)]
pub(super) struct Live {
    live: bool,
}

/// `GET /v2/health/live`: that this answers is the answer.
pub(super) async fn live() -> (Extension<Probe>, Json<Live>) {
    (Extension(Probe), Json(Live { live: true }))
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
}

/// `GET /v2/health/ready`: whether the server should get traffic.
pub(in crate::http) async fn ready(State(inference): State<Inference>) -> Response {
    let ready = inference.is_ready();
    (readiness_status(ready), Extension(Probe), Json(Ready { ready })).into_response()
}

#[derive(Serialize)]
struct ModelReady<'a> {
    name: &'a str,
    ready: bool,
}

/// `GET …/ready`: whether one model, or one version, can be used.
pub(super) async fn model_ready(State(app): AppState, target: Target) -> HttpResult<Response> {
    let ready = app.inference.is_model_ready(&target.model, target.version)?;
    Ok((readiness_status(ready), Json(ModelReady { name: &target.model, ready })).into_response())
}

fn readiness_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'static str,
    inputs: [TensorMetadata<'a>; 1],
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
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
