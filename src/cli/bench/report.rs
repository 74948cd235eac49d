//! What a load saw, and its table.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people.
    Table,
    /// One object with everything.
    Json,
    /// A line of names and a line for each measurement.
    Csv,
}

/// What one load saw.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) concurrency: u32,
    /// Of the requests that were answered with success.
    pub(super) latencies: Vec<Duration>,
    /// How often each kind of failure was seen.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) elapsed: Duration,
    pub(super) server_cpu: Option<Duration>,
    pub(super) server_rss_bytes: Option<u64>,
}

impl Measurement {
    pub(super) fn new(concurrency: u32) -> Self {
        Self {
            concurrency,
            latencies: Vec::new(),
            errors: BTreeMap::new(),
            elapsed: Duration::ZERO,
            server_cpu: None,
            server_rss_bytes: None,
        }
    }

    pub(super) fn count_error(&mut self, error: String) {
        *self.errors.entry(error).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }

    fn throughput(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    fn cpu_ms_per_image(&self) -> Option<f64> {
        self.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e3 / (self.latencies.len().max(1)) as f64)
    }

    fn rss_mib(&self) -> Option<f64> {
        self.server_rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
    }

    fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// All measurements of one call.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// What was measured: the URL, or the floor.
    pub(super) subject: &'a str,
    pub(super) measurements: &'a [Measurement],
}

impl Report<'_> {
    /// Prints the report to stdout, and what failed to stderr.
    pub(super) fn print(&self, format: Format) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match format {
            Format::Table => self.print_table(&mut out)?,
            Format::Json => writeln!(out, "{:#}", self.to_json())?,
            Format::Csv => self.print_csv(&mut out)?,
        }
        let mut err = std::io::stderr().lock();
        for measurement in self.measurements {
            for (error, count) in &measurement.errors {
                writeln!(err, "concurrency {}: {count} × {error}", measurement.concurrency)?;
            }
        }
        Ok(())
    }

    fn print_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "{}", self.subject)?;
        writeln!(
            out,
            "{:>11} {:>10} {:>9} {:>9} {:>9} {:>9} {:>7} {:>13} {:>8}",
            "concurrency", "images/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "errors", "CPU ms/image", "RSS MiB"
        )?;
        for measurement in self.measurements {
            let latencies = Latencies::of(measurement);
            let optional =
                |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
            writeln!(
                out,
                "{:>11} {:>10.1} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>7} {:>13} {:>8}",
                measurement.concurrency,
                measurement.throughput(),
                latencies.p50,
                latencies.p90,
                latencies.p99,
                latencies.max,
                measurement.error_count(),
                optional(measurement.cpu_ms_per_image(), 2),
                optional(measurement.rss_mib(), 0),
            )?;
        }
        Ok(())
    }

    fn print_csv(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "concurrency,images,images_per_s,p50_ms,p90_ms,p99_ms,max_ms,errors,cpu_ms_per_image,rss_mib")?;
        for measurement in self.measurements {
            let latencies = Latencies::of(measurement);
            let optional = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
            writeln!(
                out,
                "{},{},{:.3},{:.3},{:.3},{:.3},{:.3},{},{},{}",
                measurement.concurrency,
                measurement.latencies.len(),
                measurement.throughput(),
                latencies.p50,
                latencies.p90,
                latencies.p99,
                latencies.max,
                measurement.error_count(),
                optional(measurement.cpu_ms_per_image()),
                optional(measurement.rss_mib()),
            )?;
        }
        Ok(())
    }

    fn to_json(&self) -> serde_json::Value {
        let measurements: Vec<_> = self
            .measurements
            .iter()
            .map(|measurement| {
                let latencies = Latencies::of(measurement);
                json!({
                    "concurrency": measurement.concurrency,
                    "images": measurement.latencies.len(),
                    "elapsed_s": measurement.elapsed.as_secs_f64(),
                    "images_per_s": measurement.throughput(),
                    "p50_ms": latencies.p50,
                    "p90_ms": latencies.p90,
                    "p99_ms": latencies.p99,
                    "max_ms": latencies.max,
                    "errors": measurement.errors,
                    "cpu_ms_per_image": measurement.cpu_ms_per_image(),
                    "rss_mib": measurement.rss_mib(),
                })
            })
            .collect();
        json!({ "subject": self.subject, "measurements": measurements })
    }
}

/// The quantiles that every format shows, in milliseconds.
struct Latencies {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Latencies {
    fn of(measurement: &Measurement) -> Self {
        let mut sorted: Vec<f64> = measurement.latencies.iter().map(|latency| latency.as_secs_f64() * 1e3).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |q| quantile(&sorted, q);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// The smallest value that at least the share `q` of all values does not exceed (nearest rank); 0 without values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((quantile(&values, 0.5) - 50.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 0.99) - 99.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 1.0) - 100.0).abs() < f64::EPSILON);
        assert!((quantile(&[7.0], 0.01) - 7.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 0.5).abs() < f64::EPSILON);
    }
}
