//! An instance: a thread that owns a backend, takes batches off the queue and answers their entries.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::error;

use super::device::Share;
use super::worker::{Work, work};
use super::{Answer, Entry, Shared};
use crate::engine::Session;
use crate::error::{Error, Result};
use crate::telemetry::BatchTimes;
use crate::tensor::Tensor;

/// What runs batches: a session, or in tests something simpler.
pub trait Backend: Send {
    /// Puts `parts` together along the first dimension, filled up with zero rows to `rows`, and runs them.
    ///
    /// # Errors
    /// Whatever went wrong; the instance lives on.
    fn run(&mut self, parts: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)>;
}

impl Backend for Session {
    fn run(&mut self, parts: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)> {
        Self::run(self, parts, rows)
    }
}

/// The thread's body: until the queue is closed and empty.
pub(super) fn run(shared: &Shared, share: &Share, mut backend: Box<dyn Backend>) {
    loop {
        let mut instance = Instance { shared, backend: &mut *backend };
        // A backend's panic is caught where it runs. This catches all others: their batch's entries are dropped, which answers
        // them, and a new instance takes the backend over.
        match catch_unwind(AssertUnwindSafe(|| work(&shared.queue, share, &mut instance))) {
            Ok(()) => return,
            Err(_) => {
                shared.metrics.instance_panics.inc();
                shared.failures.fetch_add(1, Ordering::Relaxed);
                error!("an instance panicked and is replaced");
            }
        }
    }
}

struct Instance<'a> {
    shared: &'a Shared,
    backend: &'a mut dyn Backend,
}

impl Work<Entry> for Instance<'_> {
    fn run(&mut self, batch: Vec<Entry>, waited: Duration) -> Duration {
        self.shared.show_left(&batch);
        self.shared.admission.times().observe_turn(waited);
        let started = Instant::now();
        self.run_entries(batch, started);
        started.elapsed()
    }

    fn expire(&mut self, expired: Vec<Entry>) {
        self.shared.show_left(&expired);
        for entry in expired {
            // The receiver may have gone in this very moment: then nobody needs the answer.
            drop(entry.answer.send(Err(Error::deadline_exceeded("the request's deadline passed in the queue"))));
        }
    }
}

impl Instance<'_> {
    /// Runs the entries as one batch; if that fails, each alone, so that one bad row cannot fail its neighbours.
    fn run_entries(&mut self, entries: Vec<Entry>, started: Instant) {
        let parts: Vec<Tensor> = entries.iter().map(|entry| entry.rows.clone()).collect();
        match self.run_once(&parts) {
            Ok((outputs, times)) => {
                self.shared.failures.store(0, Ordering::Relaxed);
                self.answer(entries, &outputs, times, started);
            }
            Err(failure) if entries.len() == 1 => {
                // Before the answer: whoever gets it may ask how many there are.
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                for entry in entries {
                    error!(cause = failure.chain(), "a run failed");
                    drop(entry.answer.send(Err(failure.clone())));
                }
            }
            Err(_) => {
                for entry in entries {
                    self.run_entries(vec![entry], started);
                }
            }
        }
    }

    fn run_once(&mut self, parts: &[Tensor]) -> Result<(Vec<Tensor>, BatchTimes)> {
        let rows: usize = parts.iter().map(|part| part.shape()[0]).sum();
        let run_rows = self.shared.options.run_rows(rows);
        let backend = &mut *self.backend;
        let (outputs, times) =
            catch_unwind(AssertUnwindSafe(|| backend.run(parts, run_rows))).unwrap_or_else(|_| {
                self.shared.metrics.instance_panics.inc();
                Err(Error::internal("the model's run failed").with_source("the instance panicked"))
            })?;
        for output in &outputs {
            if output.shape().first() != Some(&run_rows) {
                return Err(Error::internal("the model's output does not fit its batch")
                    .with_source(format!("a batch of {run_rows} rows gave an output of shape {:?}", output.shape())));
            }
        }
        self.shared.admission.count_run(rows);
        self.shared.admission.times().observe(run_rows, times.input + times.infer + times.output);
        Ok((outputs, times))
    }

    fn answer(&self, entries: Vec<Entry>, outputs: &[Tensor], times: BatchTimes, started: Instant) {
        let waits: Vec<_> = entries
            .iter()
            .flat_map(|entry| {
                std::iter::repeat_n(started.saturating_duration_since(entry.arrived), entry.rows.shape()[0])
            })
            .collect();
        self.shared.record_batch(&waits, times);
        let mut offset = 0;
        for entry in entries {
            let count = entry.rows.shape()[0];
            let answer = Answer {
                outputs: outputs.iter().map(|output| output.rows(offset, count)).collect(),
                queue: started.saturating_duration_since(entry.arrived),
                compute: times.infer,
                batch_size: waits.len(),
            };
            offset += count;
            // A receiver that has gone needs no answer.
            drop(entry.answer.send(Ok(answer)));
        }
    }
}
