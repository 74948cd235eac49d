//! The HTTP interface: the Open Inference Protocol ("V2") over REST, the classify, explain and listing endpoints, the metrics, the
//! page in the browser, and the OpenAPI document of it all.
//!
//! It turns wire forms into the requests of [`crate::inference`] and [`crate::explain`] and its answers back, and it alone knows HTTP and JSON.
//! It must not know how a model is found, queued or run, nor that there is a gRPC interface.

mod architecture;
mod auth;
mod classify;
mod config;
mod debug;
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
mod openapi;
mod page;
mod predict;
mod routes;
mod tensor_json;
mod v2;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;

pub use config::HttpConfig;
pub use debug::ServerFacts;
pub use listener::{ConnectionOptions, serve};
pub use metrics::{HttpMetrics, metrics_router};

use self::routes::Routes;
use crate::auth::{Keys, Right};
use crate::error::Result;
use crate::explain::Explainer;
use crate::inference::Inference;
use crate::telemetry::{Metrics, Tracing};

/// What every handler may use.
#[derive(Debug)]
struct App {
    inference: Inference,
    explainer: Explainer,
    config: HttpConfig,
    facts: ServerFacts,
}

impl FromRef<Arc<App>> for Inference {
    fn from_ref(app: &Arc<App>) -> Self {
        app.inference.clone()
    }
}

type AppState = axum::extract::State<Arc<App>>;

/// What the public listener's router is made of, beside its configuration.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What answers requests.
    pub inference: Inference,
    /// What explains the answers.
    pub explainer: Explainer,
    /// Who may ask.
    pub keys: &'a Keys,
    /// Where its request metrics are registered, and all that it shows of metrics.
    pub metrics: &'a Metrics,
    /// What traces requests.
    pub tracing: Tracing,
    /// What operators may see of the server.
    pub facts: ServerFacts,
}

/// The router of the public listener, with its middleware.
///
/// # Errors
/// `InvalidArgument` for a CORS origin that is not one, `Internal` when the registry already holds metrics of these names.
pub fn router(config: HttpConfig, parts: Parts<'_>) -> Result<Router> {
    let Parts { inference, explainer, keys, metrics, tracing, facts } = parts;
    let requests = HttpMetrics::register(metrics.registry())?;
    let observer = middleware::Observer::new(requests, tracing, config.health_route.clone());
    let cors = middleware::cors(&config.cors_origins)?;
    let platform = platform_routes(&config, keys);
    let app = Arc::new(App { inference, explainer, config, facts });
    let mut routes = Routes::new()
        .post("/invocations", hosting::invoke, hosting::operation())
        .post("/v1/classify", classify::default_model, classify::default_operation())
        .get("/v1/models", models::list, models::list_operation())
        .get("/v1/models/{model}", models::show, models::operation())
        .merge(metrics::routes(metrics.exposition()))
        .merge(v2::routes());
    for model in ["/v1/models/{model}", "/v1/models/{model}/versions/{version}"] {
        routes = routes
            .verbs(model, predict::named_model, predict::operations())
            .post(&format!("{model}/classify"), classify::named_model, classify::operation())
            .get(&format!("{model}/architecture"), architecture::show, architecture::operation())
            .post(&format!("{model}/explain"), explain::explain, explain::operation())
            .get(&format!("{model}/filters"), explain::filters, explain::filters_operation())
            .post(&format!("{model}/features"), explain::features, explain::features_operation())
            .post(&format!("{model}/exciting"), explain::exciting, explain::exciting_operation());
    }
    // Probes are open to all; which models there are is not, where keys are asked for.
    let names_models = !keys.are_needed();
    let routes = auth::protect(routes, keys, Right::Infer)
        .merge(auth::protect(v2::administration().merge(debug::routes()), keys, Right::Admin))
        .merge(v2::probes(names_models));
    let routes = v2::with_readiness(routes, "/ping", "ping", names_models)
        .with_document(&platform)
        .into_router()
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(Arc::clone(&app));
    let platform = platform
        .into_router()
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(app);
    let wrap = |routes| middleware::wrap(routes, &observer, cors.as_ref());
    Ok(wrap(routes).fallback_service(wrap(platform)))
}

/// The routes that the hosting platform has chosen, and the page. They are asked last: a platform may well choose a path that is
/// served anyway, which is then served as ever. But where it chose a page's, the platform needs its answer more.
fn platform_routes(config: &HttpConfig, keys: &Keys) -> Routes {
    let mut routes = Routes::within(Router::new().without_v07_checks());
    if let Some(path) = &config.predict_route {
        let operation = hosting::operation().renamed("platform_predict", "The hosting platform's predict route");
        routes = auth::protect(routes.post(path, hosting::invoke, operation), keys, Right::Infer);
    }
    if let Some(path) = &config.health_route {
        routes = v2::with_readiness(routes, path, "platform_health", !keys.are_needed());
    }
    routes.merge(page::routes(config.health_route.as_deref()))
}
