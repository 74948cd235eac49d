//! How a model's queue and instances stand at a moment, for people who look.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::{Scheduler, Shared};

/// Numbers that were true a moment ago. They are read one after the other, so they need not fit each other exactly.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// How many instances there are.
    pub instances: usize,
    /// How many of them run a batch or wait for their turn with one.
    pub busy_instances: usize,
    /// Rows that wait for an instance.
    pub queued_rows: usize,
    /// Rows that are admitted and not yet answered.
    pub admitted_rows: usize,
    /// How many there may be.
    pub places: usize,
    /// Bytes that admitted requests hold.
    pub held_bytes: usize,
    /// How many there may be.
    pub max_bytes: usize,
    /// The average time of a batch, by the sizes that have been run.
    pub batch_times: Vec<(usize, Duration)>,
    /// What a batch waits for other models' runs.
    pub turn_wait: Duration,
    /// How often an instance panicked.
    pub panics: u64,
    /// How many entries have failed in a row, each in a run of its own.
    pub consecutive_failures: u32,
    /// The last run that failed.
    pub last_failure: Option<Failure>,
}

/// A run that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When.
    pub at: SystemTime,
    /// Why, with its causes.
    pub reason: String,
}

impl Scheduler {
    /// How things stand.
    pub fn snapshot(&self) -> Snapshot {
        let shared = &self.shared;
        let (queued_rows, idle) = shared.queue.load();
        let [(admitted_rows, places), (held_bytes, max_bytes)] = shared.admission.load();
        let times = shared.admission.times();
        Snapshot {
            instances: self.instance_count,
            busy_instances: self.instance_count.saturating_sub(idle),
            queued_rows,
            admitted_rows,
            places,
            held_bytes,
            max_bytes,
            batch_times: times.measured(),
            turn_wait: times.turn(),
            panics: shared.metrics.instance_panics.get(),
            consecutive_failures: self.consecutive_failures(),
            last_failure: shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Shared {
    /// Keeps why a run has failed.
    pub(super) fn note_failure(&self, reason: String) {
        let failure = Failure { at: SystemTime::now(), reason };
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}
