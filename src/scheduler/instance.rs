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
use crate::telemetry::{BatchFacts, BatchTimes, TracedEntry, record_batch};
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

/// The thread's body: until the queue is closed and empty. `index` tells the model's instances apart.
pub(super) fn run(shared: &Shared, index: usize, share: &Share, mut backend: Box<dyn Backend>) {
    loop {
        let mut instance = Instance { shared, index, backend: &mut *backend };
        // A backend's panic is caught where it runs. This catches all others: their batch's entries are dropped, which answers
        // them, and a new instance takes the backend over.
        match catch_unwind(AssertUnwindSafe(|| work(&shared.queue, share, &mut instance))) {
            Ok(()) => return,
            Err(_) => {
                shared.metrics.instance_panics.inc();
                shared.failures.fetch_add(1, Ordering::Relaxed);
                error!("an instance panicked and is replaced");
                shared.note_failure("an instance panicked and was replaced".to_owned());
            }
        }
    }
}

struct Instance<'a> {
    shared: &'a Shared,
    index: usize,
    backend: &'a mut dyn Backend,
}

impl Work<Entry> for Instance<'_> {
    fn run(&mut self, batch: Vec<Entry>, waited: Duration) -> Duration {
        self.shared.show_left(&batch);
        self.shared.admission.times().observe_turn(waited);
        let started = Instant::now();
        self.run_entries(batch, started, false);
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
    fn run_entries(&mut self, entries: Vec<Entry>, started: Instant, is_retry: bool) {
        let parts: Vec<Tensor> = entries.iter().map(|entry| entry.rows.clone()).collect();
        let taken = if is_retry { Instant::now() } else { started };
        let result = self.run_once(&parts);
        self.trace(&entries, taken, &result, is_retry);
        match result {
            Ok((outputs, times)) => {
                self.shared.failures.store(0, Ordering::Relaxed);
                self.answer(entries, &outputs, times, started);
            }
            Err(failure) if entries.len() == 1 => {
                // Before the answer: whoever gets it may ask how many there are.
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                for entry in entries {
                    self.shared.note_failure(failure.chain());
                    // Whoever waits for it says so in the log, once and with the request's id.
                    if entry.answer.send(Err(failure.clone())).is_err() {
                        error!(cause = failure.chain(), "a run failed, and nobody waited for it any more");
                    }
                }
            }
            Err(_) => {
                for entry in entries {
                    self.run_entries(vec![entry], started, true);
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

    /// Records the batch, which was taken, or taken up again, at `taken`, where any of its entries is traced.
    fn trace(&self, entries: &[Entry], taken: Instant, result: &Result<(Vec<Tensor>, BatchTimes)>, is_retry: bool) {
        if !entries.iter().any(|entry| entry.trace.is_recorded()) {
            return;
        }
        let rows = entries.iter().map(|entry| entry.rows.shape()[0]).sum();
        let (input, took) =
            result.as_ref().map_or((Duration::ZERO, taken.elapsed()), |(_, times)| (times.input, times.infer));
        let facts = BatchFacts {
            model: self.shared.metrics.labels(),
            instance: self.index,
            rows,
            run_rows: self.shared.options.run_rows(rows),
            taken,
            began: taken + input,
            took,
            result: result.as_ref().map(drop).map_err(Error::message),
        };
        let traced = entries.iter().map(|entry| TracedEntry {
            trace: &entry.trace,
            arrived: Some(entry.arrived).filter(|_| !is_retry),
            rows: entry.rows.shape()[0],
        });
        record_batch(traced, &facts);
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
