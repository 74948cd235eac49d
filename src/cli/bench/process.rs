//! CPU time and memory of another process, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of `/proc/PID/stat`'s times: Linux fixes `USER_HZ` at 100 on every architecture that ONNX Runtime is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// User and system time of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory, in bytes.
    pub(super) rss_bytes: u64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("there is no process {pid}"))
        };
        let cpu = parse_cpu(&read("stat")?).context("/proc/PID/stat is not as expected")?;
        let rss_bytes = parse_rss(&read("status")?).context("/proc/PID/status is not as expected")?;
        Ok(Self { cpu, rss_bytes })
    }
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
    fn this_process_can_be_read() {
        assert!(Usage::of(std::process::id()).unwrap().rss_bytes > 0);
    }
}
