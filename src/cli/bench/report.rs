//! What a load saw, and its table.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::requests::Answer;
use crate::telemetry::Usage;

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

/// What the server was loaded with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Offered {
    /// So many requests on their way at once.
    Concurrency(u32),
    /// So many requests a second on average, whatever becomes of them.
    Rate(f64),
}

/// What one load saw.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) offered: Offered,
    /// How many requests were answered with success, and on time, while it was measured.
    pub(super) images: u64,
    pub(super) elapsed: Duration,
    /// How long answers took that were a success on time.
    answered: Vec<Duration>,
    /// How long it took until requests were known to be too late: by the server's word, or by a success after the timeout.
    expired: Vec<Duration>,
    /// How long refusals took.
    refused: Vec<Duration>,
    failed: u64,
    /// How often each answer was given that is no success.
    said: BTreeMap<String, u64>,
    pub(super) server_cpu: Option<Duration>,
    pub(super) server_rss_bytes: Option<u64>,
}

impl Measurement {
    pub(super) fn new(offered: Offered) -> Self {
        Self {
            offered,
            images: 0,
            elapsed: Duration::ZERO,
            answered: Vec::new(),
            expired: Vec::new(),
            refused: Vec::new(),
            failed: 0,
            said: BTreeMap::new(),
            server_cpu: None,
            server_rss_bytes: None,
        }
    }

    /// Counts an answer that took `latency` to a request that brought `timeout`.
    pub(super) fn record(&mut self, answer: Answer, latency: Duration, timeout: Option<Duration>) {
        self.images += u64::from(answer.is_on_time(latency, timeout));
        self.record_latency(answer, latency, timeout);
    }

    /// As [`record`](Self::record), for an answer that may have come after the measurement's end.
    pub(super) fn record_latency(&mut self, answer: Answer, latency: Duration, timeout: Option<Duration>) {
        match answer {
            Answer::Success if answer.is_on_time(latency, timeout) => self.answered.push(latency),
            Answer::Success => {
                self.expired.push(latency);
                self.say("answered after the timeout".to_owned());
            }
            Answer::Expired(said) => {
                self.expired.push(latency);
                self.say(said);
            }
            Answer::Refused(said) => {
                self.refused.push(latency);
                self.say(said);
            }
            Answer::Failed(said) => self.fail(said),
        }
    }

    /// Counts a success that took `latency`.
    pub(super) fn answer(&mut self, latency: Duration) {
        self.record(Answer::Success, latency, None);
    }

    /// Counts a request that failed.
    pub(super) fn fail(&mut self, said: String) {
        self.failed += 1;
        self.say(said);
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.images += other.images;
        self.answered.extend(other.answered);
        self.expired.extend(other.expired);
        self.refused.extend(other.refused);
        self.failed += other.failed;
        for (said, count) in other.said {
            *self.said.entry(said).or_default() += count;
        }
    }

    /// Notes what the server used between two moments.
    pub(super) fn note_usage(&mut self, before: Usage, after: Usage) {
        self.server_cpu = Some(after.cpu.saturating_sub(before.cpu));
        self.server_rss_bytes = Some(after.rss_bytes);
    }

    /// Whether any answer came.
    pub(super) fn is_empty(&self) -> bool {
        self.answered.is_empty() && self.said.is_empty()
    }

    /// Whether the server did what it should: refusing what is too much is that, too, but not refusing everything.
    pub(super) fn is_success(&self) -> bool {
        self.failed == 0 && self.images > 0
    }

    fn say(&mut self, said: String) {
        *self.said.entry(said).or_default() += 1;
    }

    fn requests(&self) -> u64 {
        (self.answered.len() + self.expired.len() + self.refused.len()) as u64 + self.failed
    }

    fn throughput(&self) -> f64 {
        self.images as f64 / self.elapsed.as_secs_f64()
    }

