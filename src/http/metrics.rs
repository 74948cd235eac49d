//! Metrics of HTTP itself, and the endpoint that shows every metric to Prometheus.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{HistogramVec, IntCounterVec, Registry};

use super::error::{HttpResult, method_not_allowed, no_such_path};
use super::openapi::{Operation, Tag};
use super::routes::Routes;
use super::v2;
use crate::error::Result;
use crate::inference::Inference;
use crate::telemetry::{Exposition, request_metrics};

/// Request counts and durations by method, route and status.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    /// `convoy_http_requests_total`.
    requests: IntCounterVec,
    /// `convoy_http_request_duration_seconds`.
    durations: HistogramVec,
}

impl HttpMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// `Internal` when `registry` already holds metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self> {
        let help = [
            "HTTP requests by method, route and status; 499 where the client left before the answer.",
            "Time from a request's head to its answer, the reading of its body included.",
        ];
        let (requests, durations) = request_metrics(registry, "HTTP", help, &["method", "route"])?;
        Ok(Self { requests, durations })
    }

    /// Counts one request. `route` is the route's pattern, never the path: labels must not grow with what clients ask for.
    pub(super) fn record(&self, method: &Method, route: &str, status: StatusCode, duration: Duration) {
        let method = method_label(method);
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.durations.with_label_values(&[method, route]).observe(duration.as_secs_f64());
    }
}

/// The router of the metrics listener: `GET /metrics` in Prometheus' text format or OpenMetrics', and the health probes, for those who ask
/// and have no certificate where one is needed elsewhere.
pub fn metrics_router(inference: Inference, exposition: Exposition) -> Router {
    routes(exposition)
        .merge(v2::probes(true))
        .into_router()
        .with_state(inference)
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
}

/// `GET /metrics`.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(exposition: Exposition) -> Routes<S> {
    let operation = Operation::new("metrics", Tag::Health, "Every metric in Prometheus' text format")
        .description("Also on a port of its own. OpenMetrics, which has exemplars, for clients that prefer it.")
        .answers_bytes("The metrics.", "text/plain")
        .answers_bytes("The metrics.", "application/openmetrics-text");
    Routes::new().get("/metrics", async move |headers: HeaderMap| expose(&exposition, &headers), operation)
}

fn expose(exposition: &Exposition, headers: &HeaderMap) -> HttpResult<Response> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let (media_type, text) = exposition.text(accept)?;
    Ok(([(header::CONTENT_TYPE, media_type), (header::VARY, "accept")], text).into_response())
}

/// A method is whatever token a client sends, so only the known ones become labels.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::Exemplars;

    #[tokio::test]
    async fn what_is_recorded_is_exposed() {
        let registry = Registry::new();
        let metrics = HttpMetrics::register(&registry).unwrap();
        metrics.record(&Method::POST, "/v1/classify", StatusCode::OK, Duration::from_millis(3));
        metrics.record(
            &Method::from_bytes(b"BREW").unwrap(),
            "/v1/classify",
            StatusCode::METHOD_NOT_ALLOWED,
            Duration::ZERO,
        );
        let router = routes(Exposition::new(registry, Exemplars::default())).into_router();

        let response = router.oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains(r#"convoy_http_requests_total{method="POST",route="/v1/classify",status="200"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"method="other""#), "{text}");
        assert!(
            text.contains(
                r#"convoy_http_request_duration_seconds_bucket{method="POST",route="/v1/classify",le="0.005"} 1"#
            ),
            "{text}"
        );
    }

    #[test]
    fn metrics_of_the_same_name_are_refused() {
        let registry = Registry::new();
        HttpMetrics::register(&registry).unwrap();
        assert_eq!(HttpMetrics::register(&registry).unwrap_err().kind(), crate::error::ErrorKind::Internal);
    }
}
