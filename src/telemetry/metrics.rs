//! Prometheus metrics of inference: this server's own names, and Triton's for existing dashboards and autoscalers.
//!
//! The doc comments here and the help texts that Prometheus shows are the same sentences. HTTP's own metrics are registered
//! by the HTTP module on the same registry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::cache_metrics::{CacheMetrics, ModelCacheMetrics};
use super::exemplars::{Exemplar, Exemplars};
use super::exposition::Exposition;
use super::families::{BATCH_BUCKETS, MODEL, SECONDS_BUCKETS, counter, float_gauge, gauge, histogram, micros, seconds};
use super::outcome::{Outcome, Refusal};
use super::trace::Trace;

/// The histogram whose buckets have traces that stand for them.
const REQUEST_SECONDS: &str = "convoy_request_seconds";

/// Every inference metric, by model and version. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    exemplars: Exemplars,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    decode_seconds: HistogramVec,
    queue_seconds: HistogramVec,
    compute_seconds: HistogramVec,
    batch_size: HistogramVec,
    queue_depth: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    refusals: IntCounterVec,
    in_flight: IntGaugeVec,
    instances: IntGaugeVec,
    instance_panics: IntCounterVec,
    state: IntGaugeVec,
    load_seconds: GaugeVec,
    loads: IntCounterVec,
    provider: IntGaugeVec,
    nv_success: IntCounterVec,
    nv_failure: IntCounterVec,
    nv_count: IntCounterVec,
    nv_exec_count: IntCounterVec,
    nv_request_us: IntCounterVec,
    nv_queue_us: IntCounterVec,
    nv_compute_input_us: IntCounterVec,
    nv_compute_infer_us: IntCounterVec,
    nv_compute_output_us: IntCounterVec,
    nv_pending: IntGaugeVec,
    cache: CacheMetrics,
    nv_load_secs: GaugeVec,
}

/// The metrics of one model version, its labels resolved once.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    metrics: Metrics,
    model: String,
    version: String,
    /// Decoding and preprocessing one picture.
    pub decode_seconds: Histogram,
    queue_seconds: Histogram,
    compute_seconds: Histogram,
    batch_size: Histogram,
    /// Rows that wait for an instance.
    pub queue_depth: IntGauge,
    /// Bytes that admitted requests hold.
    pub queue_bytes: IntGauge,
    /// Rows admitted and not yet answered: decoding, waiting or running.
    pub in_flight: IntGauge,
    /// Times that an instance panicked and was kept alive.
    pub instance_panics: IntCounter,
    /// Triton's count of rows that wait.
    pub nv_pending: IntGauge,
    /// Those of the response cache.
    pub cache: ModelCacheMetrics,
    nv_count: IntCounter,
    nv_exec_count: IntCounter,
    nv_request_us: IntCounter,
    nv_queue_us: IntCounter,
    nv_compute_input_us: IntCounter,
    nv_compute_infer_us: IntCounter,
    nv_compute_output_us: IntCounter,
}

/// What one batch cost, for [`ModelMetrics::record_batch`].
#[derive(Debug, Clone, Copy)]
pub struct BatchTimes {
    /// Assembling the batch.
    pub input: Duration,
    /// The run.
    pub infer: Duration,
    /// Cutting the outputs into rows.
    pub output: Duration,
}

