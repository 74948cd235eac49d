//! The statistics extension.

use super::super::proto::inference as pb;
use crate::repository::Model;
use crate::scheduler::statistics::{BatchStatistics, DurationStatistic};

/// What `model` has run.
pub(super) fn of(model: &Model) -> pb::ModelStatistics {
    let statistics = model.statistics();
    pb::ModelStatistics {
        name: model.name().to_owned(),
        version: model.version().to_string(),
        last_inference: statistics.last_inference_ms,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(pb::InferStatistics {
            success: duration(statistics.success),
            fail: duration(statistics.fail),
            queue: duration(statistics.queue),
            compute_input: duration(statistics.compute_input),
            compute_infer: duration(statistics.compute_infer),
            compute_output: duration(statistics.compute_output),
            cache_hit: duration(statistics.cache_hit),
            cache_miss: duration(statistics.cache_miss),
        }),
        batch_stats: statistics.batches.iter().map(|(&size, batch)| batch_statistics(size, batch)).collect(),
        ..pb::ModelStatistics::default()
    }
}

fn batch_statistics(size: usize, batch: &BatchStatistics) -> pb::InferBatchStatistics {
    pb::InferBatchStatistics {
        batch_size: size as u64,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "protobuf has every message field optional")]
fn duration(DurationStatistic { count, ns }: DurationStatistic) -> Option<pb::StatisticDuration> {
    Some(pb::StatisticDuration { count, ns })
}
