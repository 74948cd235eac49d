//! How long batches take, by their size: measured in warm-up, and from then on kept up to date by every run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A new measurement's part in the average. An eighth: a single slow run does not make the server refuse work.
const NEW_PART: f64 = 1.0 / 8.0;

/// The times of batches of 1 row up to the largest.
#[derive(Debug)]
pub(super) struct ServiceTimes {
    /// Nanoseconds of a batch of `index + 1` rows; 0 where none has been measured.
    ns: Vec<AtomicU64>,
    /// What a batch waits for other models' runs, in nanoseconds.
    turn_ns: AtomicU64,
}

impl ServiceTimes {
    /// The times of batches of up to `max_batch_size` rows, of which `measured` are known.
    pub(super) fn new(max_batch_size: usize, measured: &[(usize, Duration)]) -> Self {
        let ns = (0..max_batch_size.max(1)).map(|_| AtomicU64::new(0)).collect();
        let times = Self { ns, turn_ns: AtomicU64::new(0) };
        for &(rows, took) in measured {
            times.observe(rows, took);
        }
        times
    }

    /// Folds a run of `rows` rows that took `took` into their average.
    pub(super) fn observe(&self, rows: usize, took: Duration) {
        let Some(average) = rows.checked_sub(1).and_then(|index| self.ns.get(index)) else { return };
        match average.load(Ordering::Relaxed) {
            0 => average.store(nanoseconds(took).max(1), Ordering::Relaxed),
            _ => fold(average, took),
        }
    }

    /// Folds the time that a batch waited for other models' runs into its average.
    pub(super) fn observe_turn(&self, waited: Duration) {
        fold(&self.turn_ns, waited);
    }

    /// What a batch of `rows` rows takes: its average, else what lies between those of the next smaller and larger sizes.
    ///
    /// It is never more than the smallest size takes for as many rows. So a size whose average is too high, and which for that
    /// reason nothing is admitted to run in, does not stay so for ever: smaller ones still run.
    pub(super) fn of(&self, rows: usize) -> Duration {
        let rows = rows.clamp(1, self.ns.len());
        let known = |rows: usize| match self.ns[rows - 1].load(Ordering::Relaxed) {
            0 => None,
            ns => Some((rows as f64, ns as f64)),
        };
        let wanted = rows as f64;
        let below = (1..=rows).rev().find_map(known);
        let above = (rows..=self.ns.len()).find_map(known);
        let ns = match (below, above) {
            (Some((few, short)), Some((many, long))) if few < many => {
                short + (long - short) * (wanted - few) / (many - few)
            }
            (Some((few, short)), _) => short * wanted / few,
            (None, Some((_, long))) => long,
            (None, None) => 0.0,
        };
        let one_by_one = (1..=rows).find_map(known).map(|(few, short)| short * (wanted / few).ceil());
        Duration::from_nanos(one_by_one.map_or(ns, |limit| ns.min(limit)) as u64)
    }

    /// The sizes that have been measured, with their averages.
    pub(super) fn measured(&self) -> Vec<(usize, Duration)> {
        let times = self.ns.iter().map(|ns| Duration::from_nanos(ns.load(Ordering::Relaxed)));
        (1..).zip(times).filter(|(_, took)| !took.is_zero()).collect()
    }

    /// What a batch waits for other models' runs.
    pub(super) fn turn(&self) -> Duration {
        Duration::from_nanos(self.turn_ns.load(Ordering::Relaxed))
    }
}

/// Instances may do this at the same time, and one then overwrites what the other has measured, which is no loss.
fn fold(average: &AtomicU64, measured: Duration) {
    let old = average.load(Ordering::Relaxed) as f64;
    let new = old + (nanoseconds(measured) as f64 - old) * NEW_PART;
    average.store(new as u64, Ordering::Relaxed);
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
