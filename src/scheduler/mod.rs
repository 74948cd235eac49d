//! The scheduler of one model version: admission, a bounded queue, and the instances that empty it in batches.
//!
//! It sees tensors, never pictures, and knows no protocol.

pub mod batcher;
mod instance;
pub mod statistics;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use self::batcher::{Batcher, Decision, Policy, Removed, Ticket};
pub use self::instance::Backend;
use self::statistics::{Recorder, Statistics};
use crate::error::{Error, Result};
use crate::telemetry::{BatchTimes, ModelMetrics, Outcome};
use crate::tensor::Tensor;

/// The bounds and rules of one model's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// When batches are made.
    pub policy: Policy,
    /// How many rows may be admitted beyond those that the instances can run at once.
    pub queue_size: usize,
    /// The batch that the graph insists on; smaller ones are filled up with zero rows.
    pub fixed_batch: Option<usize>,
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

/// A place for some rows in the model. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    permit: OwnedSemaphorePermit,
    shared: Arc<Shared>,
}

/// The running scheduler. Dropping it lets the instances finish what is queued and end.
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    total_places: usize,
    instances: Mutex<Vec<JoinHandle<()>>>,
    instance_count: usize,
}

/// What the handle and the instances have in common.
#[derive(Debug)]
struct Shared {
    options: SchedulerOptions,
    queue: Mutex<Queue>,
    wake: Condvar,
    recorder: Recorder,
    metrics: ModelMetrics,
    /// A moving average of the time that a row takes, in nanoseconds: what waiting times are estimated from.
    row_ns: AtomicU64,
    /// Entries that failed alone since one was answered.
    failures: AtomicU32,
}

#[derive(Debug)]
struct Queue {
    batcher: Batcher<Entry>,
    /// Instances that wait for work.
    idle: usize,
    /// No batch is held back any more: nothing will come that it could wait for.
    draining: bool,
    closed: bool,
    /// The depth that the metrics were told of. They are told of differences, since while a model is replaced the queues of
    /// both share its gauges.
    shown: usize,
}

#[derive(Debug)]
struct Entry {
    rows: Tensor,
    arrived: Instant,
    answer: oneshot::Sender<Result<Answer>>,
}