    fn cpu_ms_per_image(&self) -> Option<f64> {
        self.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e3 / self.images.max(1) as f64)
    }

    fn rss_mib(&self) -> Option<f64> {
        self.server_rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
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
    /// Prints the report to stdout, and what was no success to stderr.
    pub(super) fn print(&self, format: Format) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match format {
            Format::Table => self.print_table(&mut out)?,
            Format::Json => writeln!(out, "{:#}", self.to_json())?,
            Format::Csv => self.print_csv(&mut out)?,
        }
        let mut err = std::io::stderr().lock();
        for measurement in self.measurements {
            for (said, count) in &measurement.said {
                match measurement.offered {
                    Offered::Concurrency(concurrency) => writeln!(err, "concurrency {concurrency}: {count} × {said}")?,
                    Offered::Rate(rate) => writeln!(err, "rate {rate}/s: {count} × {said}")?,
                }
            }
        }
        Ok(())
    }

    fn print_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "{}", self.subject)?;
        let is_open = self.measurements.iter().any(|measurement| matches!(measurement.offered, Offered::Rate(_)));
        writeln!(
            out,
            "{:>11} {:>10} {:>9} {:>9} {:>9} {:>9} {:>8} {:>12} {:>8} {:>7} {:>13} {:>8}",
            if is_open { "requests/s" } else { "concurrency" },
            "images/s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "max ms",
            "refused",
            "their p99 ms",
            "expired",
            "errors",
            "CPU ms/image",
            "RSS MiB"
        )?;
        for measurement in self.measurements {
            let Latencies { p50, p90, p99, max, refused_p99 } = Latencies::of(measurement);
            let optional =
                |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
            let offered = match measurement.offered {
                Offered::Concurrency(concurrency) => concurrency.to_string(),
                Offered::Rate(rate) => format!("{rate:.1}"),
            };
            writeln!(
                out,
                "{offered:>11} {:>10.1} {p50:>9.2} {p90:>9.2} {p99:>9.2} {max:>9.2} {:>8} {:>12} {:>8} {:>7} {:>13} {:>8}",
                measurement.throughput(),
                measurement.refused.len(),
                optional(refused_p99, 2),
                measurement.expired.len(),
                measurement.failed,
                optional(measurement.cpu_ms_per_image(), 2),
                optional(measurement.rss_mib(), 0),
            )?;
        }
        Ok(())
    }

    /// The columns are the JSON's keys.
    fn print_csv(&self, out: &mut impl Write) -> std::io::Result<()> {
        let columns = [
            "concurrency",
            "rate_per_s",
            "requests",
            "images",
            "elapsed_s",
            "images_per_s",
            "p50_ms",
            "p90_ms",
            "p99_ms",
            "max_ms",
            "refused",
            "refused_p99_ms",
            "expired",
            "errors",
            "cpu_ms_per_image",
            "rss_mib",
        ];
        writeln!(out, "{}", columns.join(","))?;
        for measurement in self.measurements {
            let object = measurement.to_json();
            let cell = |column: &&str| match &object[*column] {
                Value::Null => String::new(),
                value if value.is_f64() => format!("{:.3}", value.as_f64().unwrap_or_default()),
                value => value.to_string(),
            };
            writeln!(out, "{}", columns.iter().map(cell).collect::<Vec<_>>().join(","))?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let measurements: Vec<_> = self.measurements.iter().map(Measurement::to_json).collect();
        json!({ "subject": self.subject, "measurements": measurements })
    }
}

impl Measurement {
    fn to_json(&self) -> Value {
        let Latencies { p50, p90, p99, max, refused_p99 } = Latencies::of(self);
        let (concurrency, rate) = match self.offered {
            Offered::Concurrency(concurrency) => (Some(concurrency), None),
            Offered::Rate(rate) => (None, Some(rate)),
        };
        json!({
            "concurrency": concurrency,
            "rate_per_s": rate,
            "requests": self.requests(),
            "images": self.images,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "images_per_s": self.throughput(),
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "max_ms": max,
            "refused": self.refused.len(),
            "refused_p99_ms": refused_p99,
            "expired": self.expired.len(),
            "errors": self.failed,
            "said": self.said,
            "cpu_ms_per_image": self.cpu_ms_per_image(),
            "rss_mib": self.rss_mib(),
        })
    }
}

/// The quantiles that every format shows, in milliseconds.
struct Latencies {
    /// Of the requests that were accepted, those that expired all the same among them.
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
    /// Of those refused, if any were.
    refused_p99: Option<f64>,
}

impl Latencies {
    fn of(measurement: &Measurement) -> Self {
        let accepted = sorted_ms(measurement.answered.iter().chain(&measurement.expired));
        let refused = sorted_ms(measurement.refused.iter());
        let at = |q| quantile(&accepted, q);
        let refused_p99 = (!refused.is_empty()).then(|| quantile(&refused, 0.99));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0), refused_p99 }
    }
}

fn sorted_ms<'a>(latencies: impl Iterator<Item = &'a Duration>) -> Vec<f64> {
    let mut sorted: Vec<f64> = latencies.map(|latency| latency.as_secs_f64() * 1e3).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
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

    #[test]
    fn an_answer_after_the_timeout_is_no_success_and_counts_with_the_accepted() {
        let ms = Duration::from_millis;
        let mut measurement = Measurement::new(Offered::Rate(10.0));
        measurement.record(Answer::Success, ms(10), Some(ms(20)));
        measurement.record(Answer::Success, ms(30), Some(ms(20)));
        measurement.record(Answer::Expired("status 504".to_owned()), ms(21), Some(ms(20)));
        measurement.record(Answer::Refused("status 429".to_owned()), ms(1), Some(ms(20)));
        assert_eq!((measurement.images, measurement.requests()), (1, 4));
        assert!(measurement.is_success());
        let latencies = Latencies::of(&measurement);
        assert!((latencies.max - 30.0).abs() < 1e-9 && (latencies.p50 - 21.0).abs() < 1e-9);
        assert!(latencies.refused_p99.is_some_and(|p99| (p99 - 1.0).abs() < 1e-9));
        measurement.record(Answer::Failed("status 500".to_owned()), ms(1), None);
        assert!(!measurement.is_success());
    }
}
