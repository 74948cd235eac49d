//! The Open Inference Protocol ("V2") over REST, as KServe and Triton speak it, with Triton's extensions for binary tensors,
//! classification, model configuration and statistics.

mod infer;
mod metadata;
mod model_config;
mod repository;
mod request;
mod response;
mod statistics;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::HeaderName;
use axum::middleware::map_response;
use axum::routing::{get, post};

pub(super) use self::metadata::ready;
use super::App;
use super::middleware::uncompressed;
use crate::inference::Inference;

/// The header that says how long a body's JSON part is, where raw tensors follow it.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The routes of health probes, for any state that has the facade.
pub(super) fn probes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Inference: FromRef<S>,
{
    Router::new().route("/v2/health/live", get(metadata::live)).route("/v2/health/ready", get(ready))
}

/// The routes that change what is served.
pub(super) fn administration() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route_layer(map_response(uncompressed))
}

/// The other routes below `/v2`.
pub(super) fn routes() -> Router<Arc<App>> {
    let mut inference = Router::new();
    let mut descriptions = Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/models/stats", get(statistics::of_all))
        .route("/v2/repository/index", post(repository::index));
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        inference = inference.route(&format!("{model}/infer"), post(infer::infer));
        descriptions = descriptions
            .route(model, get(metadata::model))
            .route(&format!("{model}/ready"), get(metadata::model_ready))
            .route(&format!("{model}/config"), get(model_config::show))
            .route(&format!("{model}/stats"), get(statistics::of_model));
    }
    inference.merge(descriptions.route_layer(map_response(uncompressed)))
}
