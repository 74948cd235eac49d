//! How it stands with the model store.

use std::time::{Duration, SystemTime};

use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::{Error, Result};
use crate::telemetry::Outcome;

/// From a listing on the same machine to gigabytes over a slow line.
const SECONDS_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// The metrics of the model store. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct StoreMetrics {
    syncs: IntCounterVec,
    seconds: Histogram,
    /// Bytes taken into the cache.
    pub(super) fetched_bytes: IntCounter,
    up: IntGauge,
    last_success: Gauge,
    /// Models whose newest state in the store was not taken.
    pub(super) refused: IntGauge,
}

impl StoreMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// `Internal` when `registry` already holds metrics of these names.
    pub(super) fn register(registry: &Registry) -> Result<Self> {
        let failed = |error| Error::internal("the metrics of the model store cannot be made").with_source(error);
        let syncs =
            Opts::new("convoy_model_store_syncs_total", "Times that the model store was looked at, by how that ended.");
        let seconds = HistogramOpts::new(
            "convoy_model_store_sync_seconds",
            "How long a look at the model store took, with what was fetched.",
        );
        let metrics = Self {
            syncs: IntCounterVec::new(syncs, &["outcome"]).map_err(failed)?,
            seconds: Histogram::with_opts(seconds.buckets(SECONDS_BUCKETS.to_vec())).map_err(failed)?,
            fetched_bytes: IntCounter::new(
                "convoy_model_store_fetched_bytes_total",
                "Bytes of files taken from the model store.",
            )
            .map_err(failed)?,
            up: IntGauge::new("convoy_model_store_up", "1 where the last look at the model store succeeded, else 0.")
                .map_err(failed)?,
            last_success: Gauge::new(
                "convoy_model_store_last_success_timestamp_seconds",
                "When what is served was last in step with the model store, be it before this start; 0 where it never was.",
            )
            .map_err(failed)?,
            refused: IntGauge::new(
                "convoy_model_store_refused_models",
                "Models whose newest state in the store was not taken, so that an older one serves or none.",
            )
            .map_err(failed)?,
        };
        for outcome in [Outcome::Success, Outcome::Failed] {
            metrics.syncs.with_label_values(&[outcome.as_str()]);
        }
        let collectors: [Box<dyn Collector>; 6] = [
            Box::new(metrics.syncs.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.fetched_bytes.clone()),
            Box::new(metrics.up.clone()),
            Box::new(metrics.last_success.clone()),
            Box::new(metrics.refused.clone()),
        ];
        for collector in collectors {
            registry.register(collector).map_err(failed)?;
        }
        Ok(metrics)
    }

    /// Counts a look at the store.
    pub(super) fn record(&self, success: bool, took: Duration) {
        let outcome = if success { Outcome::Success } else { Outcome::Failed };
        self.syncs.with_label_values(&[outcome.as_str()]).inc();
        self.seconds.observe(took.as_secs_f64());
        self.up.set(i64::from(success));
    }

    /// Notes when what is served was in step with the store.
    pub(super) fn set_in_step(&self, at: SystemTime) {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(since_epoch.as_secs_f64());
    }
}
