//! What operators see of the server: metrics, logs and traces.

mod build;
mod cache_metrics;
mod exemplars;
mod exposition;
mod families;
mod logging;
mod metrics;
mod outcome;
mod process;
mod request_id;
mod requests;
mod trace;

pub use build::BuildInfo;
pub use cache_metrics::ModelCacheMetrics;
pub use exemplars::{Exemplar, Exemplars};
pub use exposition::Exposition;
pub use logging::{LogConfig, LogFormat, start_logging};
pub use metrics::{BatchTimes, Metrics, ModelMetrics};
pub use outcome::{Outcome, Refusal};
pub use process::{Usage, register_process_metrics};
pub use request_id::RequestIds;
pub use requests::request_metrics;
pub use trace::{
    Attribute, BatchFacts, OtlpProtocol, RequestSpan, SampleRatio, TRACE_RESPONSE, Trace, TracedEntry, Tracing,
    TracingConfig, TrustedProxies, record_batch,
};
