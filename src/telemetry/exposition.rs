//! The metrics as Prometheus reads them: in its text format, or in OpenMetrics', which alone has exemplars.
//!
//! Names are the same in both. OpenMetrics wants a counter's name to end in `_total`, which some of Triton's do not: those are of the
//! type `unknown` there.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};

use super::exemplars::{Exemplar, Exemplars};
use crate::error::{Error, Result};

/// The media type of OpenMetrics' text format.
const OPENMETRICS: &str = "application/openmetrics-text";

/// Every metric, ready to be shown. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exposition {
    registry: Registry,
    exemplars: Exemplars,
}

impl Exposition {
    /// The metrics of `registry`, and the traces that stand for some of them.
    pub fn new(registry: Registry, exemplars: Exemplars) -> Self {
        Self { registry, exemplars }
    }

    /// The text for a client that sends this `accept` header, and its media type.
    ///
    /// # Errors
    /// `Internal` when a metric cannot be written.
    pub fn text(&self, accept: Option<&str>) -> Result<(&'static str, String)> {
        let families = self.registry.gather();
        if accept.is_some_and(prefers_openmetrics) {
            let text = openmetrics(&families, &self.exemplars);
            return Ok(("application/openmetrics-text; version=1.0.0; charset=utf-8", text));
        }
        let text = TextEncoder::new().encode_to_string(&families);
        let text = text.map_err(|error| Error::internal("the metrics could not be written").with_source(error))?;
        Ok((TEXT_FORMAT, text))
    }
}

/// Whether OpenMetrics is asked for, and no other text is wanted more.
fn prefers_openmetrics(accept: &str) -> bool {
    let weight_of = |wanted: &str| {
        let ranges = accept.split(',').map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
            (media_type, weight.unwrap_or(1.0))
        });
        ranges
            .filter(|(media_type, _)| media_type.eq_ignore_ascii_case(wanted))
            .map(|(_, weight)| weight)
            .fold(0.0, f64::max)
    };
    let weight = weight_of(OPENMETRICS);
    weight > 0.0 && weight >= weight_of("text/plain")
}

fn openmetrics(families: &[MetricFamily], exemplars: &Exemplars) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family, exemplars);
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, family: &MetricFamily, exemplars: &Exemplars) {
    let full = family.name();
    let (name, kind) = match (family.get_field_type(), full.strip_suffix("_total")) {
        (MetricType::COUNTER, Some(name)) => (name, "counter"),
        (MetricType::GAUGE, _) => (full, "gauge"),
        (MetricType::HISTOGRAM, _) => (full, "histogram"),
        _ => (full, "unknown"),
    };
    // Writing to a String does not fail.
    let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {}", escaped(family.help()));
    for metric in family.get_metric() {
        match family.get_field_type() {
            MetricType::COUNTER => sample(text, full, metric.get_label(), None, metric.get_counter().get_value()),
            MetricType::GAUGE => sample(text, full, metric.get_label(), None, metric.get_gauge().get_value()),
            MetricType::HISTOGRAM => write_histogram(text, full, metric, exemplars),
            // Nothing here makes others.
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }
}

fn write_histogram(text: &mut String, name: &str, metric: &Metric, exemplars: &Exemplars) {
    let (labels, histogram) = (metric.get_label(), metric.get_histogram());
    let exemplars = exemplars.of(name, labels);
    let bucket_name = format!("{name}_bucket");
    let count = histogram.get_sample_count();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let buckets = finite.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let mut below = f64::NEG_INFINITY;
    for (bound, count) in buckets.chain([(f64::INFINITY, count)]) {
        let within = |exemplar: &&Exemplar| exemplar.value > below && exemplar.value <= bound;
        let le = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".to_owned() };
        sample(text, &bucket_name, labels, Some(&le), count as f64);
        if let Some(exemplar) = exemplars.iter().find(within) {
            text.pop();
            let Exemplar { trace, span, value, at } = exemplar;
            let _ = writeln!(text, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value} {at:.3}");
        }
        below = bound;
    }
    sample(text, &format!("{name}_sum"), labels, None, histogram.get_sample_sum());
    sample(text, &format!("{name}_count"), labels, None, count as f64);
}

/// Writes a line.
fn sample(text: &mut String, name: &str, labels: &[LabelPair], le: Option<&str>, value: f64) {
    text.push_str(name);
    let labels = labels.iter().map(|label| (label.name(), label.value())).chain(le.map(|le| ("le", le)));
    let mut separator = '{';
    for (name, value) in labels {
        let _ = write!(text, "{separator}{name}=\"{}\"", escaped(value));
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

    use super::*;

    #[test]
    fn names_stay_and_values_and_exemplars_are_written_as_openmetrics_has_them() {
        let registry = Registry::new();
        let opts = HistogramOpts::new("t_seconds", "A \"time\"\nof day").buckets(vec![0.5, 1.0]);
        let times = HistogramVec::new(opts, &["model"]).unwrap();
        let counts = IntCounterVec::new(Opts::new("t_total", "A count"), &["model"]).unwrap();
        let other = IntCounterVec::new(Opts::new("nv_count", "Another"), &["model"]).unwrap();
        registry.register(Box::new(times.clone())).unwrap();
        registry.register(Box::new(counts.clone())).unwrap();
        registry.register(Box::new(other.clone())).unwrap();
        times.with_label_values(&["a\\b"]).observe(0.75);
        counts.with_label_values(&["m"]).inc_by(3);
        other.with_label_values(&["m"]).inc();
        let exemplars = Exemplars::default();
        exemplars.put(
            "t_seconds",
            &[("model", "a\\b")],
            &[0.5, 1.0],
            Exemplar { trace: "0af7".to_owned(), span: "b7ad".to_owned(), value: 0.75, at: 1.5 },
        );
        let (media_type, text) = Exposition::new(registry, exemplars).text(Some(OPENMETRICS)).unwrap();
        assert!(media_type.starts_with(OPENMETRICS));
        assert_eq!(
            text,
            "# TYPE nv_count unknown\n# HELP nv_count Another\nnv_count{model=\"m\"} 1\n\
             # TYPE t_seconds histogram\n# HELP t_seconds A \\\"time\\\"\\nof day\n\
             t_seconds_bucket{model=\"a\\\\b\",le=\"0.5\"} 0\n\
             t_seconds_bucket{model=\"a\\\\b\",le=\"1.0\"} 1 # {trace_id=\"0af7\",span_id=\"b7ad\"} 0.75 1.500\n\
             t_seconds_bucket{model=\"a\\\\b\",le=\"+Inf\"} 1\n\
             t_seconds_sum{model=\"a\\\\b\"} 0.75\nt_seconds_count{model=\"a\\\\b\"} 1\n\
             # TYPE t counter\n# HELP t A count\nt_total{model=\"m\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn openmetrics_is_for_those_who_prefer_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, prefers) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", false),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.4", false),
            ("application/openmetrics-text;q=0", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(prefers_openmetrics(accept), prefers, "{accept}");
        }
    }
}
