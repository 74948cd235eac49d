//! The batching decision, pure: no clock, no channel, no thread. The caller says what time it is.
//!
//! Entries wait ordered by priority, then deadline, then arrival. The batcher is work-conserving: with no delay set, whatever
//! waits is given out at once, up to the largest batch.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// When batches are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The most rows in a batch; at least 1.
    pub max_batch_size: usize,
    /// How long the oldest entry may be held back so that a batch can fill. Zero: never.
    pub max_queue_delay: Duration,
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

/// What an idle instance should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<T> {
    /// Run these, in this order.
    Run(Vec<T>),
    /// Wait until then, or until something joins the queue.
    WaitUntil(Instant),
    /// Nothing waits.
    Idle,
}

/// Why an entry left the queue without running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// Its deadline passed.
    Expired,
    /// Nobody waits for its answer.
    Gone,
}

/// Entries that wait, and the rule that makes batches of them.
#[derive(Debug)]
pub struct Batcher<T> {
    policy: Policy,
    waiting: BTreeMap<Order, (Ticket, T)>,
    rows: usize,
    arrivals: u64,
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
        Self { policy, waiting: BTreeMap::new(), rows: 0, arrivals: 0 }
    }

    /// Adds an entry.
    pub fn push(&mut self, ticket: Ticket, item: T) {
        let order = Order {
            priority: ticket.priority,
            without_deadline: ticket.deadline.is_none(),
            deadline: ticket.deadline,
            arrival: self.arrivals,
        };
        self.arrivals += 1;
        self.rows += ticket.rows;
        self.waiting.insert(order, (ticket, item));
    }

    /// The number of rows that wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes out the entries that must not cost a run: expired ones, and those that `gone` says nobody waits for.
    pub fn sweep(&mut self, now: Instant, gone: impl Fn(&T) -> bool) -> Vec<(Removed, T)> {
        let removed: Vec<_> = self
            .waiting
            .iter()
            .filter_map(|(order, (ticket, item))| {
                if gone(item) {
                    Some((*order, Removed::Gone))
                } else if ticket.deadline.is_some_and(|deadline| deadline <= now) {
                    Some((*order, Removed::Expired))
                } else {
                    None
                }
            })
            .collect();
        removed.into_iter().filter_map(|(order, why)| self.remove(order).map(|item| (why, item))).collect()
    }

    /// What an idle instance should do, when `idle` instances are (itself among them).
    ///
    /// Several idle instances share what waits evenly rather than one taking it all.
    pub fn next(&mut self, now: Instant, idle: usize) -> Decision<T> {
        let Some((first, _)) = self.waiting.values().next() else {
            return Decision::Idle;
        };
        if self.rows < self.policy.max_batch_size && !self.policy.max_queue_delay.is_zero() {
            let oldest = self.waiting.values().map(|(ticket, _)| ticket.arrived).min().unwrap_or(now);
            let until = oldest + self.policy.max_queue_delay;
            if now < until {
                return Decision::WaitUntil(until);
            }
        }
        let share = self.rows.div_ceil(idle.max(1)).min(self.policy.max_batch_size);
        let row_shape = first.row_shape.clone();
        let mut batch = Vec::new();
        let mut rows = 0;
        for (order, (ticket, _)) in &self.waiting {
            if ticket.row_shape != row_shape {
                continue;
            }
            // The first is always taken, whatever the share; a later one that does not fit ends the batch, so that nobody
            // is overtaken by smaller entries behind.
            if !batch.is_empty() && rows + ticket.rows > share {
                break;
            }
            rows += ticket.rows;
            batch.push(*order);
        }
        Decision::Run(batch.into_iter().filter_map(|order| self.remove(order)).collect())
    }

    fn remove(&mut self, order: Order) -> Option<T> {
        let (ticket, item) = self.waiting.remove(&order)?;
        self.rows -= ticket.rows;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue whose clock starts at an arbitrary instant, with times in milliseconds after it.
    struct Table {
        start: Instant,
        batcher: Batcher<&'static str>,
    }

    impl Table {
        fn new(max_batch_size: usize, delay_ms: u64) -> Self {
            let policy = Policy { max_batch_size, max_queue_delay: Duration::from_millis(delay_ms) };
            Self { start: Instant::now(), batcher: Batcher::new(policy) }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn push(&mut self, name: &'static str, arrived: u64, rows: usize, priority: u32, deadline: Option<u64>) {
            self.push_shaped(name, arrived, rows, priority, deadline, &[3, 2, 2]);
        }

        fn push_shaped(
            &mut self,
            name: &'static str,
            arrived: u64,
            rows: usize,
            priority: u32,
            deadline: Option<u64>,
            shape: &[usize],
        ) {
            let ticket = Ticket {
                priority,
                deadline: deadline.map(|ms| self.at(ms)),
                arrived: self.at(arrived),
                rows,
                row_shape: shape.to_vec(),
            };
            self.batcher.push(ticket, name);
        }

        fn next(&mut self, ms: u64, idle: usize) -> Decision<&'static str> {
            let now = self.at(ms);
            self.batcher.next(now, idle)
        }
    }

    #[test]
    fn what_waits_is_given_out_at_once_up_to_the_largest_batch() {
        let mut table = Table::new(2, 0);
        assert_eq!(table.next(0, 1), Decision::Idle);
        for name in ["a", "b", "c"] {
            table.push(name, 0, 1, 1, None);
        }
        assert_eq!(table.next(0, 1), Decision::Run(vec!["a", "b"]));
        assert_eq!(table.next(0, 1), Decision::Run(vec!["c"]));
        assert_eq!(table.next(0, 1), Decision::Idle);
        assert_eq!(table.batcher.rows(), 0);
    }

    #[test]
    fn order_is_priority_then_deadline_then_arrival() {
        let mut table = Table::new(1, 0);
        table.push("late, no deadline", 0, 1, 2, None);
        table.push("second class, urgent", 1, 1, 2, Some(50));
        table.push("first class, no deadline", 2, 1, 1, None);
        table.push("first class, no deadline, later", 3, 1, 1, None);
        table.push("first class, lax", 4, 1, 1, Some(900));
        table.push("first class, urgent", 5, 1, 1, Some(100));
        let mut seen = Vec::new();
        while let Decision::Run(batch) = table.next(10, 1) {
            seen.extend(batch);
        }
        assert_eq!(
            seen,
            [
                "first class, urgent",
                "first class, lax",
                "first class, no deadline",
                "first class, no deadline, later",
                "second class, urgent",
                "late, no deadline"
            ]
        );
    }

    #[test]
    fn a_delay_holds_back_only_small_batches_and_only_so_long() {
        let mut table = Table::new(3, 10);
        table.push("a", 0, 1, 1, None);
        assert_eq!(table.next(1, 1), Decision::WaitUntil(table.at(10)));
        table.push("b", 5, 1, 1, None);
        assert_eq!(table.next(9, 1), Decision::WaitUntil(table.at(10)));
        assert_eq!(table.next(10, 1), Decision::Run(vec!["a", "b"]));
        for name in ["c", "d", "e", "f"] {
            table.push(name, 20, 1, 1, None);
        }
        assert_eq!(table.next(20, 1), Decision::Run(vec!["c", "d", "e"]));
        assert_eq!(table.next(20, 1), Decision::WaitUntil(table.at(30)));
    }

    #[test]
    fn idle_instances_share_evenly() {
        let mut table = Table::new(8, 0);
        for name in ["a", "b", "c", "d", "e"] {
            table.push(name, 0, 1, 1, None);
        }
        assert_eq!(table.next(0, 2), Decision::Run(vec!["a", "b", "c"]));
        assert_eq!(table.next(0, 1), Decision::Run(vec!["d", "e"]));
    }

    #[test]
    fn an_entry_of_several_rows_stays_whole_and_is_not_overtaken() {
        let mut table = Table::new(4, 0);
        table.push("a", 0, 3, 1, None);
        table.push("b", 0, 2, 1, None);
        table.push("c", 0, 1, 1, None);
        assert_eq!(table.next(0, 1), Decision::Run(vec!["a"]));
        assert_eq!(table.next(0, 1), Decision::Run(vec!["b", "c"]));
        table.push("whole", 0, 4, 1, None);
        assert_eq!(table.next(0, 4), Decision::Run(vec!["whole"]));
    }

    #[test]
    fn only_rows_of_one_shape_share_a_batch() {
        let mut table = Table::new(4, 0);
        table.push_shaped("a", 0, 1, 1, None, &[3, 2, 2]);
        table.push_shaped("b", 0, 1, 1, None, &[3, 4, 4]);
        table.push_shaped("c", 0, 1, 1, None, &[3, 2, 2]);
        assert_eq!(table.next(0, 1), Decision::Run(vec!["a", "c"]));
        assert_eq!(table.next(0, 1), Decision::Run(vec!["b"]));
    }

    #[test]
    fn expired_and_gone_entries_leave_before_they_cost_anything() {
        let mut table = Table::new(4, 0);
        table.push("expired", 0, 2, 1, Some(5));
        table.push("gone", 0, 1, 1, None);
        table.push("alive", 0, 1, 1, Some(6));
        let now = table.at(5);
        let removed = table.batcher.sweep(now, |&name| name == "gone");
        assert_eq!(removed, [(Removed::Expired, "expired"), (Removed::Gone, "gone")]);
        assert_eq!(table.batcher.rows(), 1);
        assert_eq!(table.next(5, 1), Decision::Run(vec!["alive"]));
    }
}
