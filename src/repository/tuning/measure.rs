//! Runs setups with real sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::shutting_down;
use super::grid::Setup;
use super::search::{Bench, Sample};
use super::waiting;
use crate::engine::{Graph, Session};
use crate::error::{Error, Result};
use crate::tensor::{DataType, Tensor, element_count};

/// At least this part of the time counts as an instance's own, whatever it has waited.
const MOST_DISTURBED: u32 = 10;

/// Sessions of one graph, as many as the setups have needed so far, on its provider's first device.
#[derive(Debug)]
pub(super) struct Sessions<'g> {
    graph: &'g mut Graph,
    row_shape: [usize; 3],
    is_stopped: &'g AtomicBool,
    /// By the threads inside one run.
    pools: BTreeMap<usize, Vec<Instance>>,
}

#[derive(Debug)]
struct Instance {
    session: Session,
    /// The batches for which memory and kernels are in place.
    prepared: BTreeSet<usize>,
}

impl<'g> Sessions<'g> {
    /// Once `is_stopped` is set, measuring is an error.
    pub(super) fn new(graph: &'g mut Graph, row_shape: [usize; 3], is_stopped: &'g AtomicBool) -> Self {
        Self { graph, row_shape, is_stopped, pools: BTreeMap::new() }
    }

    /// Makes the sessions that `setup` lacks.
    fn pool(&mut self, setup: Setup) -> Result<&mut [Instance]> {
        let pool = self.pools.entry(setup.intra_op_threads).or_default();
        self.graph.set_intra_op_threads(setup.intra_op_threads);
        let device_id = self.graph.provider().device_ids()[0];
        while pool.len() < setup.instances {
            pool.push(Instance { session: self.graph.session(device_id)?, prepared: BTreeSet::new() });
        }
        Ok(&mut pool[..setup.instances])
    }
}

impl Instance {
    fn run(&mut self, batch: &Tensor) -> Result<()> {
        self.session.run(std::slice::from_ref(batch), batch.shape()[0]).map(drop)
    }
}

impl Bench for Sessions<'_> {
    fn measure(&mut self, setup: Setup, window: Duration) -> Result<Sample> {
        let is_stopped = self.is_stopped;
        let started = Instant::now();
        let rows = setup.max_batch_size;
        let row_shape = self.row_shape;
        let instances = self.pool(setup)?;
        let batch = noise(instances[0].session.input().data_type, rows, row_shape)?;
        for instance in instances.iter_mut().filter(|instance| !instance.prepared.contains(&rows)) {
            instance.run(&batch)?;
            instance.prepared.insert(rows);
        }
        let (images_per_second, batch_latency) = run_together(instances, &batch, window, is_stopped)?;
        if is_stopped.load(Ordering::Relaxed) {
            return Err(shutting_down());
        }
        Ok(Sample { images_per_second, batch_latency, took: started.elapsed() })
    }

    fn keep(&mut self, setups: &[Setup]) {
        for (threads, pool) in &mut self.pools {
            let most = setups.iter().filter(|it| it.intra_op_threads == *threads).map(|it| it.instances).max();
            pool.truncate(most.unwrap_or(0));
        }
    }
}

/// Counts an instance out when it has been measured, also where its run fails or panics: the others wait for it.
struct Measuring<'a>(&'a AtomicUsize);

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `batch` in all `instances` at once for `window`, or until it is stopped, and at least once; returns the rows in a second, of all of them
/// together, and the median of what a batch took.
///
/// The time in which an instance's thread was ready and had no core is not counted: what other programs take of the machine while
/// it is measured would else decide. Of the threads inside a run only the one that calls is looked at, since the others wait for
/// cores while that works, too.
fn run_together(
    instances: &mut [Instance],
    batch: &Tensor,
    window: Duration,
    is_stopped: &AtomicBool,
) -> Result<(f64, Duration)> {
    let rows = batch.shape()[0];
    let start = Barrier::new(instances.len());
    let measuring = AtomicUsize::new(instances.len());
    let (start, measuring) = (&start, &measuring);
    let measure = |instance: &mut Instance| -> Result<(f64, Vec<Duration>)> {
        let mut latencies = Vec::new();
        let own = Measuring(measuring);
        start.wait();
        let waited = waiting::of_this_thread();
        let started = Instant::now();
        let mut elapsed = Duration::ZERO;
        while latencies.is_empty() || (elapsed < window && !is_stopped.load(Ordering::Relaxed)) {
            instance.run(batch)?;
            latencies.push(started.elapsed().saturating_sub(elapsed));
            elapsed = started.elapsed();
        }
        let waited = waiting::of_this_thread().saturating_sub(waited);
        drop(own);
        // The others' last run must not become faster because this one has stopped.
        while measuring.load(Ordering::Relaxed) > 0 {
            instance.run(batch)?;
        }
        let undisturbed = elapsed.saturating_sub(waited).max(elapsed / MOST_DISTURBED).max(Duration::from_nanos(1));
        let part = undisturbed.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        for latency in &mut latencies {
            *latency = latency.mul_f64(part);
        }
        Ok(((latencies.len() * rows) as f64 / undisturbed.as_secs_f64(), latencies))
    };
    let measure = &measure;
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = instances.iter_mut().map(|instance| scope.spawn(move || measure(instance))).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut images_per_second = 0.0;
    let mut latencies = Vec::new();
    for result in results {
        let (own, times) = result.map_err(|panic| Error::of_panic("a run that was measured panicked", &*panic))??;
        images_per_second += own;
        latencies.extend(times);
    }
    latencies.sort_unstable();
    Ok((images_per_second, latencies[latencies.len() / 2]))
}

/// Rows of noise, always the same: from -1 to 1, as a picture that was normalised has it, or bytes. Zeros would do on a CPU, but a
/// GPU computes zeros with less power, and so at a higher clock, than it will have for pictures.
fn noise(data_type: DataType, rows: usize, [a, b, c]: [usize; 3]) -> Result<Tensor> {
    let shape = vec![rows, a, b, c];
    let elements = element_count(&shape)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut value = move || random.f32() * 2.0 - 1.0;
    match data_type {
        DataType::Fp32 => Tensor::from_vec(shape, (0..elements).map(|_| value()).collect::<Vec<f32>>()),
        DataType::Fp16 => Tensor::from_vec(shape, (0..elements).map(|_| half::f16::from_f32(value())).collect()),
        _ => Tensor::from_vec(shape, (0..elements).map(|_| (value() * 127.0 + 128.0) as u8).collect::<Vec<u8>>()),
    }
}
