//! What a process uses, from Linux's `/proc`; and this one's as the metrics that every client library of Prometheus has.
//!
//! Elsewhere than on Linux there are none.

use std::io::{Error, ErrorKind, Result};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Registry};

/// The unit of `/proc/PID/stat`'s times: Linux fixes `USER_HZ` at 100 on every architecture that ONNX Runtime is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
}

impl Usage {
    /// What the process `pid` has used.
    ///
    /// # Errors
    /// When there is no such process, or no `/proc`.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|error| Error::new(error.kind(), format!("there is no process {pid}")))
        };
        let unexpected = |file| Error::new(ErrorKind::InvalidData, format!("/proc/PID/{file} is not as expected"));
        let cpu = parse_cpu(&read("stat")?).ok_or_else(|| unexpected("stat"))?;
        let rss_bytes = parse_rss(&read("status")?).ok_or_else(|| unexpected("status"))?;
        Ok(Self { cpu, rss_bytes })
    }
}

/// The metrics of this process, read whenever metrics are gathered.
#[derive(Debug)]
struct ProcessMetrics {
    cpu: Counter,
    resident: Gauge,
    open_files: Gauge,
    max_files: Gauge,
    started: Gauge,
}

/// Registers the metrics of this process.
///
/// # Errors
/// When `registry` already holds metrics of these names.
pub fn register_process_metrics(registry: &Registry) -> prometheus::Result<()> {
    let metrics = ProcessMetrics {
        cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time of the process in seconds")?,
        resident: Gauge::new("process_resident_memory_bytes", "Resident memory of the process in bytes")?,
        open_files: Gauge::new("process_open_fds", "File descriptors that are open")?,
        max_files: Gauge::new("process_max_fds", "File descriptors that may be open")?,
        started: Gauge::new("process_start_time_seconds", "When the server started, in Unix time")?,
    };
    metrics.started.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    registry.register(Box::new(metrics))
}

impl ProcessMetrics {
    fn all(&self) -> [&dyn Collector; 5] {
        [&self.cpu, &self.resident, &self.open_files, &self.max_files, &self.started]
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Nothing at all is said where there is no `/proc`.
        let Ok(usage) = Usage::of(std::process::id()) else { return Vec::new() };
        self.cpu.inc_by((usage.cpu.as_secs_f64() - self.cpu.get()).max(0.0));
        self.resident.set(usage.rss_bytes as f64);
        self.open_files.set(open_files().unwrap_or(f64::NAN));
        self.max_files.set(max_files().unwrap_or(f64::INFINITY));
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

fn open_files() -> Option<f64> {
    // The folder itself is open while it is read.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_files() -> Option<f64> {
    parse_max_files(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// Fields 14 and 15, `utime` and `stime`. The second field, the name, may itself hold spaces and parentheses.
fn parse_cpu(stat: &str) -> Option<Duration> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The soft limit; none where there is no limit.
fn parse_max_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_may_hold_anything() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 100 1000 10";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_cpu("12 (a"), None);
        assert_eq!(parse_rss("Name:\ta\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_rss("Name:\ta\n"), None);
    }

    #[test]
    fn the_soft_limit_of_files_is_the_first() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(parse_max_files(limits), Some(1024.0));
        assert_eq!(
            parse_max_files("Max open files            unlimited            unlimited            files\n"),
            None
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_can_be_read() {
        let registry = Registry::new();
        register_process_metrics(&registry).unwrap();
        let families = registry.gather();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        let rss = Usage::of(std::process::id()).unwrap().rss_bytes as f64;
        let said = value("process_resident_memory_bytes");
        assert!(said > rss / 2.0 && said < rss * 2.0, "{said} {rss}");
        // Standard input, output and error at least.
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
