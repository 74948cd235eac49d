//! What an instance counts of its work: the numbers behind the statistics extension and Triton's metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::telemetry::BatchTimes;

/// How often something happened and how long it took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DurationStatistic {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// A snapshot of one model version's counters, named as Triton's statistics extension names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// When the last inference ended, in milliseconds since the Unix epoch; 0 before the first.
    pub last_inference_ms: u64,
    /// Rows that were answered successfully.
    pub inference_count: u64,
    /// Batches run.
    pub execution_count: u64,
    /// Requests answered successfully, and their time from arrival to answer.
    pub success: DurationStatistic,
    /// Requests that failed, and their time from arrival to answer.
    pub fail: DurationStatistic,
    /// Waiting in the queue, per row.
    pub queue: DurationStatistic,
    /// Assembling the batch, per row.
    pub compute_input: DurationStatistic,
    /// The run itself, per row.
    pub compute_infer: DurationStatistic,
    /// Cutting the outputs into rows, per row.
    pub compute_output: DurationStatistic,
    /// Looking up what the response cache answered.
    pub cache_hit: DurationStatistic,
    /// Looking up what it did not, and putting the answer into it.
    pub cache_miss: DurationStatistic,
    /// By batch size.
    pub batches: BTreeMap<usize, BatchStatistics>,
}

/// What batches of one size cost; one count a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Assembling the batch.
    pub compute_input: DurationStatistic,
    /// The run itself.
    pub compute_infer: DurationStatistic,
    /// Cutting the outputs into rows.
    pub compute_output: DurationStatistic,
}

/// The live counters behind [`Statistics`].
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Statistics>);

impl Recorder {
    /// Counts a batch of `rows` rows that ran; `waited` is the rows' time in the queue in all.
    pub fn record_batch(&self, rows: usize, waited: Duration, times: BatchTimes) {
        let count = rows as u64;
        let mut statistics = self.lock();
        statistics.inference_count += count;
        statistics.execution_count += 1;
        statistics.last_inference_ms = unix_ms();
        statistics.queue.add(count, waited);
        // As in Triton, a batch's duration counts once for each of its rows.
        let each = u32::try_from(rows).unwrap_or(u32::MAX);
        statistics.compute_input.add(count, times.input * each);
        statistics.compute_infer.add(count, times.infer * each);
        statistics.compute_output.add(count, times.output * each);
        let batch = statistics.batches.entry(rows).or_default();
        batch.compute_input.add(1, times.input);
        batch.compute_infer.add(1, times.infer);
        batch.compute_output.add(1, times.output);
    }

    /// Counts a request that ended after `took`.
    pub fn record_request(&self, succeeded: bool, took: Duration) {
        let mut statistics = self.lock();
        if succeeded {
            statistics.success.add(1, took);
        } else {
            statistics.fail.add(1, took);
        }
    }

    /// Counts what was looked up in the response cache.
    pub fn record_lookup(&self, is_hit: bool, took: Duration) {
        let mut statistics = self.lock();
        if is_hit {
            statistics.cache_hit.add(1, took);
        } else {
            statistics.cache_miss.add(1, took);
        }
    }

    /// Adds to the misses' time what it took to put an answer into the response cache.
    pub fn record_insertion(&self, took: Duration) {
        self.lock().cache_miss.add(0, took);
    }

    /// The counters as they stand.
    pub fn snapshot(&self) -> Statistics {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Statistics> {
        // Counters are only added to, so a panic elsewhere leaves them usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DurationStatistic {
    fn add(&mut self, count: u64, duration: Duration) {
        self.count += count;
        self.ns = self.ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
