//! The HTTP interface: the Open Inference Protocol ("V2") over REST, the classify and listing endpoints, and the metrics
//! endpoint.
//!
//! It turns wire forms into the requests of [`crate::inference`] and [`crate::explain`] and its answers back, and it alone knows HTTP and JSON.
//! It must not know how a model is found, queued or run, nor that there is a gRPC interface.

mod architecture;
mod auth;
mod classify;
mod config;
mod error;
mod explain;
mod extract;
mod hosting;
mod json;
mod lingering;
mod listener;
mod metrics;
mod middleware;
mod models;
mod predict;
mod tensor_json;
mod v2;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use prometheus::Registry;

pub use config::HttpConfig;
pub use listener::{ConnectionOptions, serve};
pub use metrics::{HttpMetrics, metrics_router};

use crate::auth::{Keys, Right};
use crate::error::Result;
use crate::explain::Explainer;
use crate::inference::Inference;

/// What every handler may use.
#[derive(Debug)]
struct App {
    inference: Inference,
    explainer: Explainer,
    config: HttpConfig,
}

impl FromRef<Arc<App>> for Inference {
    fn from_ref(app: &Arc<App>) -> Self {
        app.inference.clone()
    }
}

type AppState = axum::extract::State<Arc<App>>;

/// The router of the public listener, with its middleware, for those who have one of `keys`. Its request metrics are
/// registered with `registry`.
///
/// # Errors
/// `InvalidArgument` for a CORS origin that is not one, `Internal` when `registry` already holds metrics of these names.
pub fn router(
    inference: Inference,
    explainer: Explainer,
    config: HttpConfig,
    keys: &Keys,
    registry: &Registry,
) -> Result<Router> {
    let observer = middleware::Observer::new(HttpMetrics::register(registry)?);
    let cors = middleware::cors(&config.cors_origins)?;
    let platform = platform_routes(&config, keys);
    let app = Arc::new(App { inference, explainer, config });
    let routes = Router::new()
        .route("/invocations", post(hosting::invoke))
        .route("/v1/classify", post(classify::default_model))
        .route("/v1/models", get(models::list))
        // What is posted to a model or a version is `:predict` or `:explain`.
        .route("/v1/models/{model}", get(models::show).post(predict::named_model))
        .route("/v1/models/{model}/versions/{version}", post(predict::named_model))
        .route("/v1/models/{model}/classify", post(classify::named_model))
        .route("/v1/models/{model}/versions/{version}/classify", post(classify::named_model))
        .route("/v1/models/{model}/architecture", get(architecture::show))
        .route("/v1/models/{model}/versions/{version}/architecture", get(architecture::show))
        .route("/v1/models/{model}/explain", post(explain::explain))
        .route("/v1/models/{model}/versions/{version}/explain", post(explain::explain))
        .route("/v1/models/{model}/filters", get(explain::filters))
        .route("/v1/models/{model}/versions/{version}/filters", get(explain::filters))
        .route("/v1/models/{model}/features", post(explain::features))
        .route("/v1/models/{model}/versions/{version}/features", post(explain::features))
        .route("/v1/models/{model}/exciting", post(explain::exciting))
        .route("/v1/models/{model}/versions/{version}/exciting", post(explain::exciting))
        .merge(v2::routes());
    let routes = auth::protect(routes, keys, Right::Infer)
        .merge(auth::protect(v2::administration(), keys, Right::Admin))
        .merge(v2::probes())
        .route("/ping", get(v2::ready))
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(Arc::clone(&app));
    let wrap = |routes| middleware::wrap(routes, &observer, cors.as_ref());
    Ok(wrap(routes).fallback_service(wrap(platform.with_state(app))))
}

/// The routes that the hosting platform has chosen. They are asked last: a platform may well choose a path that is served
/// anyway, which is then served as ever.
fn platform_routes(config: &HttpConfig, keys: &Keys) -> Router<Arc<App>> {
    let mut router = Router::new().without_v07_checks();
    if let Some(path) = &config.predict_route {
        router = auth::protect(router.route(path, post(hosting::invoke)), keys, Right::Infer);
    }
    if let Some(path) = &config.health_route {
        router = router.route(path, get(v2::ready));
    }
    router.fallback(error::no_such_path).method_not_allowed_fallback(error::method_not_allowed)
}
