//! Progress of long steps: plain lines with the time elapsed, readable on a terminal and in a CI log alike.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often a step that is still running says so.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Prints one line about what is being done.
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Runs `work` and says when it began, every ten seconds that it goes on, and how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("{what} ..."));
    let start = Instant::now();
    let (finished, wait) = mpsc::channel::<()>();
    let outcome = thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(HEARTBEAT) {
                say(&format!("{what}: {} s so far", start.elapsed().as_secs()));
            }
        });
        let outcome = work();
        // The thread sees the closed channel and ends; the scope joins it.
        drop(finished);
        outcome
    });
    let verdict = if outcome.is_ok() { "done in" } else { "failed after" };
    say(&format!("{what}: {verdict} {}", seconds(start.elapsed())));
    outcome
}

/// A duration as logs show it, `12.3 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
