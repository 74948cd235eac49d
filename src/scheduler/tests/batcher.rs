//! The batching rule as tables, and what holds for any sequence of arrivals.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::batcher::{Batcher, Due, Key, Policy, Ticket};

/// A queue whose clock starts at an arbitrary instant, with times in milliseconds after it.
struct Table {
    start: Instant,
    batcher: Batcher<&'static str>,
}

impl Table {
    fn new(max_batch_size: usize, delay_ms: u64) -> Self {
        let policy = Policy {
            max_batch_size,
            max_queue_delay: Duration::from_millis(delay_ms),
            max_priority_wait: Duration::from_secs(1),
        };
        Self { start: Instant::now(), batcher: Batcher::new(policy) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn push(&mut self, name: &'static str, arrived: u64, rows: usize, priority: u32, deadline: Option<u64>) -> Key {
        self.push_shaped(name, arrived, rows, priority, deadline, &[3, 2, 2])
    }

    fn push_shaped(
        &mut self,
        name: &'static str,
        arrived: u64,
        rows: usize,
        priority: u32,
        deadline: Option<u64>,
        shape: &[usize],
    ) -> Key {
        let ticket = Ticket {
            priority,
            deadline: deadline.map(|ms| self.at(ms)),
            arrived: self.at(arrived),
            rows,
            row_shape: shape.to_vec(),
        };
        self.batcher.push(ticket, name)
    }

    /// The next batch, which must be due.
    fn take(&mut self, ms: u64, sharers: usize) -> Vec<&'static str> {
        let now = self.at(ms);
        assert_eq!(self.batcher.due(now), Due::Now);
        self.batcher.take(now, sharers)
    }

    fn due(&self, ms: u64) -> Due {
        self.batcher.due(self.at(ms))
    }
}

#[test]
fn what_waits_is_given_out_at_once_up_to_the_largest_batch() {
    let mut table = Table::new(2, 0);
    assert_eq!(table.due(0), Due::Never);
    for name in ["a", "b", "c"] {
        table.push(name, 0, 1, 1, None);
    }
    assert_eq!(table.take(0, 1), ["a", "b"]);
    assert_eq!(table.take(0, 1), ["c"]);
    assert_eq!(table.due(0), Due::Never);
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
    while table.due(10) == Due::Now {
        seen.extend(table.take(10, 1));
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
    assert_eq!(table.due(1), Due::At(table.at(10)));
    table.push("b", 5, 1, 1, None);
    assert_eq!(table.due(9), Due::At(table.at(10)));
    assert_eq!(table.take(10, 1), ["a", "b"]);
    for name in ["c", "d", "e", "f"] {
        table.push(name, 20, 1, 1, None);
    }
    assert_eq!(table.take(20, 1), ["c", "d", "e"]);
    assert_eq!(table.due(20), Due::At(table.at(30)));
}

#[test]
fn a_batch_that_was_given_time_to_fill_is_not_split_again() {
    let mut table = Table::new(4, 10);
    for name in ["a", "b", "c", "d"] {
        table.push(name, 0, 1, 1, None);
    }
    assert_eq!(table.take(0, 2), ["a", "b", "c", "d"]);
    for name in ["e", "f"] {
        table.push(name, 1, 1, 1, None);
    }
    assert_eq!(table.take(11, 2), ["e", "f"]);
}

#[test]
fn idle_instances_share_evenly() {
    let mut table = Table::new(8, 0);
    for name in ["a", "b", "c", "d", "e"] {
        table.push(name, 0, 1, 1, None);
    }
    assert_eq!(table.take(0, 2), ["a", "b", "c"]);
    assert_eq!(table.take(0, 1), ["d", "e"]);
}

#[test]
fn an_entry_of_several_rows_stays_whole_and_is_not_overtaken() {
    let mut table = Table::new(4, 0);
    table.push("a", 0, 3, 1, None);
    table.push("b", 0, 2, 1, None);
    table.push("c", 0, 1, 1, None);
    assert_eq!(table.take(0, 1), ["a"]);
    assert_eq!(table.take(0, 1), ["b", "c"]);
    table.push("whole", 0, 4, 1, None);
    assert_eq!(table.take(0, 4), ["whole"]);
}

#[test]
fn only_rows_of_one_shape_share_a_batch() {
    let mut table = Table::new(4, 0);
    table.push_shaped("a", 0, 1, 1, None, &[3, 2, 2]);
    table.push_shaped("b", 0, 1, 1, None, &[3, 4, 4]);
    table.push_shaped("c", 0, 1, 1, None, &[3, 2, 2]);
    assert_eq!(table.take(0, 1), ["a", "c"]);
    assert_eq!(table.take(0, 1), ["b"]);
}

#[test]
fn expired_and_removed_entries_leave_before_they_cost_anything() {
    let mut table = Table::new(4, 0);
    table.push("expired", 0, 2, 1, Some(5));
    let removed = table.push("removed", 0, 1, 1, None);
    table.push("alive", 0, 1, 1, Some(6));
    assert_eq!(table.batcher.remove(removed), Some("removed"));
    assert_eq!(table.batcher.remove(removed), None);
    let now = table.at(5);
    assert_eq!(table.batcher.expire(now), ["expired"]);
    assert_eq!(table.take(5, 1), ["alive"]);
    assert_eq!(table.due(5), Due::Never);
}

#[test]
fn of_four_batches_one_goes_to_the_overdue_oldest_first() {
    let mut table = Table::new(2, 0);
    table.push("low, newer", 1, 1, 9, None);
    table.push("low", 2, 1, 7, None);
    let mut batches = Vec::new();
    for ms in (900..1500).step_by(100) {
        // The urgent ones alone would take every batch.
        for _ in 0..2 {
            table.push("urgent", ms, 1, 1, Some(ms + 50));
        }
        batches.push(table.take(ms, 1));
    }
    let urgent = ["urgent", "urgent"];
    // The fourth is the first at which somebody has waited for a second, and they go by arrival, not by priority.
    let expected: [&[_]; 6] = [&urgent, &urgent, &urgent, &["low, newer", "low"], &urgent, &urgent];
    assert_eq!(batches, expected);
}

#[test]
fn without_a_limit_to_their_wait_urgent_entries_keep_out_the_others() {
    let mut table = Table::new(1, 0);
    table.batcher =
        Batcher::new(Policy { max_batch_size: 1, max_queue_delay: Duration::ZERO, max_priority_wait: Duration::ZERO });
    table.push("low", 0, 1, 2, None);
    for ms in 10_000..10_020 {
        table.push("urgent", ms, 1, 1, None);
        assert_eq!(table.take(ms, 1), ["urgent"]);
    }
}

/// What happens to a queue: something comes, or an instance takes a batch.
#[derive(Debug, Clone)]
enum Event {
    Push { rows: usize, priority: u32, deadline_ms: Option<u64>, wide: bool },
    Take { sharers: usize },
    Remove { index: usize },
    Pass { ms: u64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let push = (1..=MAX_BATCH, 1..4u32, proptest::option::of(0..5_000u64), any::<bool>())
        .prop_map(|(rows, priority, deadline_ms, wide)| Event::Push { rows, priority, deadline_ms, wide });
    proptest::collection::vec(
        prop_oneof![
            4 => push,
            3 => (1..4usize).prop_map(|sharers| Event::Take { sharers }),
            1 => (0..100usize).prop_map(|index| Event::Remove { index }),
            2 => (0..700u64).prop_map(|ms| Event::Pass { ms }),
        ],
        0..200,
    )
}

const MAX_BATCH: usize = 4;
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The rule: every fourth batch is for the overdue.
const AGED_EVERY: usize = 4;

type Waiting = (Ticket, Key, Option<usize>);

/// An entry as the test sees it, in the order of the fields by which the queue should order.
type Expected = (u32, bool, Option<Instant>, u64);

/// Checks one batch against what the rule allows. Says whether it was out of the order of urgency.
fn check_batch(batch: &[u64], waiting: &BTreeMap<u64, Waiting>, now: Instant) -> Result<bool, TestCaseError> {
    let order = |id: &u64| -> Expected {
        let ticket = &waiting[id].0;
        (ticket.priority, ticket.deadline.is_none(), ticket.deadline, *id)
    };
    prop_assert!(!batch.is_empty(), "work waits, so there is a batch");
    let rows: usize = batch.iter().map(|id| waiting[id].0.rows).sum();
    prop_assert!(rows <= MAX_BATCH, "{rows} rows");
    let shape = &waiting[&batch[0]].0.row_shape;
    prop_assert!(batch.iter().all(|id| waiting[id].0.row_shape == *shape));
    let alike = || waiting.iter().filter(|(_, (ticket, ..))| ticket.row_shape == *shape).map(|(id, _)| *id);
    let mut by_urgency: Vec<u64> = alike().collect();
    by_urgency.sort_by_key(order);
    let most_urgent = waiting.keys().min_by_key(|id| order(id)).copied();
    if most_urgent == Some(batch[0]) && by_urgency.starts_with(batch) {
        return Ok(false);
    }
    // Else it is the overdue entries' turn: by arrival, the oldest of all first, which has waited for long enough.
    let by_arrival: Vec<u64> = alike().collect();
    prop_assert!(by_arrival.starts_with(batch), "{batch:?} is neither by urgency nor by arrival");
    prop_assert_eq!(waiting.keys().next(), Some(&batch[0]));
    prop_assert!(now - waiting[&batch[0]].0.arrived >= MAX_WAIT);
    Ok(true)
}

proptest! {
    #[test]
    fn every_entry_leaves_once_in_order_and_within_bounds(events in events()) {
        let policy = Policy {
            max_batch_size: MAX_BATCH,
            max_queue_delay: Duration::ZERO,
            max_priority_wait: MAX_WAIT,
        };
        let mut batcher = Batcher::new(policy);
        let mut now = Instant::now();
        // What waits, by arrival; once it is overdue, with the number of batches by which it must have left.
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        let mut next = 0;
        let mut since_aged = 0;
        // To the end, so that everything leaves.
        let drain = std::iter::repeat_n(Event::Take { sharers: 1 }, events.len());
        for event in events.into_iter().chain(drain) {
            match event {
                Event::Pass { ms } => now += Duration::from_millis(ms),
                Event::Push { rows, priority, deadline_ms, wide } => {
                    let ticket = Ticket {
                        priority,
                        deadline: deadline_ms.map(|ms| now + Duration::from_millis(ms)),
                        arrived: now,
                        rows,
                        row_shape: vec![if wide { 2 } else { 1 }],
                    };
                    let key = batcher.push(ticket.clone(), next);
                    waiting.insert(next, (ticket, key, None));
                    next += 1;
                }
                Event::Remove { index } => {
                    let Some(id) = waiting.keys().nth(index).copied() else { continue };
                    prop_assert_eq!(batcher.remove(waiting[&id].1), Some(id));
                    waiting.remove(&id);
                }
                Event::Take { sharers } => {
                    let is_expired = |ticket: &Ticket| ticket.deadline.is_some_and(|deadline| deadline <= now);
                    let mut expired = batcher.expire(now);
                    expired.sort_unstable();
                    let expected: Vec<u64> =
                        waiting.iter().filter(|(_, (ticket, ..))| is_expired(ticket)).map(|(id, _)| *id).collect();
                    prop_assert_eq!(&expired, &expected);
                    waiting.retain(|id, _| !expected.contains(id));
                    if waiting.is_empty() {
                        prop_assert_eq!(batcher.due(now), Due::Never);
                        continue;
                    }
                    prop_assert_eq!(batcher.due(now), Due::Now);
                    // The wait is bounded whatever comes: in four batches at least the oldest of the overdue leaves.
                    for (older, (ticket, _, batches_left)) in waiting.values_mut().enumerate() {
                        if now - ticket.arrived >= MAX_WAIT {
                            batches_left.get_or_insert(AGED_EVERY * (older + 1));
                        }
                    }
                    let batch = batcher.take(now, sharers);
                    let aged = check_batch(&batch, &waiting, now)?;
                    prop_assert!(!aged || since_aged + 1 >= AGED_EVERY, "urgent entries lose more than one batch in four");
                    since_aged = if aged { 0 } else { since_aged + 1 };
                    for id in &batch {
                        prop_assert!(waiting.remove(id).is_some(), "{id} leaves twice");
                    }
                    for (_, _, batches_left) in waiting.values_mut() {
                        let Some(batches_left) = batches_left else { continue };
                        *batches_left -= 1;
                        prop_assert!(*batches_left > 0, "an overdue entry is passed over");
                    }
                }
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} never left");
    }
}
