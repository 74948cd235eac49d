//! The batching decision, pure: no clock, no channel, no thread. The caller says what time it is.
//!
//! Entries wait ordered by priority, then deadline, then arrival. The batcher is work-conserving: with no delay set, whatever
//! waits is given out at once, up to the largest batch. So that nothing waits for ever behind what is more urgent, every
//! fourth batch goes to what is overdue.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Of so many batches one goes to the overdue entries, oldest first, where there are any. A quarter of the work is enough for
/// them to come to an end, and what is urgent never loses more than that: its waiting time grows by a third at most.
const AGED_EVERY: u32 = 4;

/// When batches are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The most rows in a batch; at least 1.
    pub max_batch_size: usize,
    /// How long the oldest entry may be held back so that a batch can fill. Zero: never.
    pub max_queue_delay: Duration,
    /// How long an entry waits before it is overdue. Zero: no entry ever is, and urgent ones can keep out others for ever.
    pub max_priority_wait: Duration,
}

/// What the batcher needs to know of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// 1 is the most urgent.
    pub priority: u32,
    /// After this the answer is of no use.
    pub deadline: Option<Instant>,
    /// When it joined the queue.
    pub arrived: Instant,
    /// How many rows it has; at most the largest batch.
    pub rows: usize,
    /// The shape of one row: only equal ones share a batch.
    pub row_shape: Vec<usize>,
}

/// Names an entry that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(Order);

/// When there is a batch to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// Then, or when enough has joined the queue.
    At(Instant),
    /// When something joins the queue.
    Never,
}

/// Entries that wait, and the rule that makes batches of them.
#[derive(Debug)]
pub struct Batcher<T> {
    policy: Policy,
    waiting: BTreeMap<Order, (Ticket, T)>,
    /// The same entries by arrival.
    arrivals: BTreeMap<u64, Order>,
    rows: usize,
    next_arrival: u64,
    batches: u32,
}

/// The queue's order. `Option`'s own order would put "no deadline" first, so the deadline comes with a flag before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    priority: u32,
    without_deadline: bool,
    deadline: Option<Instant>,
    arrival: u64,
}

impl<T> Batcher<T> {
    /// An empty queue.
    pub fn new(policy: Policy) -> Self {
        Self { policy, waiting: BTreeMap::new(), arrivals: BTreeMap::new(), rows: 0, next_arrival: 0, batches: 0 }
    }

    /// Adds an entry.
    pub fn push(&mut self, ticket: Ticket, item: T) -> Key {
        let order = Order {
            priority: ticket.priority,
            without_deadline: ticket.deadline.is_none(),
            deadline: ticket.deadline,
            arrival: self.next_arrival,
        };
        self.next_arrival += 1;
        self.rows += ticket.rows;
        self.arrivals.insert(order.arrival, order);
        self.waiting.insert(order, (ticket, item));
        Key(order)
    }

    /// Takes an entry out, if it still waits.
    pub fn remove(&mut self, Key(order): Key) -> Option<T> {
        let (ticket, item) = self.waiting.remove(&order)?;
        self.arrivals.remove(&order.arrival);
        self.rows -= ticket.rows;
        Some(item)
    }

    /// Takes out the entries whose deadline has passed: they must not cost a run.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        let is_expired = |order: &&Order| order.deadline.is_some_and(|deadline| deadline <= now);
        let expired: Vec<_> = self.waiting.keys().filter(is_expired).copied().collect();
        expired.into_iter().filter_map(|order| self.remove(Key(order))).collect()
    }

    /// How many rows wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// When there is a batch to take.
    pub fn due(&self, now: Instant) -> Due {
        let Some(oldest) = self.oldest() else { return Due::Never };
        if self.rows >= self.policy.max_batch_size || self.policy.max_queue_delay.is_zero() {
            return Due::Now;
        }
        let until = oldest.arrived + self.policy.max_queue_delay;
        if now < until { Due::At(until) } else { Due::Now }
    }

    /// The next batch, in the order in which its entries should run; empty when nothing waits.
    ///
    /// `sharers` instances could run now, the caller's among them: they share what waits evenly rather than one taking it all. Where
    /// batches are given time to fill they are not split again: what is left would have to wait for its time to be over.
    pub fn take(&mut self, now: Instant, sharers: usize) -> Vec<T> {
        let sharers = if self.policy.max_queue_delay.is_zero() { sharers.max(1) } else { 1 };
        let share = self.rows.div_ceil(sharers).min(self.policy.max_batch_size);
        self.batches = (self.batches + 1) % AGED_EVERY;
        let batch = if self.batches == 0 && self.oldest().is_some_and(|ticket| self.is_overdue(ticket, now)) {
            self.fill(share, self.arrivals.values())
        } else {
            self.fill(share, self.waiting.keys())
        };
        batch.into_iter().filter_map(|order| self.remove(Key(order))).collect()
    }

    /// The first of `orders` that make a batch of at most `share` rows of one shape.
    fn fill<'a>(&self, share: usize, orders: impl Iterator<Item = &'a Order>) -> Vec<Order> {
        let mut batch = Vec::new();
        let mut row_shape: Option<&[usize]> = None;
        let mut rows = 0;
        for order in orders {
            let ticket = &self.waiting[order].0;
            if *row_shape.get_or_insert(&ticket.row_shape) != ticket.row_shape {
                continue;
            }
            // The first is always taken, whatever the share; a later one that does not fit ends the batch, so that nobody
            // is overtaken by smaller entries behind.
            if !batch.is_empty() && rows + ticket.rows > share {
                break;
            }
            rows += ticket.rows;
            batch.push(*order);
            if rows >= share {
                break;
            }
        }
        batch
    }

    fn oldest(&self) -> Option<&Ticket> {
        let order = self.arrivals.values().next()?;
        Some(&self.waiting[order].0)
    }

    fn is_overdue(&self, ticket: &Ticket, now: Instant) -> bool {
        let limit = self.policy.max_priority_wait;
        !limit.is_zero() && now.saturating_duration_since(ticket.arrived) >= limit
    }
}