impl Metrics {
    /// All metrics, on a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            exemplars: Exemplars::default(),
            requests: counter(
                r,
                "convoy_requests_total",
                "Requests by how they ended",
                &["model", "version", "protocol", "outcome"],
            ),
            request_seconds: seconds(
                r,
                REQUEST_SECONDS,
                "From a request's arrival to its answer",
                &["model", "version", "protocol"],
            ),
            decode_seconds: seconds(r, "convoy_decode_seconds", "Decoding and preprocessing one picture", MODEL),
            queue_seconds: seconds(r, "convoy_queue_seconds", "Waiting for an instance, per row", MODEL),
            compute_seconds: seconds(r, "convoy_compute_seconds", "One run of one batch", MODEL),
            batch_size: histogram(r, "convoy_batch_size", "Rows in a batch", MODEL, BATCH_BUCKETS),
            queue_depth: gauge(r, "convoy_queue_depth", "Rows that wait for an instance", MODEL),
            queue_bytes: gauge(r, "convoy_queue_bytes", "Bytes that admitted requests hold", MODEL),
            refusals: counter(
                r,
                "convoy_refusals_total",
                "Requests refused on arrival by why",
                &["model", "version", "reason"],
            ),
            in_flight: gauge(r, "convoy_in_flight", "Rows admitted and not yet answered", MODEL),
            instances: gauge(r, "convoy_instances", "Instances that run the model", MODEL),
            instance_panics: counter(r, "convoy_instance_panics_total", "Times that an instance panicked", MODEL),
            state: gauge(
                r,
                "convoy_model_state",
                "1 for the state that the model version is in",
                &["model", "version", "state"],
            ),
            load_seconds: float_gauge(r, "convoy_model_load_seconds", "How long the last load took", MODEL),
            loads: counter(
                r,
                "convoy_model_loads_total",
                "Loads of a model, the first and later ones, by how they ended",
                &["model", "outcome"],
            ),
            provider: gauge(
                r,
                "convoy_model_provider",
                "1 for the execution provider that really runs the model",
                &["model", "version", "provider"],
            ),
            nv_success: counter(r, "nv_inference_request_success", "Number of successful inference requests", MODEL),
            nv_failure: counter(
                r,
                "nv_inference_request_failure",
                "Number of failed inference requests",
                &["model", "version", "reason"],
            ),
            nv_count: counter(r, "nv_inference_count", "Number of inferences performed (rows)", MODEL),
            nv_exec_count: counter(
                r,
                "nv_inference_exec_count",
                "Number of model executions performed (batches)",
                MODEL,
            ),
            nv_request_us: counter(
                r,
                "nv_inference_request_duration_us",
                "Cumulative request duration in microseconds",
                MODEL,
            ),
            nv_queue_us: counter(
                r,
                "nv_inference_queue_duration_us",
                "Cumulative queueing duration in microseconds",
                MODEL,
            ),
            nv_compute_input_us: counter(
                r,
                "nv_inference_compute_input_duration_us",
                "Cumulative input duration in microseconds",
                MODEL,
            ),
            nv_compute_infer_us: counter(
                r,
                "nv_inference_compute_infer_duration_us",
                "Cumulative run duration in microseconds",
                MODEL,
            ),
            nv_compute_output_us: counter(
                r,
                "nv_inference_compute_output_duration_us",
                "Cumulative output duration in microseconds",
                MODEL,
            ),
            nv_pending: gauge(r, "nv_inference_pending_request_count", "Requests that wait for execution", MODEL),
            cache: CacheMetrics::new(r),
            nv_load_secs: float_gauge(r, "nv_model_load_duration_secs", "Model load time in seconds", MODEL),
            registry,
        }
    }

    /// The registry that `/metrics` gathers; other modules register their own metrics on it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything on the registry as clients read it.
    pub fn exposition(&self) -> Exposition {
        Exposition::new(self.registry.clone(), self.exemplars.clone())
    }

    /// The metrics of one model version.
    pub fn model(&self, model: &str, version: u64) -> ModelMetrics {
        let version = version.to_string();
        let labels: &[&str] = &[model, &version];
        // All failure families exist from the start, so that a rate over them is never absent.
        for outcome in [Outcome::Rejected, Outcome::Canceled, Outcome::Failed, Outcome::Invalid] {
            let reason = outcome.triton_reason().unwrap_or_default();
            self.nv_failure.with_label_values(&[model, &version, reason]);
        }
        for refusal in Refusal::ALL {
            self.refusals.with_label_values(&[model, &version, refusal.as_str()]);
        }
        self.nv_success.with_label_values(labels);
        ModelMetrics {
            decode_seconds: self.decode_seconds.with_label_values(labels),
            queue_seconds: self.queue_seconds.with_label_values(labels),
            compute_seconds: self.compute_seconds.with_label_values(labels),
            batch_size: self.batch_size.with_label_values(labels),
            queue_depth: self.queue_depth.with_label_values(labels),
            queue_bytes: self.queue_bytes.with_label_values(labels),
            in_flight: self.in_flight.with_label_values(labels),
            instance_panics: self.instance_panics.with_label_values(labels),
            nv_pending: self.nv_pending.with_label_values(labels),
            cache: self.cache.model(labels),
            nv_count: self.nv_count.with_label_values(labels),
            nv_exec_count: self.nv_exec_count.with_label_values(labels),
            nv_request_us: self.nv_request_us.with_label_values(labels),
            nv_queue_us: self.nv_queue_us.with_label_values(labels),
            nv_compute_input_us: self.nv_compute_input_us.with_label_values(labels),
            nv_compute_infer_us: self.nv_compute_infer_us.with_label_values(labels),
            nv_compute_output_us: self.nv_compute_output_us.with_label_values(labels),
            metrics: self.clone(),
            model: model.to_owned(),
            version,
        }
    }

    /// Counts a load of a model, of all of its versions.
    pub fn record_model_load(&self, model: &str, success: bool) {
        let outcome = if success { Outcome::Success } else { Outcome::Failed };
        self.loads.with_label_values(&[model, outcome.as_str()]).inc();
    }

    /// Says that `provider` no longer runs the model version.
    pub fn forget_provider(&self, model: &str, version: u64, provider: &str) {
        // An error says that there was none, which is as well.
        drop(self.provider.remove_label_values(&[model, &version.to_string(), provider]));
    }

    /// Says that nothing runs the model version any more.
    pub fn record_unload(&self, model: &str, version: u64) {
        self.instances.with_label_values(&[model, &version.to_string()]).set(0);
    }

    /// Says that a model version is no longer known.
    pub fn forget_state(&self, model: &str, version: u64, states: &[&str]) {
        let version = version.to_string();
        for state in states {
            // An error says that there was none, which is as well.
            drop(self.state.remove_label_values(&[model, &version, state]));
        }
    }

    /// Says which state a model version is in; `states` are all there are.
    pub fn set_state(&self, model: &str, version: u64, state: &str, states: &[&str]) {
        let version = version.to_string();
        for other in states {
            self.state.with_label_values(&[model, &version, other]).set(i64::from(*other == state));
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelMetrics {
    /// The model's name and its version.
    pub fn labels(&self) -> [&str; 2] {
        [&self.model, &self.version]
    }

    /// Counts a request and how it ended. `trace` is the request's.
    pub fn record_request(&self, protocol: &str, outcome: Outcome, took: Duration, trace: &Trace) {
        let labels = [&*self.model, &*self.version];
        let [model, version] = labels;
        self.metrics.requests.with_label_values(&[model, version, protocol, outcome.as_str()]).inc();
        match outcome.triton_reason() {
            Some(reason) => self.metrics.nv_failure.with_label_values(&[model, version, reason]).inc(),
            None => {
                self.metrics.request_seconds.with_label_values(&[model, version, protocol]).observe(took.as_secs_f64());
                self.keep_exemplar(protocol, took, trace);
                self.metrics.nv_success.with_label_values(&labels).inc();
                self.nv_request_us.inc_by(micros(took));
            }
        }
    }

    /// Has a request that is recorded stand for those that took about as long.
    fn keep_exemplar(&self, protocol: &str, took: Duration, trace: &Trace) {
        let Some([trace, span]) = trace.ids() else { return };
        let labels = [("model", &*self.model), ("version", &*self.version), ("protocol", protocol)];
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let exemplar = Exemplar { trace, span, value: took.as_secs_f64(), at };
        self.metrics.exemplars.put(REQUEST_SECONDS, &labels, SECONDS_BUCKETS, exemplar);
    }

    /// Counts a request that was refused on arrival.
    pub fn record_refusal(&self, refusal: Refusal) {
        self.metrics.refusals.with_label_values(&[&self.model, &self.version, refusal.as_str()]).inc();
    }

    /// Counts a batch of `rows` rows that ran, and how long each of them had waited.
    pub fn record_batch(&self, rows: usize, waited: impl Iterator<Item = Duration>, times: BatchTimes) {
        for wait in waited {
            self.queue_seconds.observe(wait.as_secs_f64());
            self.nv_queue_us.inc_by(micros(wait));
        }
        self.batch_size.observe(rows as f64);
        self.compute_seconds.observe(times.infer.as_secs_f64());
        self.nv_count.inc_by(rows as u64);
        self.nv_exec_count.inc();
        // Triton counts a batch's duration once for each of its rows.
        self.nv_compute_input_us.inc_by(micros(times.input) * rows as u64);
        self.nv_compute_infer_us.inc_by(micros(times.infer) * rows as u64);
        self.nv_compute_output_us.inc_by(micros(times.output) * rows as u64);
    }

    /// Says that the model is loaded: how long it took, what runs it and how often.
    pub fn record_load(&self, took: Duration, provider: &str, instances: usize) {
        let labels = [&*self.model, &*self.version];
        let [model, version] = labels;
        self.metrics.load_seconds.with_label_values(&labels).set(took.as_secs_f64());
        self.metrics.nv_load_secs.with_label_values(&labels).set(took.as_secs_f64());
        self.metrics.provider.with_label_values(&[model, version, provider]).set(1);
        self.metrics.instances.with_label_values(&labels).set(instances as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_once_for_itself_and_once_for_each_row() {
        let metrics = Metrics::new();
        let model = metrics.model("m", 1);
        let times = BatchTimes {
            input: Duration::from_micros(2),
            infer: Duration::from_micros(30),
            output: Duration::from_micros(1),
        };
        model.record_batch(3, [Duration::from_micros(5); 3].into_iter(), times);
        assert_eq!(model.nv_count.get(), 3);
        assert_eq!(model.nv_exec_count.get(), 1);
        assert_eq!(model.nv_queue_us.get(), 15);
        assert_eq!(model.nv_compute_infer_us.get(), 90);
        assert_eq!(model.queue_seconds.get_sample_count(), 3);
        assert_eq!(model.compute_seconds.get_sample_count(), 1);
    }

    #[test]
    fn a_failure_is_counted_under_its_reason() {
        let metrics = Metrics::new();
        metrics.model("m", 1).record_request("http", Outcome::Rejected, Duration::ZERO, &Trace::default());
        assert_eq!(metrics.nv_failure.with_label_values(&["m", "1", "REJECTED"]).get(), 1);
        assert_eq!(metrics.nv_failure.with_label_values(&["m", "1", "BACKEND"]).get(), 0);
        assert_eq!(metrics.requests.with_label_values(&["m", "1", "http", "rejected"]).get(), 1);
    }
}
