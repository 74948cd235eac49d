//! Traces: where a request's time went, as spans that are sent to a collector.
//!
//! What a request and its parts carry is a [`Trace`], which is empty, and costs nothing, where nothing is traced. Parts know when
//! they began and ended anyway, so their spans are made when they are over, with the times that they had.

mod batch;
mod client;
mod config;
mod export;
mod resource;
mod sampler;
mod variables;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use prometheus::Registry;

pub use self::batch::{BatchFacts, TracedEntry, record_batch};
pub use self::client::TrustedProxies;
pub use self::config::{OtlpProtocol, SampleRatio, TracingConfig};
use self::sampler::ByRequest;
use crate::error::Result;

/// A name and a value that a span has.
pub use opentelemetry::KeyValue as Attribute;

/// The response header that tells a client which trace its request is in (W3C Trace Context, level 2). Its form is `traceparent`'s.
pub const TRACE_RESPONSE: &str = "traceresponse";

/// Of which release of the semantic conventions the attributes are.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";

/// What begins traces. Cheap to clone; where nothing is traced it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Tracing(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    proxies: TrustedProxies,
}

impl Tracing {
    /// Traces as `config` says, if it does, and believes `proxies` who asks. What becomes of the spans is counted in `registry`. To be
    /// called within tokio's runtime.
    ///
    /// # Errors
    /// `InvalidArgument` for what can never be sent.
    pub fn start(config: &TracingConfig, proxies: TrustedProxies, registry: &Registry) -> Result<Self> {
        let Some(url) = config.url()? else { return Ok(Self(None)) };
        for (variable, cause) in variables::unheeded(|name| std::env::var(name).ok()) {
            tracing::warn!(variable, cause, "a variable of OpenTelemetry's is not heeded");
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource::resource(&config.service_name))
            .with_sampler(ByRequest::new(config.sample_ratio))
            .with_span_processor(export::processor(config, &url, registry)?)
            .build();
        let scope = InstrumentationScope::builder("convoy").with_version(env!("CARGO_PKG_VERSION"));
        let tracer = provider.tracer_with_scope(scope.with_schema_url(SCHEMA).build());
        // Not where to: the URL may hold a secret.
        tracing::info!(protocol = ?config.protocol, sample_ratio = config.sample_ratio.get(), "traces are exported");
        Ok(Self(Some(Arc::new(Inner { provider, tracer, propagator: TraceContextPropagator::new(), proxies }))))
    }

    /// Whether anything is traced.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a request that came with `headers` from `peer`, in the trace that these name or a new one.
    pub fn request(&self, headers: &HeaderMap, peer: Option<SocketAddr>, name: impl FnOnce() -> String) -> RequestSpan {
        let Some(inner) = &self.0 else { return RequestSpan(Trace(None)) };
        let parent = inner.propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let span = SpanBuilder::from_name(name()).with_kind(SpanKind::Server);
        let trace = Trace::begin(&inner.tracer, span, &parent);
        if let (Some(traced), Some(peer)) = (trace.recorded(), peer) {
            traced.lock().set_attributes(inner.proxies.attributes(headers, peer));
        }
        RequestSpan(trace)
    }

    /// The scheme that the client of a request with `headers` spoke, where a trusted proxy says it.
    pub fn forwarded_scheme(&self, headers: &HeaderMap) -> Option<&'static str> {
        self.0.as_ref()?.proxies.scheme(headers)
    }

    /// Has everything sent that waits for it, at most for `timeout`. Blocks. There are no spans afterwards.
    pub fn shutdown(&self, timeout: Duration) {
        if let Some(inner) = &self.0
            && let Err(error) = inner.provider.shutdown_with_timeout(timeout)
        {
            tracing::warn!(%error, "the last traces could not be exported");
        }
    }
}

/// A request's span. It ends when this is dropped.
#[derive(Debug, Default)]
pub struct RequestSpan(Trace);

impl RequestSpan {
    /// What the request's parts carry.
    pub fn trace(&self) -> &Trace {
        &self.0
    }

    /// Ends the span with what is known by then, as attributes, and the kind of error that it ended with, if it was the server's.
    pub fn end(&mut self, attributes: impl FnOnce() -> Vec<KeyValue>, error: Option<&str>) {
        let Some(traced) = &self.0.0 else { return };
        let mut span = traced.lock();
        if span.is_recording() {
            span.set_attributes(attributes());
            if let Some(error) = error {
                fail(&mut span, error);
            }
        }
        span.end();
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        // The trace itself may live on for a while, in the queue for instance.
        if let Some(traced) = &self.0.0 {
            traced.lock().end();
        }
    }
}

/// The place in a trace below which the spans of a request's parts are put. Cheap to clone; empty where nothing is traced.
#[derive(Clone, Default)]
pub struct Trace(Option<Arc<Traced>>);

struct Traced {
    tracer: SdkTracer,
    context: SpanContext,
    span: Mutex<Span>,
    /// The same moment by both clocks: spans have times of day, and parts are measured by the one that never jumps.
    began: (Instant, SystemTime),
}

