//! The scheduler of one model version: admission, a bounded queue, and the instances that empty it in batches.
//!
//! It sees tensors, never pictures, and knows no protocol. `docs/batching.md` has the rules.

mod admission;
pub mod batcher;
mod calibration;
pub mod device;
mod instance;
mod queue;
mod service_times;
mod snapshot;
pub mod statistics;
mod sync;
#[cfg(test)]
mod tests;
mod worker;

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::admission::Admission;
pub use self::admission::{Demand, Permit, Preparation};
use self::batcher::{Key, Policy, Ticket};
use self::device::{Device, Share};
pub use self::instance::Backend;
use self::queue::Queue;
use self::service_times::ServiceTimes;
pub use self::snapshot::{Failure, Snapshot};
use self::statistics::{Recorder, Statistics};
use crate::error::{Error, Result};
use crate::telemetry::{BatchTimes, ModelMetrics, Outcome, Trace};
use crate::tensor::Tensor;

/// The bounds and rules of one model's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// When batches are made.
    pub policy: Policy,
    /// How many rows may be admitted beyond those that the instances can run at once.
    pub queue_size: usize,
    /// How many bytes the admitted requests may hold.
    pub queue_bytes: usize,
    /// The sizes, ascending, in which batches are run: each is filled up with zero rows to the next. The last is
    /// `max_batch_size`. Empty: every batch is run as it is.
    pub buckets: Vec<usize>,
    /// The threads of one run, by which its device time counts.
    pub threads: usize,
}

impl SchedulerOptions {
    /// The size in which a batch of `rows` rows is run.
    pub fn run_rows(&self, rows: usize) -> usize {
        self.buckets.iter().copied().find(|&bucket| bucket >= rows).unwrap_or(rows)
    }
}

/// What an instance is made of.
#[derive(Debug)]
pub struct Instance<B> {
    /// What runs its batches.
    pub backend: B,
    /// Where it runs them.
    pub device: Arc<Device>,
}

/// What one entry brings.
#[derive(Debug)]
pub struct Submission {
    /// The rows, shape `[rows, …]`, at most the largest batch.
    pub rows: Tensor,
    /// 1 is the most urgent.
    pub priority: u32,
    /// After this the answer is of no use.
    pub deadline: Option<Instant>,
    /// Where the times of its waiting and its run are recorded.
    pub trace: Trace,
}

/// What an instance answers an entry.
#[derive(Debug)]
pub struct Answer {
    /// The entry's rows of every output, in the graph's order.
    pub outputs: Vec<Tensor>,
    /// How long the entry waited.
    pub queue: Duration,
    /// How long its batch ran.
    pub compute: Duration,
    /// How many rows the batch had.
    pub batch_size: usize,
}

/// An answer that is on its way. Dropping it takes the entry out of the queue.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<Answer>>,
    key: Key,
    shared: Arc<Shared>,
}

/// The running scheduler. Dropping it lets the instances finish what is queued and end.
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    instances: Mutex<Vec<JoinHandle<()>>>,
    instance_count: usize,
}

/// What the handle and the instances have in common.
#[derive(Debug)]
struct Shared {
    options: SchedulerOptions,
    queue: Queue<Entry>,
    admission: Arc<Admission>,
    recorder: Recorder,
    metrics: ModelMetrics,
    /// Entries that failed alone since one was answered.
    failures: AtomicU32,
    last_failure: Mutex<Option<Failure>>,
}

#[derive(Debug)]
struct Entry {
    rows: Tensor,
    arrived: Instant,
    trace: Trace,
    answer: oneshot::Sender<Result<Answer>>,
}

