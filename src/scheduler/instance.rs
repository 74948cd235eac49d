//! An instance: a thread that owns a backend, takes batches off the queue and answers their entries.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::error;

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
pub(super) fn run(shared: &Shared, mut backend: Box<dyn Backend>) {
    while let Some(batch) = shared.next_batch() {
        let started = Instant::now();
        run_entries(shared, &mut *backend, batch, started);
    }
}

/// Runs the entries as one batch; if that fails, each alone, so that one bad row cannot fail its neighbours.
fn run_entries(shared: &Shared, backend: &mut dyn Backend, entries: Vec<Entry>, started: Instant) {
    let parts: Vec<Tensor> = entries.iter().map(|entry| entry.rows.clone()).collect();
    match run_once(shared, backend, &parts) {
        Ok((outputs, times)) => {
            shared.failures.store(0, Ordering::Relaxed);
            answer(shared, entries, &outputs, times, started);
        }
        Err(failure) if entries.len() == 1 => {
            // Before the answer: whoever gets it may ask how many there are.
            shared.failures.fetch_add(1, Ordering::Relaxed);
            for entry in entries {
                error!(cause = failure.chain(), "a run failed");
                drop(entry.answer.send(Err(failure.clone())));
            }
        }
        Err(_) => {
            for entry in entries {
                run_entries(shared, backend, vec![entry], started);
            }
        }
    }
}

fn run_once(shared: &Shared, backend: &mut dyn Backend, parts: &[Tensor]) -> Result<(Vec<Tensor>, BatchTimes)> {
    let rows: usize = parts.iter().map(|part| part.shape()[0]).sum();
    let run_rows = shared.options.fixed_batch.unwrap_or(rows);
    let (outputs, times) = catch_unwind(AssertUnwindSafe(|| backend.run(parts, run_rows))).unwrap_or_else(|_| {
        shared.metrics.instance_panics.inc();
        Err(Error::internal("the model's run failed").with_source("the instance panicked"))
    })?;
    for output in &outputs {
        if output.shape().first() != Some(&run_rows) {
            return Err(Error::internal("the model's output does not fit its batch")
                .with_source(format!("a batch of {run_rows} rows gave an output of shape {:?}", output.shape())));
        }
    }
    shared
        .observe_row_time((times.input + times.infer + times.output) / u32::try_from(rows.max(1)).unwrap_or(u32::MAX));
    Ok((outputs, times))
}

fn answer(shared: &Shared, entries: Vec<Entry>, outputs: &[Tensor], times: BatchTimes, started: Instant) {
    let waits: Vec<_> = entries
        .iter()
        .flat_map(|entry| std::iter::repeat_n(started.saturating_duration_since(entry.arrived), entry.rows.shape()[0]))
        .collect();
    shared.record_batch(&waits, times);
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
