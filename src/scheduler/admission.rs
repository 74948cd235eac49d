//! What a model has admitted, and whether it can take more: places, bytes, and the time that the work ahead will take.
//!
//! Everything here is arithmetic under one short lock. Nothing waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::SchedulerOptions;
use super::calibration::Calibration;
use super::service_times::ServiceTimes;
use crate::error::{Error, Result};
use crate::telemetry::{ModelMetrics, Refusal};

/// Deadlines that lie closer together than this are taken for the same, so that the sum over the rows ahead is short.
const DEADLINE_STEP: Duration = Duration::from_millis(8);

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// How many rows it has.
    pub rows: usize,
    /// How many bytes it holds until it is answered.
    pub bytes: usize,
    /// 1 is the most urgent.
    pub priority: u32,
    /// After this the answer is of no use.
    pub deadline: Option<Instant>,
    /// What has to happen before its rows can be queued.
    pub preparation: Preparation,
}

/// The estimated time before a request's rows can be queued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preparation {
    /// Until what came before it is prepared.
    pub backlog: Duration,
    /// For the request itself.
    pub own: Duration,
}

/// Places and bytes that a request holds. Dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    demand: Demand,
    entered: Entered,
    answered: Mutex<Option<Answered>>,
}

/// What was so when a request got what it asked for.
#[derive(Debug, Clone, Copy)]
struct Entered {
    at: Instant,
    /// How many rows were more urgent.
    ahead: usize,
    /// How many rows the model had run.
    run: u64,
}

/// When a request was answered.
#[derive(Debug, Clone, Copy)]
struct Answered {
    at: Instant,
    /// How many rows the model had run.
    run: u64,
}

/// The book that a model keeps of what it has admitted.
#[derive(Debug)]
pub(super) struct Admission {
    places: usize,
    /// How many batches run at a time.
    parallelism: usize,
    options: SchedulerOptions,
    times: ServiceTimes,
    metrics: ModelMetrics,
    epoch: Instant,
    /// How many rows have been run.
    run: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    rows: usize,
    bytes: usize,
    by_urgency: BTreeMap<Urgency, usize>,
    calibration: Calibration,
}

/// Where rows stand in the queue's order. What is less comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Urgency {
    priority: u32,
    /// In steps since the scheduler started.
    deadline: u128,
}

impl Admission {
    pub(super) fn new(
        options: SchedulerOptions,
        instances: usize,
        parallelism: usize,
        times: ServiceTimes,
        metrics: ModelMetrics,
    ) -> Self {
        Self {
            places: options.queue_size + instances * options.policy.max_batch_size,
            parallelism: parallelism.max(1),
            options,
            times,
            metrics,
            epoch: Instant::now(),
            run: AtomicU64::new(0),
            book: Mutex::default(),
        }
    }

    pub(super) fn admit(self: &Arc<Self>, demand: Demand) -> Result<Permit> {
        let nothing = Demand { rows: 0, bytes: 0, ..demand };
        let entered = Entered { at: Instant::now(), ahead: 0, run: 0 };
        let mut permit = Permit { admission: Arc::clone(self), demand: nothing, entered, answered: Mutex::default() };
        permit.change(demand)?;
        Ok(permit)
    }

    pub(super) fn times(&self) -> &ServiceTimes {
        &self.times
    }

    /// How many rows and bytes are admitted, and how many may be.
    pub(super) fn load(&self) -> [(usize, usize); 2] {
        let book = self.lock();
        [(book.rows, self.places), (book.bytes, self.options.queue_bytes)]
    }

    /// Learns from a request that should have taken `expected` and took `took`.
    pub(super) fn observe(&self, expected: Duration, took: Duration) {
        self.lock().calibration.observe(expected, took);
    }

    /// Counts rows that were run.
    pub(super) fn count_run(&self, rows: usize) {
        self.run.fetch_add(rows as u64, Ordering::Relaxed);
    }

    fn check_size(&self, demand: &Demand) -> Result<()> {
        if demand.rows > self.places {
            return Err(Error::invalid(format!(
                "the request has {} rows, but the model takes at most {} at a time, which its batching.queue_size allows",
                demand.rows, self.places
            )));
        }
        if demand.bytes > self.options.queue_bytes {
            return Err(Error::too_large(format!(
                "the request takes {} bytes, but the model holds at most {} at a time",
                demand.bytes, self.options.queue_bytes
            )));
        }
        Ok(())
    }

    fn check_room(&self, book: &Book, demand: &Demand) -> Result<()> {
        let (reason, message) = if demand.rows > self.places - book.rows {
            (Refusal::QueueSize, "the model's queue is full")
        } else if demand.bytes > self.options.queue_bytes - book.bytes {
            (Refusal::QueueBytes, "the model holds as many bytes as it may")
        } else {
            return Ok(());
        };
        self.metrics.record_refusal(reason);
        Err(Error::overloaded(message).with_retry_after(self.wait(book.rows, 1)))
    }

    /// Refuses what will not be ready by its deadline with `ahead` rows before it.
    fn check_deadline(&self, calibration: &Calibration, ahead: usize, demand: &Demand) -> Result<()> {
        let Some(deadline) = demand.deadline else { return Ok(()) };
        let backlog = demand.preparation.backlog;
        // With nothing ahead the estimate is only of the request itself. Refusing then could refuse for ever, as nothing would
        // run that corrects an estimate which is too high.
        if ahead == 0 && backlog.is_zero() {
            return Ok(());
        }
        if Instant::now() + calibration.at_most(self.estimate(ahead, demand)) <= deadline {
            return Ok(());
        }
        self.metrics.record_refusal(Refusal::Deadline);
        let retry_after = self.wait(ahead, 1).max(backlog);
        Err(Error::overloaded("the request's deadline cannot be met with the work ahead of it")
            .with_retry_after(retry_after))
    }