impl Scheduler {
    /// Starts one thread for each of `instances`. `measured` is what warm-up measured: sizes of batches and their times.
    ///
    /// # Errors
    /// `Internal` when a thread cannot be started.
    pub fn start<B: Backend + 'static>(
        name: &str,
        instances: Vec<Instance<B>>,
        options: SchedulerOptions,
        metrics: ModelMetrics,
        measured: &[(usize, Duration)],
    ) -> Result<Self> {
        let instance_count = instances.len();
        let times = ServiceTimes::new(options.policy.max_batch_size, measured);
        let expected = times.of(options.policy.max_batch_size);
        let devices = instances.iter().map(|instance| &instance.device);
        let (turns, parallelism) = share_devices(devices, options.threads, expected);
        let shared = Arc::new(Shared {
            queue: Queue::new(options.policy, instance_count),
            admission: Arc::new(Admission::new(options.clone(), instance_count, parallelism, times, metrics.clone())),
            options,
            recorder: Recorder::default(),
            metrics,
            failures: AtomicU32::new(0),
            last_failure: Mutex::default(),
        });
        let scheduler = Self {
            shared: Arc::clone(&shared),
            instances: Mutex::new(Vec::with_capacity(instance_count)),
            instance_count,
        };
        for (index, (instance, share)) in instances.into_iter().zip(turns).enumerate() {
            let shared = Arc::clone(&shared);
            let backend = Box::new(instance.backend);
            let thread = std::thread::Builder::new()
                .name(format!("{name}#{index}"))
                .spawn(move || instance::run(&shared, index, &share, backend))
                .map_err(|error| Error::internal("a thread for an instance cannot be started").with_source(error))?;
            scheduler.instances.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(scheduler)
    }

    /// Takes places and bytes for a request.
    ///
    /// # Errors
    /// `Overloaded` at once, with the time after which a retry makes sense, when there are not enough places or bytes, or when
    /// by the measured times the work ahead of the request will take past its deadline. `InvalidArgument` for more rows than
    /// there are places at all, `PayloadTooLarge` for more bytes.
    pub fn admit(&self, demand: Demand) -> Result<Permit> {
        self.shared.admission.admit(demand)
    }

    /// Puts rows into the queue.
    ///
    /// # Errors
    /// `Unavailable` once the scheduler is closed.
    pub fn submit(&self, submission: Submission) -> Result<Pending> {
        let (sender, answer) = oneshot::channel();
        let arrived = Instant::now();
        let shape = submission.rows.shape();
        let rows = shape[0];
        let ticket = Ticket {
            priority: submission.priority,
            deadline: submission.deadline,
            arrived,
            rows,
            row_shape: shape[1..].to_vec(),
        };
        // Counted before it can be taken out again.
        self.shared.show_depth(rows as i64);
        let entry = Entry { rows: submission.rows, arrived, trace: submission.trace, answer: sender };
        match self.shared.queue.push(ticket, entry) {
            Ok(key) => Ok(Pending { answer, key, shared: Arc::clone(&self.shared) }),
            Err(queue::Closed) => {
                self.shared.show_depth(-(rows as i64));
                Err(Error::unavailable("the model is being unloaded or the server is shutting down"))
            }
        }
    }

    /// How many instances there are.
    pub fn instance_count(&self) -> usize {
        self.instance_count
    }

    /// The bounds and rules.
    pub fn options(&self) -> &SchedulerOptions {
        &self.shared.options
    }

    /// How many entries have failed in a row, each in a run of its own.
    pub fn consecutive_failures(&self) -> u32 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Counts a request that ended after `took`, in the statistics and the metrics alike.
    pub fn record_request(&self, protocol: &str, outcome: Outcome, took: Duration, trace: &Trace) {
        self.shared.metrics.record_request(protocol, outcome, took, trace);
        self.shared.recorder.record_request(outcome == Outcome::Success, took);
    }

    /// Counts what was looked up in the response cache, in the statistics and the metrics alike.
    pub fn record_lookup(&self, is_hit: bool, took: Duration) {
        self.shared.metrics.cache.record_lookup(is_hit, took);
        self.shared.recorder.record_lookup(is_hit, took);
    }

    /// Adds to the misses' time what it took to put an answer into the response cache.
    pub fn record_insertion(&self, took: Duration) {
        self.shared.metrics.cache.record_insertion(took);
        self.shared.recorder.record_insertion(took);
    }

    /// The counters of what ran and of the requests recorded.
    pub fn statistics(&self) -> Statistics {
        self.shared.recorder.snapshot()
    }

    /// The model's metrics.
    pub fn metrics(&self) -> &ModelMetrics {
        &self.shared.metrics
    }

    /// Holds no batch back any more. Work is still taken, from requests that came before; there will be none after them.
    pub fn drain(&self) {
        self.shared.queue.drain();
    }

    /// Refuses new work, lets the instances finish what is queued, and waits until they have ended. Blocks.
    pub fn close(&self) {
        self.shared.queue.close();
        let threads = std::mem::take(&mut *self.instances.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // Instances catch every panic; one that panicked all the same has said so on stderr.
            drop(thread.join());
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Pending {
    /// Blocks until the answer is there: for threads that run no tasks.
    ///
    /// # Errors
    /// The entry's own.
    pub fn wait(mut self) -> Result<Answer> {
        let (_, nothing) = oneshot::channel();
        std::mem::replace(&mut self.answer, nothing).blocking_recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Future for Pending {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answered| answered.unwrap_or_else(|_| Err(ended())))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // An entry that was answered is not in the queue, and need not be looked for there.
        if !self.answer.is_terminated()
            && let Some(entry) = self.shared.queue.remove(self.key)
        {
            self.shared.show_left(&[entry]);
        }
    }
}

impl Shared {
    /// Says that entries have left the queue.
    fn show_left(&self, entries: &[Entry]) {
        let rows: usize = entries.iter().map(|entry| entry.rows.shape()[0]).sum();
        self.show_depth(-(rows as i64));
    }

    /// Adds to the gauges, so that it does not matter in which order the changes of several threads arrive.
    fn show_depth(&self, change: i64) {
        self.metrics.queue_depth.add(change);
        self.metrics.nv_pending.add(change);
    }

    /// Counts a batch that ran, in the statistics and the metrics alike; `waits` is the time that each of its rows waited.
    fn record_batch(&self, waits: &[Duration], times: BatchTimes) {
        self.metrics.record_batch(waits.len(), waits.iter().copied(), times);
        self.recorder.record_batch(waits.len(), waits.iter().sum(), times);
    }
}

fn ended() -> Error {
    Error::internal("the model's instance ended without an answer")
}

/// The model's share in the device of each instance, and how many of them can run at a time.
fn share_devices<'a>(
    devices: impl Iterator<Item = &'a Arc<Device>>,
    threads: usize,
    expected: Duration,
) -> (Vec<Arc<Share>>, usize) {
    let mut known: Vec<(&Arc<Device>, Arc<Share>, usize)> = Vec::new();
    let mut shares = Vec::new();
    for device in devices {
        let index = known.iter().position(|(other, ..)| Arc::ptr_eq(other, device)).unwrap_or_else(|| {
            known.push((device, Arc::new(Share::new(device, threads, expected)), 0));
            known.len() - 1
        });
        known[index].2 += 1;
        shares.push(Arc::clone(&known[index].1));
    }
    let parallelism = known.iter().map(|(device, _, instances)| device.runs(threads).min(*instances)).sum();
    (shares, parallelism)
}
