//! How many instances run a model, on which devices, and in what batches.

use std::sync::Arc;
use std::time::Duration;

use super::config::{BatchingConfig, ModelConfig, Tunable};
use super::warm_up;
use crate::engine::{Graph, GraphOptions, Provider, Session};
use crate::error::Result;
use crate::scheduler::SchedulerOptions;
use crate::scheduler::batcher::Policy;
use crate::scheduler::device::{Device, Devices};

/// The largest batch on the CPU where neither the graph nor the configuration says one. Larger ones save a CPU nothing more,
/// and cost memory and the latency of whoever waits for the rest of the batch (docs/benchmarks.md).
const MAX_BATCH_SIZE_ON_CPU: usize = 4;
/// The same on a GPU, whose kernels want the rows.
const MAX_BATCH_SIZE_ON_GPU: usize = 32;
/// Instances on a GPU: one computes while the other copies.
const INSTANCES_PER_GPU: usize = 2;

/// One session for each instance, spread over the provider's devices. `first` is there already, where there is one.
pub(super) fn sessions(graph: &Graph, first: Option<Session>, config: &ModelConfig) -> Result<Vec<Session>> {
    let device_ids = device_ids(graph.provider(), config).into_iter().skip(first.iter().len());
    first.into_iter().map(Ok).chain(device_ids.map(|device_id| graph.session(device_id))).collect()
}

/// The device of each instance, in the order of [`sessions`].
pub(super) fn devices_of(provider: &Provider, config: &ModelConfig, devices: &Devices) -> Vec<Arc<Device>> {
    let device = |device_id| {
        if provider.is_gpu() { devices.gpu(device_id, instances_per_device(provider, config)) } else { devices.cpu() }
    };
    device_ids(provider, config).into_iter().map(device).collect()
}

fn device_ids(provider: &Provider, config: &ModelConfig) -> Vec<i32> {
    let count = instances_per_device(provider, config);
    provider.device_ids().iter().flat_map(|&device_id| std::iter::repeat_n(device_id, count)).collect()
}

/// How many instances each device has: as configured, or as suits the provider.
pub(super) fn instances_per_device(provider: &Provider, config: &ModelConfig) -> usize {
    let configured = config.instances.count.and_then(Tunable::number);
    configured.unwrap_or_else(|| if provider.is_gpu() { INSTANCES_PER_GPU } else { cores() })
}

/// The threads inside one run: as configured, or one.
pub(super) fn intra_op_threads(config: &ModelConfig) -> usize {
    config.instances.intra_op_threads.and_then(Tunable::number).unwrap_or(1)
}

/// How the graph's sessions are made.
pub(super) fn graph_options(config: &ModelConfig) -> GraphOptions {
    GraphOptions {
        providers: config.providers.clone(),
        intra_op_threads: intra_op_threads(config),
        optimization: config.graph_optimization,
    }
}

/// The cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The one batch size that the model can have: the `graph`'s, where that fixes it, or 1 where rows must not be put together.
pub(super) fn fixed_batch(graph: Option<usize>, config: &ModelConfig) -> Option<usize> {
    let has_number = config.max_batch_size.and_then(Tunable::number).is_some();
    graph.or_else(|| (config.is_unbatched() && !has_number).then_some(1))
}

/// The most rows in a batch: what the graph fixes, else what is configured, else what suits the provider.
pub(super) fn max_batch_size(
    fixed: Option<usize>,
    configured: Option<Tunable>,
    provider: &Provider,
) -> Result<usize, String> {
    match (fixed, configured.and_then(Tunable::number)) {
        (Some(fixed), Some(configured)) if configured != fixed => {
            Err(format!("max_batch_size: is {configured}, but the graph's batch dimension is fixed at {fixed}"))
        }
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) if provider.is_gpu() => Ok(MAX_BATCH_SIZE_ON_GPU),
        (None, None) => Ok(MAX_BATCH_SIZE_ON_CPU),
    }
}

/// The sizes in which batches are run: the one that the graph fixes, else as configured, else powers of two on a GPU, whose
/// libraries plan for each size anew, and none on a CPU, which takes every size as it is.
pub(super) fn buckets(
    fixed: Option<usize>,
    configured: Option<&[usize]>,
    max_batch_size: usize,
    provider: &Provider,
) -> Result<Vec<usize>, String> {
    let mut buckets = match (fixed, configured) {
        (Some(fixed), Some(sizes)) if sizes != [fixed] => {
            return Err(format!("batching.buckets: the graph's batch dimension is fixed at {fixed}"));
        }
        (Some(fixed), _) => vec![fixed],
        (None, Some([])) => return Ok(Vec::new()),
        (None, Some(sizes)) => sizes.to_vec(),
        (None, None) if provider.is_gpu() => warm_up::powers_of_two(max_batch_size),
        (None, None) => return Ok(Vec::new()),
    };
    if let Some(size) = buckets.iter().find(|size| !(1..=max_batch_size).contains(size)) {
        return Err(format!("batching.buckets: {size} is not from 1 to max_batch_size, which is {max_batch_size}"));
    }
    buckets.push(max_batch_size);
    buckets.sort_unstable();
    buckets.dedup();
    Ok(buckets)
}

/// The queue's rules.
pub(super) fn scheduler_options(
    config: &ModelConfig,
    max_batch_size: usize,
    buckets: Vec<usize>,
    provider: &Provider,
) -> SchedulerOptions {
    let BatchingConfig { max_queue_delay_us, queue_size, queue_bytes, max_priority_wait_ms, .. } = config.batching;
    let policy = Policy {
        max_batch_size,
        max_queue_delay: Duration::from_micros(max_queue_delay_us),
        max_priority_wait: Duration::from_millis(max_priority_wait_ms),
    };
    // A GPU's kernels have no threads of ours.
    let threads = if provider.is_gpu() { 1 } else { intra_op_threads(config) };
    SchedulerOptions { policy, queue_size, queue_bytes, buckets, threads }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::CudaOptions;

    #[test]
    fn buckets_are_those_configured_and_the_largest_batch() {
        let (cpu, gpu) = (Provider::Cpu {}, Provider::Cuda(CudaOptions::default()));
        for (fixed, configured, provider, expected) in [
            (None, None, &cpu, Ok(vec![])),
            (None, None, &gpu, Ok(vec![1, 2, 4, 6])),
            (None, Some(&[][..]), &gpu, Ok(vec![])),
            (None, Some(&[4, 2, 2]), &cpu, Ok(vec![2, 4, 6])),
            (Some(6), None, &cpu, Ok(vec![6])),
            (Some(6), Some(&[6]), &gpu, Ok(vec![6])),
            (Some(6), Some(&[2]), &cpu, Err("6")),
            (None, Some(&[0]), &cpu, Err("0 is not")),
            (None, Some(&[7]), &cpu, Err("7 is not")),
        ] {
            let found = buckets(fixed, configured, 6, provider);
            match expected {
                Ok(expected) => assert_eq!(found.unwrap(), expected),
                Err(said) => assert!(found.as_ref().unwrap_err().contains(said), "{found:?}"),
            }
        }
    }
}
