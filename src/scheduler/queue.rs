//! The queue between those who submit entries and the instances that take them in batches: the batcher behind a lock, and the
//! wake-ups.
//!
//! It knows neither what an entry is nor who runs it. `tests/interleavings.rs` checks every interleaving of it.

use std::time::Instant;

use super::batcher::{Batcher, Due, Key, Policy, Ticket};
use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

#[derive(Debug)]
struct State<T> {
    batcher: Batcher<T>,
    /// Instances that run no batch.
    idle: usize,
    /// No batch is held back any more: nothing will come that it could wait for.
    draining: bool,
    closed: bool,
}

/// Refused, because the queue is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

/// What an instance takes off the queue.
#[derive(Debug)]
pub(super) struct Taken<'q, T> {
    /// To be run, in this order. It may be empty: another instance was quicker.
    pub(super) batch: Vec<T>,
    /// To be answered only: their deadline has passed.
    pub(super) expired: Vec<T>,
    /// Dropped when the batch has run.
    pub(super) running: Option<Running<'q, T>>,
}

/// Counts the instance that runs a batch as busy.
#[derive(Debug)]
pub(super) struct Running<'q, T>(&'q Queue<T>);

impl<T> Queue<T> {
    /// An empty queue that `instances` instances will take from.
    pub(super) fn new(policy: Policy, instances: usize) -> Self {
        let state = State { batcher: Batcher::new(policy), idle: instances, draining: false, closed: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Adds an entry.
    pub(super) fn push(&self, ticket: Ticket, item: T) -> Result<Key, Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        let key = state.batcher.push(ticket, item);
        drop(state);
        self.wake.notify_one();
        Ok(key)
    }

    /// Takes out an entry that nobody waits for any more; `None` if an instance has taken it already.
    pub(super) fn remove(&self, key: Key) -> Option<T> {
        self.lock().batcher.remove(key)
    }

    /// Blocks until there is a batch to take. `false` when the queue is closed and empty: there will be none.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state = match state.batcher.due(now) {
                Due::Now => return true,
                Due::At(_) if state.draining => return true,
                Due::At(until) => {
                    let wait = until.saturating_duration_since(now);
                    self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                Due::Never if state.closed => return false,
                Due::Never => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Whether there is a batch to take.
    pub(super) fn is_due(&self) -> bool {
        self.lock().is_due(Instant::now())
    }

    /// How many rows wait, and how many instances run no batch.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.batcher.rows(), state.idle)
    }

    /// Has another instance look, since the one that was woken cannot take anything yet.
    pub(super) fn pass_on(&self) {
        self.wake.notify_one();
    }

    /// Takes the next batch, if it is due, when at most `sharers` instances can run now, the caller's among them.
    pub(super) fn take(&self, sharers: usize) -> Taken<'_, T> {
        let mut state = self.lock();
        let now = Instant::now();
        let expired = state.batcher.expire(now);
        let sharers = sharers.min(state.idle);
        let batch = if state.is_due(now) { state.batcher.take(now, sharers) } else { Vec::new() };
        let running = (!batch.is_empty()).then(|| Running(self));
        if running.is_some() {
            state.idle -= 1;
        }
        let has_more = state.batcher.due(now) != Due::Never;
        drop(state);
        // An instance that held back the batch for a while may have been woken by every push, and the others by none.
        if has_more {
            self.wake.notify_one();
        }
        Taken { batch, expired, running }
    }

    /// Holds no batch back any more.
    pub(super) fn drain(&self) {
        self.lock().draining = true;
        self.wake.notify_all();
    }

    /// Refuses what comes from now on. Instances still take what is there.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.closed = true;
        drop(state);
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The state is changed by whole operations only, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn is_due(&self, now: Instant) -> bool {
        match self.batcher.due(now) {
            Due::Now => true,
            Due::At(_) => self.draining,
            Due::Never => false,
        }
    }
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        self.0.lock().idle += 1;
    }
}