impl Trace {
    fn begin(tracer: &SdkTracer, span: SpanBuilder, parent: &Context) -> Self {
        let began = (Instant::now(), SystemTime::now());
        let span = tracer.build_with_context(span.with_start_time(began.1), parent);
        let context = span.span_context().clone();
        Self(Some(Arc::new(Traced { tracer: tracer.clone(), context, span: Mutex::new(span), began })))
    }

    /// Whether its spans are recorded.
    pub fn is_recorded(&self) -> bool {
        self.recorded().is_some()
    }

    fn recorded(&self) -> Option<&Arc<Traced>> {
        self.0.as_ref().filter(|traced| traced.context.is_sampled())
    }

    /// The trace's id, for log lines; `None` where nothing is traced.
    pub fn id(&self) -> Option<TraceId> {
        self.0.as_ref().map(|traced| TraceId(traced.context.trace_id()))
    }

    /// The ids of the trace and its span in hexadecimal digits, where they are recorded.
    pub fn ids(&self) -> Option<[String; 2]> {
        self.recorded().map(|traced| [traced.context.trace_id().to_string(), traced.context.span_id().to_string()])
    }

    /// The value of [`TRACE_RESPONSE`].
    pub fn response_header(&self) -> Option<HeaderValue> {
        let context = &self.0.as_ref()?.context;
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        HeaderValue::from_str(&format!("00-{trace}-{span}-{flags:02x}")).ok()
    }

    /// Sets an attribute of the span itself.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(traced) = self.recorded() {
            traced.lock().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Says of the span itself that it failed, with the kind of error.
    pub fn fail(&self, error: &str) {
        if let Some(traced) = self.recorded() {
            fail(&mut traced.lock(), error);
        }
    }

    /// Records a part that is over.
    pub fn part(&self, name: &'static str, times: (Instant, Instant), attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(traced) = self.recorded() {
            traced.record(SpanBuilder::from_name(name).with_attributes(attributes()), times, Status::Unset);
        }
    }

    /// Begins a part that has parts of its own.
    pub fn child(&self, name: &'static str) -> RequestSpan {
        let Some(traced) = &self.0 else { return RequestSpan::default() };
        RequestSpan(Self::begin(&traced.tracer, SpanBuilder::from_name(name), &traced.parent()))
    }

    fn link(&self) -> Option<Link> {
        self.recorded().map(|traced| Link::new(traced.context.clone(), Vec::new(), 0))
    }
}

fn fail(span: &mut Span, error: &str) {
    span.set_attribute(KeyValue::new("error.type", error.to_owned()));
    span.set_status(Status::error(""));
}

impl Traced {
    fn lock(&self) -> std::sync::MutexGuard<'_, Span> {
        // A span is changed by whole operations only.
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What children are made in.
    fn parent(&self) -> Context {
        Context::new().with_remote_span_context(self.context.clone())
    }

    fn record(&self, span: SpanBuilder, times: (Instant, Instant), status: Status) {
        self.record_in(span, times, status, &self.parent());
    }

    /// Records a span that is over, in `parent`, and returns its context.
    fn record_in(
        &self,
        span: SpanBuilder,
        (start, end): (Instant, Instant),
        status: Status,
        parent: &Context,
    ) -> SpanContext {
        let mut span = self.tracer.build_with_context(span.with_start_time(self.time(start)), parent);
        span.set_status(status);
        span.end_with_timestamp(self.time(end));
        span.span_context().clone()
    }

    /// The time of day at which it was `instant`.
    fn time(&self, instant: Instant) -> SystemTime {
        let (began, time) = self.began;
        match instant.checked_duration_since(began) {
            Some(after) => time + after,
            None => time - began.saturating_duration_since(instant),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace").field(&self.0.as_ref().map(|traced| &traced.context)).finish()
    }
}

/// A trace's id, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(opentelemetry::TraceId);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_traced_costs_a_null_pointer() {
        let tracing = Tracing::start(&TracingConfig::default(), TrustedProxies::default(), &Registry::new()).unwrap();
        assert!(!tracing.is_on());
        let mut headers = HeaderMap::new();
        headers
            .insert("traceparent", HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        let mut span = tracing.request(&headers, None, || unreachable!("the name is not made"));
        let trace = span.trace().clone();
        assert_eq!(size_of::<Trace>(), size_of::<usize>());
        assert!(trace.0.is_none() && trace.child("part").trace().0.is_none());
        assert!(trace.id().is_none() && trace.ids().is_none() && trace.response_header().is_none());
        let now = Instant::now();
        trace.part("part", (now, now), || unreachable!("nor are attributes"));
        span.end(|| unreachable!("nor here"), Some("500"));
        tracing.shutdown(Duration::ZERO);
    }

    #[test]
    fn spans_have_the_times_of_day_that_their_parts_had() {
        let provider = SdkTracerProvider::default();
        let trace = Trace::begin(&provider.tracer("test"), SpanBuilder::from_name("request"), &Context::new());
        let traced = trace.0.as_ref().unwrap();
        let (began, time) = traced.began;
        let second = Duration::from_secs(1);
        assert_eq!(traced.time(began), time);
        assert_eq!(traced.time(began + second), time + second);
        assert_eq!(traced.time(began.checked_sub(second).unwrap()), time - second);
    }
}
