//! How spans get to the collector, and what becomes of them when it is away.
//!
//! A request only ever puts its spans into a bounded queue. A thread of the SDK's empties it; what has no room in it, or can't be
//! sent in time, is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use prometheus::{IntCounterVec, Opts, Registry};
use ureq::Agent;
use ureq::http::{Request, Response};

use super::variables::count;
use super::{OtlpProtocol, TracingConfig};
use crate::error::{Error, Result};

/// How long one export over HTTP may take: OTLP's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read of a collector's.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// How many spans wait at most, where `OTEL_BSP_MAX_QUEUE_SIZE` says nothing else.
const QUEUE_SIZE: usize = 2048;
/// How many spans are sent at once at most, where `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` says nothing else.
const BATCH_SIZE: usize = 512;

/// What became of spans, as the metric has it.
#[derive(Debug, Clone)]
struct Counts(IntCounterVec);

impl Counts {
    fn register(registry: &Registry) -> Result<Self> {
        let opts = Opts::new("convoy_trace_spans_total", "Spans of traces by what became of them");
        let counts = IntCounterVec::new(opts, &["outcome"]).and_then(|counts| {
            registry.register(Box::new(counts.clone()))?;
            Ok(counts)
        });
        let counts = counts
            .map_err(|error| Error::internal("the metrics of tracing could not be registered").with_source(error))?;
        for outcome in ["exported", "failed", "dropped"] {
            counts.with_label_values(&[outcome]);
        }
        Ok(Self(counts))
    }

    fn add(&self, outcome: &str, spans: usize) {
        self.0.with_label_values(&[outcome]).inc_by(spans as u64);
    }
}

/// The processor that queues spans and has them sent to `url`.
///
/// # Errors
/// `InvalidArgument` where that can't be set up.
pub(super) fn processor(config: &TracingConfig, url: &str, registry: &Registry) -> Result<impl SpanProcessor + use<>> {
    let exporter = exporter(config, url)
        .map_err(|error| Error::invalid("traces cannot be sent to tracing.endpoint").with_source(error))?;
    let size = count("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(QUEUE_SIZE);
    // The SDK takes 0 for what it says, and a queue of 0 for batches of 0, too.
    let batch_size = count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(BATCH_SIZE).min(size);
    let queue = Queue { counts: Counts::register(registry)?, waiting: Arc::default(), size };
    let watched = Watched { exporter, queue: queue.clone(), is_failing: AtomicBool::new(false) };
    let batches =
        BatchConfigBuilder::default().with_max_queue_size(size).with_max_export_batch_size(batch_size).build();
    Ok(Bounded { inner: BatchSpanProcessor::builder(watched).with_batch_config(batches).build(), queue })
}

fn exporter(
    config: &TracingConfig,
    url: &str,
) -> Result<opentelemetry_otlp::SpanExporter, Box<dyn std::error::Error + Send + Sync>> {
    let headers = config.header_map()?;
    let exporter: Result<_, ExporterBuildError> = match config.protocol {
        OtlpProtocol::Grpc => {
            let builder = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(url);
            let builder = builder.with_metadata(MetadataMap::from_headers(headers));
            let is_encrypted = url.starts_with("https:");
            if is_encrypted {
                builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()).build()
            } else {
                builder.build()
            }
        }
        OtlpProtocol::HttpProtobuf => {
            let agent = Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
            let text = |(name, value): (_, &hyper::header::HeaderValue)| {
                let name: &hyper::header::HeaderName = name;
                Some((name.to_string(), value.to_str().ok()?.to_owned()))
            };
            opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_http_client(Client(Agent::new_with_config(agent.build())))
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(url)
                .with_headers(headers.iter().filter_map(text).collect())
                .build()
        }
    };
    Ok(exporter?)
}

/// The exporter's HTTP client. It blocks, which it may on the SDK's own thread.
#[derive(Debug)]
struct Client(Agent);

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let (parts, mut body) = self.0.run(Request::from_parts(parts, &body[..]))?.into_parts();
        let body = body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

/// How many spans wait to be sent.
#[derive(Debug, Clone)]
struct Queue {
    counts: Counts,
    waiting: Arc<AtomicUsize>,
    size: usize,
}

/// Counts what finds no room; the SDK's processor, whose queue is as large, then never has to drop anything unseen.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    queue: Queue,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let Queue { counts, waiting, size } = &self.queue;
        let enter = |waiting: usize| (waiting < *size).then_some(waiting + 1);
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter) {
            Ok(_) => self.inner.on_end(span),
            Err(_) => counts.add("dropped", 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what is sent, and says so when the collector goes away or comes back, rather than at every try.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    queue: Queue,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queue.waiting.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Ok(()) => {
                self.queue.counts.add("exported", spans);
                if was_failing {
                    tracing::info!("traces are exported again");
                }
            }
            Err(error) => {
                self.queue.counts.add("failed", spans);
                if !was_failing {
                    tracing::warn!(%error, "traces cannot be exported: they are dropped until that is over");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
