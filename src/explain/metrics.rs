//! What explanations cost.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::{Error, Result};
use crate::telemetry::Outcome;

/// From ten milliseconds to minutes: a small network's class activation up to the occlusion of a large one's.
const SECONDS_BUCKETS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The metrics of explanations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExplainMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// Graphs made.
    pub(super) graphs_made: IntCounter,
    /// About the bytes of the graphs that are kept.
    pub(super) cache_bytes: IntGauge,
}

impl ExplainMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// `Internal` when `registry` already holds metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self> {
        let failed = |error| Error::internal("the metrics of explanations cannot be made").with_source(error);
        let labels = &["model", "version", "method"];
        let requests =
            Opts::new("convoy_explain_requests_total", "Explanations by model, version, method and outcome.");
        let seconds = HistogramOpts::new(
            "convoy_explain_duration_seconds",
            "Time from an explanation's turn to its end: decoding, the making of graphs and all runs.",
        );
        let metrics = Self {
            requests: IntCounterVec::new(requests, &["model", "version", "method", "outcome"]).map_err(failed)?,
            seconds: HistogramVec::new(seconds.buckets(SECONDS_BUCKETS.to_vec()), labels).map_err(failed)?,
            graphs_made: IntCounter::new(
                "convoy_explain_graphs_made_total",
                "Graphs of explanations that were made because they were not kept from an earlier one.",
            )
            .map_err(failed)?,
            cache_bytes: IntGauge::new(
                "convoy_explain_cache_bytes",
                "About the bytes that the graphs take which are kept between explanations.",
            )
            .map_err(failed)?,
        };
        let collectors: [Box<dyn Collector>; 4] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.graphs_made.clone()),
            Box::new(metrics.cache_bytes.clone()),
        ];
        for collector in collectors {
            registry.register(collector).map_err(failed)?;
        }
        Ok(metrics)
    }

    /// Counts an explanation that ended.
    pub(super) fn record(&self, [model, version, method]: [&str; 3], outcome: Outcome) {
        self.requests.with_label_values(&[model, version, method, outcome.as_str()]).inc();
    }

    /// Notes how long an explanation was worked on.
    pub(super) fn observe(&self, labels: [&str; 3], took: Duration) {
        self.seconds.with_label_values(&labels).observe(took.as_secs_f64());
    }
}
