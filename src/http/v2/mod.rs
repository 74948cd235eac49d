//! The Open Inference Protocol ("V2") over REST, as KServe and Triton speak it, with Triton's extensions for binary tensors,
//! classification, model configuration and statistics.

mod infer;
mod metadata;
mod model_config;
mod repository;
mod request;
mod response;
mod statistics;

use axum::extract::FromRef;
use axum::http::HeaderName;
use axum::middleware::map_response;

pub(super) use self::metadata::with_readiness;
use super::middleware::uncompressed;
use super::routes::Routes;
use crate::inference::Inference;

/// The header that says how long a body's JSON part is, where raw tensors follow it.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The routes of health probes, for any state that has the facade. With `names_models` they say which models are missing.
pub(super) fn probes<S>(names_models: bool) -> Routes<S>
where
    S: Clone + Send + Sync + 'static,
    Inference: FromRef<S>,
{
    let live = Routes::new().get("/v2/health/live", metadata::live, metadata::live_operation());
    with_readiness(live, "/v2/health/ready", "ready", names_models)
}

/// The routes that change what is served.
pub(super) fn administration() -> Routes {
    Routes::new()
        .post("/v2/repository/models/{model}/load", repository::load, repository::load_operation())
        .post("/v2/repository/models/{model}/unload", repository::unload, repository::unload_operation())
        .layer(map_response(uncompressed))
}

/// The other routes below `/v2`.
pub(super) fn routes() -> Routes {
    let mut inference = Routes::new();
    let mut descriptions = Routes::new()
        .get("/v2", metadata::server, metadata::server_operation())
        .get("/v2/models/stats", statistics::of_all, statistics::operation("statistics", "Statistics of every model"))
        .post("/v2/repository/index", repository::index, repository::index_operation());
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        inference = inference.post(&format!("{model}/infer"), infer::infer, infer::operation());
        descriptions = descriptions
            .get(model, metadata::model, metadata::model_operation())
            .get(&format!("{model}/ready"), metadata::model_ready, metadata::model_ready_operation())
            .get(&format!("{model}/config"), model_config::show, model_config::operation())
            .get(
                &format!("{model}/stats"),
                statistics::of_model,
                statistics::operation("model_statistics", "Statistics of a model"),
            );
    }
    inference.merge(descriptions.layer(map_response(uncompressed)))
}
