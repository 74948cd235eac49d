//! What operators see of the server: metrics and logs.

mod cache_metrics;
mod families;
mod logging;
mod metrics;
mod outcome;
mod process;
mod request_id;
mod requests;

pub use cache_metrics::ModelCacheMetrics;
pub use logging::{LogConfig, LogFormat, start_logging};
pub use metrics::{BatchTimes, Metrics, ModelMetrics};
pub use outcome::{Outcome, Refusal};
pub use process::{Usage, register_process_metrics};
pub use request_id::RequestIds;
pub use requests::request_metrics;
