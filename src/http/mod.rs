//! The HTTP interface: the Open Inference Protocol ("V2") over REST, the classify and listing endpoints, and the metrics
//! endpoint.
//!
//! It turns wire forms into the requests of [`crate::inference`] and its answers back, and it alone knows HTTP and JSON.
//! It must not know how a model is found, queued or run, nor that there is a gRPC interface.

mod architecture;
mod classify;
mod config;
mod error;
mod extract;
mod json;
mod listener;
mod metrics;
mod middleware;
mod models;
mod tensor_json;
mod v2;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use prometheus::Registry;

pub use config::HttpConfig;
pub use listener::{ConnectionOptions, serve};
pub use metrics::{HttpMetrics, metrics_router};

use crate::error::Result;
use crate::inference::Inference;

/// What every handler may use.
#[derive(Debug)]
struct App {
    inference: Inference,
    config: HttpConfig,
}

type AppState = axum::extract::State<Arc<App>>;

/// The router of the public listener, with its middleware. Its request metrics are registered with `registry`.
///
/// # Errors
/// `InvalidArgument` for a CORS origin that is not one, `Internal` when `registry` already holds metrics of these names.
pub fn router(inference: Inference, config: HttpConfig, registry: &Registry) -> Result<Router> {
    let metrics = HttpMetrics::register(registry)?;
    let cors = middleware::cors(&config.cors_origins)?;
    let routes = Router::new()
        .route("/v1/classify", post(classify::default_model))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::show))
        .route("/v1/models/{model}/classify", post(classify::named_model))
        .route("/v1/models/{model}/versions/{version}/classify", post(classify::named_model))
        .route("/v1/models/{model}/architecture", get(architecture::show))
        .route("/v1/models/{model}/versions/{version}/architecture", get(architecture::show))
        .merge(v2::routes())
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(Arc::new(App { inference, config }));
    Ok(middleware::wrap(routes, metrics, cors))
}
