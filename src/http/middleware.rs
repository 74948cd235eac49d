//! What happens to every request: its id, its log lines and metrics, CORS, and compression both ways.

mod trace;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};
use tower_http::decompression::RequestDecompressionLayer;
use tracing::Instrument;

use super::error::{HttpError, error_response};
use super::metrics::HttpMetrics;
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::{RequestIds, RequestSpan, TRACE_RESPONSE, Tracing};

/// The header that carries a request's id, in both directions.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header that tells the client which trace its request is in.
const TRACE: HeaderName = HeaderName::from_static(TRACE_RESPONSE);

/// Answers smaller than this are sent as they are: compressing them costs more than their few packets.
const MIN_COMPRESSED_BYTES: u64 = 1024;

/// The status that log and metrics have for a request whose client left before the answer: nginx's number for it.
const CLIENT_LEFT: u16 = 499;

/// Marks the answer to a health probe. Probes come every few seconds for the life of the server, so those that succeed are not
/// logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe;

/// Marks an answer that is not to be compressed whoever asks for it: `tritonclient`'s asyncio client always asks, and reads no
/// compressed answer but an inference's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uncompressed;

/// Marks an answer as [`Uncompressed`].
pub(super) async fn uncompressed(mut response: Response) -> Response {
    response.extensions_mut().insert(Uncompressed);
    response
}

/// Puts the middleware around `routes`, outermost first: observation, CORS, compression of answers, decompression of requests.
pub(super) fn wrap(routes: Router, observer: &Arc<Observer>, cors: Option<&CorsLayer>) -> Router {
    let may_be_compressed =
        |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| extensions.get::<Uncompressed>().is_none();
    routes.layer(
        ServiceBuilder::new()
            .layer(from_fn_with_state(Arc::clone(observer), observe))
            .layer(option_layer(cors.cloned()))
            .layer(
                CompressionLayer::new()
                    .quality(CompressionLevel::Fastest)
                    .compress_when(SizeAbove::new(MIN_COMPRESSED_BYTES).and(may_be_compressed)),
            )
            // Encodings that are not taken pass through to the reader of the body, which answers them in JSON.
            .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true)),
    )
}

/// The CORS layer for `origins`, or `None` for none.
///
/// # Errors
/// `InvalidArgument` for an origin that no browser could send.
pub(super) fn cors(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let origins = origins.iter().map(|origin| {
            let is_origin = origin.parse::<Uri>().is_ok_and(|uri| {
                uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/" && !origin.ends_with('/')
            });
            match HeaderValue::from_str(origin) {
                Ok(value) if is_origin => Ok(value),
                _ => Err(Error::invalid(format!(
                    "http.cors_origins: `{origin}` is not an origin such as `https://example.org`"
                ))),
            }
        });
        AllowOrigin::list(origins.collect::<Result<Vec<_>>>()?)
    };
    Ok(Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST])
            // `*` would not stand for `authorization`.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(Any),
    ))
}

/// What [`observe`] needs beside the request.
#[derive(Debug)]
pub(super) struct Observer {
    metrics: HttpMetrics,
    ids: RequestIds,
    tracing: Tracing,
    /// The hosting platform's probe.
    health_route: Option<String>,
}

impl Observer {
    pub(super) fn new(metrics: HttpMetrics, tracing: Tracing, health_route: Option<String>) -> Arc<Self> {
        Arc::new(Self { metrics, ids: RequestIds::new(), tracing, health_route })
    }
}

/// Gives the request its id, counts and logs it, and turns a panic into an answer.
async fn observe(State(observer): State<Arc<Observer>>, mut request: Request, next: Next) -> Response {
    let id_text = observer.ids.choose(request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes));
    let id = HeaderValue::from_str(&id_text).expect("a request id is visible ASCII");
    let traced = observer.span(&request);
    let trace = traced.trace().clone();
    let mut observation = Observation::new(&observer.metrics, &request, &id_text, traced);
    let span = tracing::error_span!("request", id = %id_text, trace_id = trace.id().map(tracing::field::display));
    let trace_header = trace.response_header();
    if trace_header.is_some() {
        request.extensions_mut().insert(trace);
    }

    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = outcome.unwrap_or_else(|panic| {
        HttpError(Error::of_panic("the server failed on this request", &*panic)).into_response()
    });

    let error = response.extensions_mut().remove::<Error>();
    if let Some(error) = error.as_ref().filter(|error| error.kind() == ErrorKind::Internal) {
        span.in_scope(|| tracing::error!(error = %error.chain(), "a request failed"));
        *response.body_mut() =
            error_response(response.status(), &format!("{error} (request id {id_text})")).into_body();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::CONTENT_ENCODING);
    }
    observation.finish(&response, error.as_ref());
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(header) = trace_header {
        response.headers_mut().insert(TRACE, header);
    }
    response
}

/// One request's line in the access log and its count in the metrics. Dropped unfinished, it says that the client left.
struct Observation<'a> {
    metrics: &'a HttpMetrics,
    request_id: &'a str,
    started: Instant,
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
    peer: Option<SocketAddr>,
    request_bytes: Option<u64>,
    is_probe: bool,
    finished: bool,
    span: RequestSpan,
}

impl<'a> Observation<'a> {
    fn new(metrics: &'a HttpMetrics, request: &Request, request_id: &'a str, span: RequestSpan) -> Self {
        let extensions = request.extensions();
        Self {
            metrics,
            request_id,
            started: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: extensions.get::<MatchedPath>().cloned(),
            peer: extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0),
            request_bytes: request
                .headers()
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok()),
            is_probe: false,
            finished: false,
            span,
        }
    }

    fn finish(&mut self, response: &Response, error: Option<&Error>) {
        self.finished = true;
        self.is_probe = response.extensions().get::<Probe>().is_some();
        self.record(response.status(), error.map(Error::message));
    }

    fn record(&mut self, status: StatusCode, error: Option<&str>) {
        let duration = self.started.elapsed();
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        self.metrics.record(&self.method, route, status, duration);
        self.end_span(status);
        if self.is_probe && status.is_success() {
            return;
        }
        tracing::debug!(
            target: "convoy::access",
            method = %self.method,
            path = self.uri.path(),
            status = status.as_u16(),
            duration_ms = duration.as_micros() as f64 / 1e3,
            request_bytes = self.request_bytes,
            peer = self.peer.map(tracing::field::display),
            id = self.request_id,
            trace_id = self.span.trace().id().map(tracing::field::display),
            error,
        );
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let status = StatusCode::from_u16(CLIENT_LEFT).expect("three digits are a status code");
            self.record(status, Some("the client left before the answer"));
        }
    }
}

#[cfg(test)]
mod tests;
