//! The metrics that every protocol has of its own requests.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::error::{Error, Result};

/// From half a millisecond, which a probe takes, to half a minute.
const SECONDS_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Makes and registers `convoy_<protocol>_requests_total`, by `labels` and status, and
/// `convoy_<protocol>_request_duration_seconds`, by `labels`, each with its help text.
///
/// # Errors
/// `Internal` when `registry` already holds metrics of these names.
pub fn request_metrics(
    registry: &Registry,
    protocol: &str,
    [requests_help, durations_help]: [&str; 2],
    labels: &[&str],
) -> Result<(IntCounterVec, HistogramVec)> {
    let prefix = format!("convoy_{}", protocol.to_ascii_lowercase());
    let build = || {
        let requests = Opts::new(format!("{prefix}_requests_total"), requests_help);
        let requests = IntCounterVec::new(requests, &[labels, &["status"]].concat())?;
        let durations = HistogramOpts::new(format!("{prefix}_request_duration_seconds"), durations_help);
        let durations = HistogramVec::new(durations.buckets(SECONDS_BUCKETS.to_vec()), labels)?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok((requests, durations))
    };
    build().map_err(|error: prometheus::Error| {
        Error::internal(format!("the metrics of {protocol} could not be registered")).with_source(error)
    })
}