    /// How long it takes until a request is answered that has `ahead` rows before it.
    fn estimate(&self, ahead: usize, demand: &Demand) -> Duration {
        let Preparation { backlog, own } = demand.preparation;
        // While it is prepared, the rows ahead run.
        self.wait(ahead, demand.rows).max(backlog + own) + self.batch_time(self.batch_rows(ahead + demand.rows))
    }

    /// How long it takes until the last of `rows` rows is run, with `ahead` before them: as many rounds of all instances as
    /// come before its own.
    fn wait(&self, ahead: usize, rows: usize) -> Duration {
        let batch = self.batch_rows(ahead + rows);
        let rounds = (ahead + rows.max(1) - 1) / (batch * self.parallelism);
        (self.batch_time(batch) + self.times.turn()).saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// The size of the batches that a backlog of `rows` rows runs in.
    fn batch_rows(&self, rows: usize) -> usize {
        rows.div_ceil(self.parallelism).clamp(1, self.options.policy.max_batch_size)
    }

    fn batch_time(&self, rows: usize) -> Duration {
        self.times.of(self.options.run_rows(rows))
    }

    fn urgency(&self, demand: &Demand) -> Urgency {
        let steps =
            |deadline: Instant| deadline.saturating_duration_since(self.epoch).as_nanos() / DEADLINE_STEP.as_nanos();
        Urgency { priority: demand.priority, deadline: demand.deadline.map_or(u128::MAX, steps) }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // The book is changed by whole operations only, so a panic elsewhere leaves it whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The number of rows that there are places for.
    pub fn rows(&self) -> usize {
        self.demand.rows
    }

    /// Asks for something else instead: for what was not known on arrival.
    ///
    /// # Errors
    /// As [`Scheduler::admit`](super::Scheduler::admit); the permit then stays as it is.
    pub fn change(&mut self, demand: Demand) -> Result<()> {
        let admission = &self.admission;
        admission.check_size(&demand)?;
        let urgency = admission.urgency(&demand);
        let mut book = admission.lock();
        book.take_out(admission.urgency(&self.demand), &self.demand);
        let ahead = book.rows_before(..=urgency);
        let checked = admission
            .check_deadline(&book.calibration, ahead, &demand)
            .and_then(|()| admission.check_room(&book, &demand));
        let held = if checked.is_ok() { demand } else { self.demand };
        if checked.is_ok() {
            self.entered = Entered { at: Instant::now(), ahead, run: admission.run.load(Ordering::Relaxed) };
        }
        book.enter(admission.urgency(&held), &held);
        drop(book);
        admission.metrics.in_flight.add(held.rows as i64 - self.demand.rows as i64);
        admission.metrics.queue_bytes.add(held.bytes as i64 - self.demand.bytes as i64);
        self.demand = held;
        checked
    }

    /// Looks once more whether the deadline can be met, if something has come in since that is more urgent. What was ahead on
    /// arrival is no reason to refuse a request later.
    ///
    /// # Errors
    /// `Overloaded` when it cannot.
    pub fn check(&self) -> Result<()> {
        let admission = &self.admission;
        let book = admission.lock();
        // Only what is surely before this request counts: others of its urgency may have come after it.
        let ahead = book.rows_before(..admission.urgency(&self.demand));
        if ahead <= self.entered.ahead {
            return Ok(());
        }
        let demand = Demand { preparation: Preparation::default(), ..self.demand };
        admission.check_deadline(&book.calibration, ahead, &demand)
    }

    /// Notes that the request has been answered, or part of it, or its time is over: estimates learn from how long that took.
    pub fn note_answer(&self) {
        let run = self.admission.run.load(Ordering::Relaxed);
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Answered { at: Instant::now(), run });
    }

    /// What the request took since it entered, beside what it should have taken with the rows before it that were really run,
    /// whichever had been expected. `None` where it was not answered.
    pub(super) fn outcome(&mut self) -> Option<(Duration, Duration)> {
        let Answered { at, run } = (*self.answered.get_mut().unwrap_or_else(PoisonError::into_inner))?;
        let rows = run.saturating_sub(self.entered.run) as usize;
        let expected = self.admission.estimate(rows.saturating_sub(self.demand.rows), &self.demand);
        Some((expected, at.saturating_duration_since(self.entered.at)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let outcome = self.outcome();
        let Self { admission, demand, .. } = self;
        admission.lock().take_out(admission.urgency(demand), demand);
        if let Some((expected, took)) = outcome {
            admission.observe(expected, took);
        }
        admission.metrics.in_flight.sub(demand.rows as i64);
        admission.metrics.queue_bytes.sub(demand.bytes as i64);
    }
}

impl Book {
    fn enter(&mut self, urgency: Urgency, demand: &Demand) {
        self.rows += demand.rows;
        self.bytes += demand.bytes;
        if demand.rows > 0 {
            *self.by_urgency.entry(urgency).or_default() += demand.rows;
        }
    }

    fn take_out(&mut self, urgency: Urgency, demand: &Demand) {
        self.rows -= demand.rows;
        self.bytes -= demand.bytes;
        if let Some(rows) = self.by_urgency.get_mut(&urgency) {
            *rows -= demand.rows;
            if *rows == 0 {
                self.by_urgency.remove(&urgency);
            }
        }
    }

    fn rows_before(&self, range: impl std::ops::RangeBounds<Urgency>) -> usize {
        self.by_urgency.range(range).map(|(_, rows)| rows).sum()
    }
}
