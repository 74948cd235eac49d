//! What operators see of the server: metrics and logs.

mod metrics;

pub use metrics::{BatchTimes, Metrics, ModelMetrics, Outcome};
