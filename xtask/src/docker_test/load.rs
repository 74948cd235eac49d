//! A steady load over HTTP and gRPC at once, by `convoy bench`, and when each of its requests came to nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::process;

/// Nothing takes so long that is done under load.
const LONGEST_S: &str = "600";

/// What is offered for the time of one scenario.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer<'a> {
    /// The program that loads.
    pub(super) convoy: &'a Path,
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    /// The API key.
    pub(super) key: &'a str,
    pub(super) picture: &'a Path,
    /// Requests a second over each protocol.
    pub(super) rate: f64,
}

/// A load that is under way. Dropped before its end, it is cut off.
pub(super) struct Load {
    protocols: Vec<(&'static str, Child, PathBuf)>,
}

/// What one protocol's clients saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) protocol: &'static str,
    pub(super) requests: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) failures: Vec<Failure>,
}

/// A request that was not answered with success: whatever the reason, its client has nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// When it was due, in Unix time.
    pub(super) due: Duration,
    pub(super) took: Duration,
    pub(super) said: String,
}

impl Load {
    /// Begins to send.
    ///
    /// # Errors
    /// When `convoy bench` cannot be started.
    pub(super) fn start(offer: Offer<'_>, folder: &Path) -> Result<Self> {
        let mut protocols = Vec::new();
        for (protocol, url) in [("http", format!("http://{}", offer.http)), ("grpc", format!("grpc://{}", offer.grpc))]
        {
            let failures = folder.join(format!("failures-{protocol}.csv"));
            // What an earlier scenario has left is not to be read again.
            let _ = fs::remove_file(&failures);
            let mut bench = Command::new(offer.convoy);
            bench.args(["bench", "--format", "csv", "--warmup-s", "0", "--model", "efficientnet-lite0", "--url", &url]);
            bench.args(["--rate", &offer.rate.to_string()]);
            bench.args(["--duration-s", LONGEST_S]);
            bench.arg("--image").arg(offer.picture).arg("--failures").arg(&failures);
            bench.env("CONVOY_KEY", offer.key);
            // Failures are read from the file.
            bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let child = bench.spawn().context("`convoy bench` could not be started")?;
            protocols.push((protocol, child, failures));
        }
        Ok(Self { protocols })
    }

    /// Whether it still sends.
    pub(super) fn is_under_way(&mut self) -> Result<bool> {
        for (_, child, _) in &mut self.protocols {
            if child.try_wait()?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends no more, and waits for the answers to what was sent.
    ///
    /// # Errors
    /// When a measurement is missing: `convoy bench` itself failed.
    pub(super) fn finish(mut self) -> Result<Vec<Seen>> {
        for (_, child, _) in &self.protocols {
            process::run(Command::new("kill").args(["-INT", &child.id().to_string()]))?;
        }
        let mut seen = Vec::new();
        for (protocol, child, failures) in self.protocols.drain(..) {
            let output = child.wait_with_output()?;
            let report = String::from_utf8_lossy(&output.stdout);
            let failures = fs::read_to_string(&failures)
                .with_context(|| format!("the load over {protocol} did not come to its end ({})", output.status))?;
            seen.push(read(protocol, &report, &failures)?);
        }
        Ok(seen)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for (_, child, _) in &mut self.protocols {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The time of day, as [`Failure::due`] has it.
pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn read(protocol: &'static str, report: &str, failures: &str) -> Result<Seen> {
    let mut lines = report.lines();
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        bail!("the report is not as expected: {report}")
    };
    let column = |name: &str| {
        let index = names.split(',').position(|other| other == name);
        let value = index.and_then(|index| values.split(',').nth(index)).and_then(|value| value.parse::<f64>().ok());
        value.with_context(|| format!("the report has no {name}: {report}"))
    };
    Ok(Seen {
        protocol,
        requests: column("requests")? as u64,
        p50_ms: column("p50_ms")?,
        p99_ms: column("p99_ms")?,
        max_ms: column("max_ms")?,
        failures: failures.lines().skip(1).map(read_failure).collect::<Result<_>>()?,
    })
}

fn read_failure(line: &str) -> Result<Failure> {
    let mut fields = line.splitn(3, ',');
    let mut next = || fields.next().with_context(|| format!("a failure is not as expected: {line}"));
    Ok(Failure {
        due: Duration::from_millis(next()?.parse()?),
        took: Duration::from_millis(next()?.parse()?),
        said: next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_and_its_failures_are_read() {
        let report = "concurrency,rate_per_s,requests,images,p50_ms,p99_ms,max_ms\n,10.000,42,41,1.500,2.500,3.500\n";
        let failures = "due_unix_ms,took_ms,said\n1500,20,status 503\n1700,0,one, two\n";
        let seen = read("http", report, failures).unwrap();
        assert_eq!((seen.requests, seen.p99_ms), (42, 2.5));
        let said = |due, took, said: &str| Failure {
            due: Duration::from_millis(due),
            took: Duration::from_millis(took),
            said: said.to_owned(),
        };
        assert_eq!(seen.failures, [said(1500, 20, "status 503"), said(1700, 0, "one, two")]);
        assert!(read("http", "", failures).is_err());
        assert!(read("http", report, "due_unix_ms,took_ms,said\nsoon,1,a\n").is_err());
    }
}
