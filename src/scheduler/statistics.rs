//! What an instance counts of its work: the numbers behind the statistics extension and Triton's metrics.

use std::collections::BTreeMap;

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