impl Scheduler {
    /// Starts one thread for each backend. `row_time` is what warm-up measured for one row.
    ///
    /// # Errors
    /// `Internal` when a thread cannot be started.
    pub fn start(
        name: &str,
        backends: Vec<Box<dyn Backend>>,
        options: SchedulerOptions,
        metrics: ModelMetrics,
        row_time: Duration,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            options,
            queue: Mutex::new(Queue {
                batcher: Batcher::new(options.policy),
                idle: 0,
                draining: false,
                closed: false,
                shown: 0,
            }),
            wake: Condvar::new(),
            recorder: Recorder::default(),
            metrics,
            row_ns: AtomicU64::new(u64::try_from(row_time.as_nanos()).unwrap_or(u64::MAX)),
            failures: AtomicU32::new(0),
        });
        let instance_count = backends.len();
        let total_places = options.queue_size + instance_count * options.policy.max_batch_size;
        let scheduler = Self {
            shared: Arc::clone(&shared),
            places: Arc::new(Semaphore::new(total_places)),
            total_places,
            instances: Mutex::new(Vec::with_capacity(instance_count)),
            instance_count,
        };
        for (index, backend) in backends.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("{name}#{index}"))
                .spawn(move || instance::run(&shared, backend))
                .map_err(|error| Error::internal("a thread for an instance cannot be started").with_source(error))?;
            scheduler.instances.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(scheduler)
    }

    /// Takes places for `rows` rows, for work that should be done by `deadline`.
    ///
    /// # Errors
    /// `Overloaded` at once when there are not enough places, or when the work ahead will, by the measured time for a row,
    /// take past the deadline; `InvalidArgument` for more rows than there are places at all.
    pub fn admit(&self, rows: usize, deadline: Option<Instant>) -> Result<Permit> {
        if rows > self.total_places {
            return Err(Error::invalid(format!(
                "the request has {rows} rows, but the model takes at most {} at a time",
                self.total_places
            )));
        }
        self.check_deadline(0, deadline)?;
        match Arc::clone(&self.places).try_acquire_many_owned(u32::try_from(rows).unwrap_or(u32::MAX)) {
            Ok(permit) => {
                self.shared.metrics.in_flight.add(rows as i64);
                Ok(Permit { permit, shared: Arc::clone(&self.shared) })
            }
            Err(TryAcquireError::NoPermits) => {
                let wait = self.estimated_wait(self.taken_places());
                Err(Error::overloaded("the model's queue is full").with_retry_after(wait))
            }
            Err(TryAcquireError::Closed) => Err(closed()),
        }
    }

    /// Refuses a request whose `deadline` the work ahead of it, by the measured time for a row, will not let it meet. `held`
    /// of the places that are taken are the request's own.
    ///
    /// # Errors
    /// `Overloaded`, with the time after which the work ahead should be done.
    pub fn check_deadline(&self, held: usize, deadline: Option<Instant>) -> Result<()> {
        let ahead = self.taken_places().saturating_sub(held);
        let wait = self.estimated_wait(ahead);
        // With nothing ahead the estimate is only of the run itself; refusing then could refuse for ever, as no run would
        // correct an estimate that is too high.
        match deadline {
            Some(deadline) if ahead > 0 && Instant::now() + wait + self.row_time() > deadline => {
                Err(Error::overloaded("the request's deadline cannot be met with the work ahead of it")
                    .with_retry_after(wait))
            }
            _ => Ok(()),
        }
    }

    /// Puts rows into the queue. The receiver gets the answer; dropping it takes the entry out again.
    ///
    /// # Errors
    /// `Unavailable` once the scheduler is closed.
    pub fn submit(&self, submission: Submission) -> Result<oneshot::Receiver<Result<Answer>>> {
        let (answer, receiver) = oneshot::channel();
        let arrived = Instant::now();
        let shape = submission.rows.shape();
        let ticket = Ticket {
            priority: submission.priority,
            deadline: submission.deadline,
            arrived,
            rows: shape[0],
            row_shape: shape[1..].to_vec(),
        };
        let mut queue = self.shared.lock();
        if queue.closed {
            return Err(closed());
        }
        queue.batcher.push(ticket, Entry { rows: submission.rows, arrived, answer });
        self.shared.show_depth(&mut queue);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(receiver)
    }

    /// How many entries have failed in a row, each in a run of its own.
    pub fn consecutive_failures(&self) -> u32 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// How many instances there are.
    pub fn instance_count(&self) -> usize {
        self.instance_count
    }

    /// The bounds and rules.
    pub fn options(&self) -> &SchedulerOptions {
        &self.shared.options
    }

    /// Counts a request that ended after `took`, in the statistics and the metrics alike.
    pub fn record_request(&self, protocol: &str, outcome: Outcome, took: Duration) {
        self.shared.metrics.record_request(protocol, outcome, took);
        self.shared.recorder.record_request(outcome == Outcome::Success, took);
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
        self.shared.lock().draining = true;
        self.shared.wake.notify_all();
    }

    /// Refuses new work, lets the instances finish what is queued, and waits until they have ended. Blocks.
    pub fn close(&self) {
        self.shared.close();
        let threads = std::mem::take(&mut *self.instances.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // Instances catch their backends' panics; one that panicked all the same has said so on stderr.
            drop(thread.join());
        }
    }

    fn taken_places(&self) -> usize {
        self.total_places - self.places.available_permits()
    }

    /// How long a row would wait with `ahead` rows before it, by the time that rows have been taking.
    fn estimated_wait(&self, ahead: usize) -> Duration {
        self.row_time() * u32::try_from(ahead).unwrap_or(u32::MAX)
            / u32::try_from(self.instance_count.max(1)).unwrap_or(1)
    }

    fn row_time(&self) -> Duration {
        Duration::from_nanos(self.shared.row_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Permit {
    /// The number of rows that there are places for.
    pub fn rows(&self) -> usize {
        self.permit.num_permits()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.metrics.in_flight.sub(self.permit.num_permits() as i64);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is changed by whole operations only, so a panic elsewhere leaves it whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_depth(&self, queue: &mut Queue) {
        let depth = queue.batcher.rows();
        let difference = depth as i64 - queue.shown as i64;
        self.metrics.queue_depth.add(difference);
        self.metrics.nv_pending.add(difference);
        queue.shown = depth;
    }

    fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// The next batch for an instance; blocks until there is one. `None` when the queue is closed and empty.
    fn next_batch(&self) -> Option<Vec<Entry>> {
        let mut queue = self.lock();
        queue.idle += 1;
        let batch = loop {
            let now = Instant::now();
            let removed = queue.batcher.sweep(now, |entry| entry.answer.is_closed());
            if !removed.is_empty() {
                self.show_depth(&mut queue);
            }
            for (why, entry) in removed {
                if why == Removed::Expired {
                    // The receiver may have gone in this very moment: then nobody needs the answer.
                    drop(
                        entry.answer.send(Err(Error::deadline_exceeded("the request's deadline passed in the queue"))),
                    );
                }
            }
            let idle = queue.idle;
            queue = match queue.batcher.next(now, idle) {
                Decision::Run(batch) => {
                    if queue.batcher.rows() > 0 {
                        self.wake.notify_one();
                    }
                    break Some(batch);
                }
                Decision::WaitUntil(until) if !queue.closed && !queue.draining => {
                    let wait = until.saturating_duration_since(now);
                    self.wake.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                Decision::WaitUntil(until) => {
                    // Nothing will join, so waiting for more is pointless.
                    match queue.batcher.next(until, idle) {
                        Decision::Run(batch) => break Some(batch),
                        _ if queue.closed => break None,
                        _ => queue,
                    }
                }
                Decision::Idle if queue.closed => break None,
                Decision::Idle => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        };
        queue.idle -= 1;
        self.show_depth(&mut queue);
        batch
    }

    /// Counts a batch that ran, in the statistics and the metrics alike; `waits` is the time that each of its rows waited.
    fn record_batch(&self, waits: &[Duration], times: BatchTimes) {
        self.metrics.record_batch(waits.len(), waits.iter().copied(), times);
        self.recorder.record_batch(waits.len(), waits.iter().sum(), times);
    }

    /// Folds a measured time for a row into the moving average.
    fn observe_row_time(&self, time: Duration) {
        let measured = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let average = self.row_ns.load(Ordering::Relaxed);
        // An eighth of the new value: a single slow run does not make the server refuse work.
        self.row_ns.store(average - average / 8 + measured / 8, Ordering::Relaxed);
    }
}

fn closed() -> Error {
    Error::unavailable("the model is being unloaded or the server is shutting down")
}
