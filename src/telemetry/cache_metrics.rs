//! The metrics of the response cache, by model and version: this server's own names, and Triton's.

use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::families::{MODEL, counter, gauge, micros};

/// The families.
#[derive(Debug, Clone)]
pub(super) struct CacheMetrics {
    hits: IntCounterVec,
    misses: IntCounterVec,
    evictions: IntCounterVec,
    bytes: IntGaugeVec,
    nv_hits: IntCounterVec,
    nv_misses: IntCounterVec,
    nv_hit_us: IntCounterVec,
    nv_miss_us: IntCounterVec,
}

/// Those of one model version.
#[derive(Debug, Clone)]
pub struct ModelCacheMetrics {
    /// Answers dropped from the response cache to make room for others.
    pub evictions: IntCounter,
    /// Bytes that the model's answers take in the response cache.
    pub bytes: IntGauge,
    hits: IntCounter,
    misses: IntCounter,
    nv_hits: IntCounter,
    nv_misses: IntCounter,
    nv_hit_us: IntCounter,
    nv_miss_us: IntCounter,
}

impl CacheMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            hits: counter(
                r,
                "convoy_response_cache_hits_total",
                "Pictures or pieces of tensors that were answered from the response cache",
                MODEL,
            ),
            misses: counter(
                r,
                "convoy_response_cache_misses_total",
                "Pictures or pieces of tensors that were not in the response cache",
                MODEL,
            ),
            evictions: counter(
                r,
                "convoy_response_cache_evictions_total",
                "Answers dropped from the response cache to make room for others",
                MODEL,
            ),
            bytes: gauge(
                r,
                "convoy_response_cache_bytes",
                "Bytes that the model's answers take in the response cache",
                MODEL,
            ),
            nv_hits: counter(r, "nv_cache_num_hits_per_model", "Number of response cache hits", MODEL),
            nv_misses: counter(r, "nv_cache_num_misses_per_model", "Number of response cache misses", MODEL),
            nv_hit_us: counter(
                r,
                "nv_cache_hit_duration_per_model",
                "Cumulative duration of response cache hits in microseconds",
                MODEL,
            ),
            nv_miss_us: counter(
                r,
                "nv_cache_miss_duration_per_model",
                "Cumulative duration of response cache misses in microseconds, insertions included",
                MODEL,
            ),
        }
    }

    pub(super) fn model(&self, labels: &[&str]) -> ModelCacheMetrics {
        ModelCacheMetrics {
            evictions: self.evictions.with_label_values(labels),
            bytes: self.bytes.with_label_values(labels),
            hits: self.hits.with_label_values(labels),
            misses: self.misses.with_label_values(labels),
            nv_hits: self.nv_hits.with_label_values(labels),
            nv_misses: self.nv_misses.with_label_values(labels),
            nv_hit_us: self.nv_hit_us.with_label_values(labels),
            nv_miss_us: self.nv_miss_us.with_label_values(labels),
        }
    }
}

impl ModelCacheMetrics {
    /// Counts what was looked up.
    pub fn record_lookup(&self, is_hit: bool, took: Duration) {
        if is_hit {
            self.hits.inc();
            self.nv_hits.inc();
            self.nv_hit_us.inc_by(micros(took));
        } else {
            self.misses.inc();
            self.nv_misses.inc();
            self.nv_miss_us.inc_by(micros(took));
        }
    }

    /// Adds to the misses' time what it took to put an answer in.
    pub fn record_insertion(&self, took: Duration) {
        self.nv_miss_us.inc_by(micros(took));
    }
}
