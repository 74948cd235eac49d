//! What happens to every call: its id, its deadline, its log line, metrics and span, and the answer to a panic.

mod trace;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

use super::GrpcConfig;
use super::auth;
use super::call::{self, Call};
use super::compression::{Decompressor, ENCODING};
use super::messages::{MessageBytes, Messages};
use super::metrics::{GrpcMetrics, name_of};
use super::status::{corrected, status_of};
use crate::auth::Keys;
use crate::error::Error;
use crate::inference::BodyBytes;
use crate::net::Draining;
use crate::telemetry::{RequestIds, RequestSpan, TRACE_RESPONSE, Tracing};

pub(super) use self::trace::record_message;

/// The header that carries a call's id, in both directions.
const REQUEST_ID: &str = "x-request-id";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// The health protocol's probe.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// Where reflection's paths begin, in both versions.
const REFLECTION: &str = "/grpc.reflection.";

/// What [`observe`] needs beside the call.
#[derive(Debug)]
pub(super) struct Observer {
    metrics: GrpcMetrics,
    ids: RequestIds,
    keys: Keys,
    body_bytes: BodyBytes,
    max_message_bytes: usize,
    message_timeout: Duration,
    tracing: Tracing,
}

impl Observer {
    pub(super) fn new(
        metrics: GrpcMetrics,
        keys: Keys,
        body_bytes: BodyBytes,
        config: &GrpcConfig,
        tracing: Tracing,
    ) -> Self {
        let message_timeout = Duration::from_millis(config.message_timeout_ms);
        let max_message_bytes = config.max_message_bytes;
        Self { metrics, ids: RequestIds::new(), keys, body_bytes, max_message_bytes, message_timeout, tracing }
    }
}

/// Has `routes` answer a call.
pub(super) async fn observe(
    observer: Arc<Observer>,
    mut routes: Routes,
    peer: SocketAddr,
    draining: Draining,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let received = Instant::now();
    let headers = request.headers_mut();
    let id: Arc<str> = observer.ids.choose(headers.get(REQUEST_ID).map(HeaderValue::as_bytes)).into();
    let span = observer.span(&request, peer);
    let trace = span.trace().clone();
    let allowed = auth::check(&observer.keys, request.uri().path(), request.headers());
    let observation = Observation {
        observer,
        path: request.uri().path().to_owned(),
        peer,
        id: Arc::clone(&id),
        received,
        outcome: None,
        span,
    };
    // Every client of the reference implementations says that it can take gzip. Whether that is worth the time shows in
    // whether it compresses its own messages.
    if !request.headers().contains_key(ENCODING) {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let bytes = MessageBytes::new(observation.observer.body_bytes.open());
    let mut call = Call { id: Arc::clone(&id), deadline: None, draining, bytes, trace };
    let response = match allowed.and_then(|()| call::timeout(request.headers())) {
        Ok(timeout) => {
            call.deadline = timeout.and_then(|timeout| received.checked_add(timeout));
            request.extensions_mut().insert(call.clone());
            // Routes are always ready, so they can be called without being asked.
            let answer = if request.uri().path().starts_with(REFLECTION) {
                let draining = call.draining.clone();
                routes.call(request.map(|messages| until_draining(messages, draining)))
            } else {
                let timeout = observation.observer.message_timeout;
                let call = call.clone();
                let decompressor = Decompressor::of(request.headers(), observation.observer.max_message_bytes);
                if decompressor.is_some() {
                    request.headers_mut().remove(ENCODING);
                }
                routes.call(request.map(|messages| Body::new(Messages::new(messages, call, decompressor, timeout))))
            };
            let answer = AssertUnwindSafe(answer).catch_unwind();
            match until(call.deadline, answer).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Ok(Err(never))) => match never {},
                Ok(Err(panic)) => {
                    status_of(&Error::of_panic("the server failed on this call", &*panic), &call).into_http()
                }
                Err(error) => status_of(&error, &call).into_http(),
            }
        }
        Err(error) => status_of(&error, &call).into_http(),
    };

    let (mut parts, body) = response.into_parts();
    if let Ok(id) = HeaderValue::from_str(&id) {
        parts.headers.insert(REQUEST_ID, id);
    }
    let mut body = ObservedBody { inner: body, observation };
    if let Some(header) = body.observation.span.trace().response_header() {
        parts.headers.insert(TRACE_RESPONSE, header);
    }
    // An answer without messages has its status in the head.
    body.observation.see(&mut parts.headers);
    Response::from_parts(parts, Body::new(body))
}

/// `answer`, at most until `deadline`. Handlers know the deadline and answer in time, so this is for calls whose messages do
/// not arrive.
async fn until<T>(deadline: Option<Instant>, answer: impl Future<Output = T>) -> Result<T, Error> {
    let Some(deadline) = deadline else { return Ok(answer.await) };
    tokio::time::timeout_at(deadline.into(), answer)
        .await
        .map_err(|_| Error::deadline_exceeded("the call's deadline passed before it was answered"))
}

/// The messages that come before the server drains. Reflection answers for as long as its clients have something to ask, and
/// some keep that open; they must not hold up the end.
fn until_draining(messages: Incoming, mut draining: Draining) -> Body {
    let ending = async move { draining.begun().await };
    Body::new(StreamBody::new(BodyStream::new(messages).take_until(ending)))
}

/// One call's line in the access log and its count in the metrics, written when it ends. One that ends without a status is
/// one whose client has left.
#[derive(Debug)]
struct Observation {
    observer: Arc<Observer>,
    path: String,
    peer: SocketAddr,
    id: Arc<str>,
    received: Instant,
    outcome: Option<(Code, Option<String>)>,
    span: RequestSpan,
}

impl Observation {
    /// Notes the status, where `headers` (or trailers) hold one.
    fn see(&mut self, headers: &mut HeaderMap) {
        let Some(status) = Status::from_header_map(headers) else { return };
        let code = corrected(status.code());
        if code != status.code() {
            headers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(code)));
        }
        let message = (code != Code::Ok).then(|| status.message().to_owned());
        self.outcome = Some((code, message));
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let duration = self.received.elapsed();
        let (code, error) = self
            .outcome
            .take()
            .unwrap_or_else(|| (Code::Cancelled, Some("the client left before the answer".to_owned())));
        self.observer.metrics.record(&self.path, code, duration);
        self.end_span(code);
        // Probes come every few seconds for the life of the server, and say something only when they fail.
        if code == Code::Ok && is_probe(&self.path) {
            return;
        }
        tracing::debug!(
            target: "convoy::access",
            method = "grpc",
            path = self.path,
            status = name_of(code),
            duration_ms = duration.as_micros() as f64 / 1e3,
            peer = %self.peer,
            id = &*self.id,
            trace_id = self.span.trace().id().map(tracing::field::display),
            error,
        );
    }
}

fn is_probe(path: &str) -> bool {
    path == HEALTH_CHECK || auth::PROBES.contains(&path)
}

/// A body whose trailers are seen.
struct ObservedBody {
    inner: Body,
    observation: Observation,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            self.observation.see(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
