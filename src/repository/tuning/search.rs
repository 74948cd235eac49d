//! How the best setup is found within a budget: short looks at all, longer ones at those that may still be the best.
//!
//! It must not know what is measured, nor how: there is no session and no clock in it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::grid::Setup;
use crate::error::{Error, Result};

/// How far behind the fastest a setup may be for its larger batches to be looked at: batches do not make up for idle cores.
const HOPELESS_MARGIN: f64 = 0.4;
/// How far behind the best a setup may be after the first look, after which no two setups have been measured side by side, and
/// after the second.
const SCREEN_MARGIN: f64 = 0.25;
const RACE_MARGIN: f64 = 0.08;
/// What counts as equally fast. It is what a batch of 4 saves on a CPU, less what is lost in the noise: for that, nobody's
/// latency should grow.
const TOLERANCE: f64 = 0.02;
/// The parts of the budget that the two looks and the final have, in this order.
const SHARES: [f64; 3] = [0.3, 0.3, 0.4];
/// How often the setups that are left take turns in the race and in the final. Odd, so that the median is one of them.
const RACE_ROUNDS: usize = 3;
const FINAL_ROUNDS: usize = 5;

/// What is asked to run setups.
pub(super) trait Bench {
    /// Runs `setup` with all its instances at once, for about as long as `window`, and each at least once.
    fn measure(&mut self, setup: Setup, window: Duration) -> Result<Sample>;

    /// Until this is called again no setups but these are measured.
    fn keep(&mut self, setups: &[Setup]);
}

/// What a [`Bench`] has seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) images_per_second: f64,
    /// The median of what a full batch takes.
    pub(super) batch_latency: Duration,
    /// How long measuring took, preparation included.
    pub(super) took: Duration,
}

/// What is known of a setup.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was run.
    #[serde(flatten)]
    pub setup: Setup,
    /// Rows in a second, all instances together.
    pub images_per_second: f64,
    /// The median of what a full batch takes while all instances run, in milliseconds.
    pub batch_latency_ms: f64,
    /// What is compared: the throughput in parts of what all setups had on average in the same round, so that a machine that
    /// is slower for a while is slower for all of them.
    #[serde(skip)]
    pub(super) score: f64,
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { max_batch_size, intra_op_threads, instances } = self.setup;
        let Self { images_per_second, batch_latency_ms, .. } = self;
        write!(
            f,
            "{}, {} each, batch {max_batch_size}: {images_per_second:.1}/s, {batch_latency_ms:.1} ms",
            counted(instances, "instance"),
            counted(intra_op_threads, "thread"),
        )
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What is wanted, and what it may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    pub(super) max_batch_latency: Option<Duration>,
    pub(super) budget: Duration,
}

impl Goal {
    fn allows(&self, batch_latency_ms: f64) -> bool {
        self.max_batch_latency.is_none_or(|bound| batch_latency_ms <= milliseconds(bound))
    }
}

/// The setup that is best among `grid`, which ascends, and what was measured of each. Setups that would take too long, or that
/// a smaller batch has shown to be over the bound, are not measured. The budget is overrun where one look at each does not fit.
pub(super) fn search(bench: &mut impl Bench, grid: &[Setup], goal: &Goal) -> Result<(Setup, Vec<Measurement>)> {
    let mut latest = screen(bench, grid, goal)?;
    let mut table: BTreeMap<_, _> = latest.iter().map(|measured| (measured.setup, *measured)).collect();
    let stages = [(SCREEN_MARGIN, RACE_ROUNDS, SHARES[1]), (RACE_MARGIN, FINAL_ROUNDS, SHARES[2])];
    for (margin, rounds, share) in stages {
        let left = contenders(&latest, margin, goal);
        if left.len() == 1 {
            return Ok((left[0], table.into_values().collect()));
        }
        bench.keep(&left);
        let budget = goal.budget.mul_f64(share);
        latest = race(bench, &left, rounds, budget / (rounds * left.len()) as u32, budget)?;
        table.extend(latest.iter().map(|measured| (measured.setup, *measured)));
    }
    let chosen = choose(&latest, goal).ok_or_else(|| Error::internal("there is nothing to choose from"))?;
    Ok((chosen, table.into_values().collect()))
}

/// A look at every setup that may be worth it, and then, in the opposite order, another while there is time. Those with as many
/// threads come one after the other, so that only their sessions need to be there; the better look counts, since what disturbs a
/// run only makes it slower.
fn screen(bench: &mut impl Bench, grid: &[Setup], goal: &Goal) -> Result<Vec<Measurement>> {
    let mut groups: BTreeMap<usize, Vec<Setup>> = BTreeMap::new();
    for &setup in grid {
        groups.entry(setup.intra_op_threads).or_default().push(setup);
    }
    let budget = goal.budget.mul_f64(SHARES[0]);
    let window = budget / (2 * grid.len()).max(1) as u32;
    let mut seen: BTreeMap<Setup, Sample> = BTreeMap::new();
    let mut spent = Duration::ZERO;
    for (index, group) in groups.values().enumerate() {
        bench.keep(group);
        let until = budget * (index as u32 + 1) / groups.len() as u32;
        for &setup in group {
            if is_worth_a_look(&seen, setup, window, until.saturating_sub(spent), goal) {
                let sample = bench.measure(setup, window)?;
                spent += sample.took;
                seen.insert(setup, sample);
            }
        }
    }
    for group in groups.values().rev() {
        bench.keep(group);
        for &setup in group.iter().rev() {
            let Some(first) = seen.get_mut(&setup).filter(|first| spent + first.took <= budget) else { continue };
            let sample = bench.measure(setup, window)?;
            spent += sample.took;
            if sample.images_per_second > first.images_per_second {
                *first = sample;
            }
        }
    }
    let measurement = |(setup, sample): (Setup, Sample)| Measurement {
        setup,
        images_per_second: sample.images_per_second,
        batch_latency_ms: milliseconds(sample.batch_latency),
        score: sample.images_per_second,
    };
    Ok(seen.into_iter().map(measurement).collect())
}

/// Whether `setup` may be chosen by what was `seen` of its smaller batch, and a look at it fits into the time that is `left`. The
/// smallest batch always gets its look.
fn is_worth_a_look(
    seen: &BTreeMap<Setup, Sample>,
    setup: Setup,
    window: Duration,
    left: Duration,
    goal: &Goal,
) -> bool {
    let is_smaller = |other: &Setup| {
        other.max_batch_size < setup.max_batch_size
            && (other.intra_op_threads, other.instances) == (setup.intra_op_threads, setup.instances)
    };
    let Some((smaller, sample)) = seen.iter().rfind(|(other, _)| is_smaller(other)) else { return true };
    // Of those with that batch: larger ones may be over the bound.
    let alike = seen.iter().filter(|(other, _)| other.max_batch_size == smaller.max_batch_size);
    let fastest = alike.map(|(_, sample)| sample.images_per_second).fold(0.0, f64::max);
    // One run to prepare, one to measure: what they take grows with the batch.
    let growth = setup.max_batch_size as f64 / smaller.max_batch_size as f64;
    let expected = (sample.batch_latency * 2).mul_f64(growth).max(window);
    goal.allows(milliseconds(sample.batch_latency))
        && sample.images_per_second >= fastest * (1.0 - HOPELESS_MARGIN)
        && expected <= left
}

/// Measures `setups` in turn, again and again, up to `rounds` times and until the budget is spent; each at least once.
pub(super) fn race(
    bench: &mut impl Bench,
    setups: &[Setup],
    rounds: usize,
    window: Duration,
    budget: Duration,
) -> Result<Vec<Measurement>> {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); setups.len()];
    let mut scores: Vec<Vec<f64>> = vec![Vec::new(); setups.len()];
    let mut spent = Duration::ZERO;
    for round in 0..rounds {
        if round > 0 && spent >= budget {
            break;
        }
        // Every second round goes backwards: a machine that becomes slower from setup to setup then favours none.
        let forwards = 0..setups.len();
        let order: Vec<_> = if round % 2 == 0 { forwards.collect() } else { forwards.rev().collect() };
        for index in order {
            let sample = bench.measure(setups[index], window)?;
            spent += sample.took;
            samples[index].push(sample);
        }
        let sum: f64 = samples.iter().map(|samples| samples[round].images_per_second).sum();
        for (scores, samples) in scores.iter_mut().zip(&samples) {
            scores.push(samples[round].images_per_second * setups.len() as f64 / sum);
        }
    }
    let measurement = |((&setup, samples), scores): ((&Setup, &Vec<Sample>), Vec<f64>)| Measurement {
        setup,
        images_per_second: median(samples.iter().map(|sample| sample.images_per_second).collect()),
        batch_latency_ms: median(samples.iter().map(|sample| milliseconds(sample.batch_latency)).collect()),
        score: median(scores),
    };
    Ok(setups.iter().zip(&samples).zip(scores).map(measurement).collect())
}

/// The setups within the bound that are no more than `margin` behind the best of them.
fn contenders(measured: &[Measurement], margin: f64, goal: &Goal) -> Vec<Setup> {
    let allowed = allowed(measured, goal);
    let best = best_score(&allowed);
    allowed.iter().filter(|it| it.score >= best * (1.0 - margin)).map(|it| it.setup).collect()
}

/// The least setup that is as good as the best within the bound; `None` where nothing was measured.
fn choose(measured: &[Measurement], goal: &Goal) -> Option<Setup> {
    contenders(measured, TOLERANCE, goal).into_iter().min()
}

/// The fastest within the bound.
pub(super) fn fastest(measured: &[Measurement], goal: &Goal) -> Option<Setup> {
    let allowed = allowed(measured, goal);
    allowed.iter().max_by(|a, b| a.score.total_cmp(&b.score)).map(|it| it.setup)
}

/// What keeps the bound; where nothing does, what comes closest to it.
fn allowed(measured: &[Measurement], goal: &Goal) -> Vec<Measurement> {
    let allowed: Vec<_> = measured.iter().copied().filter(|it| goal.allows(it.batch_latency_ms)).collect();
    if allowed.is_empty() {
        let lowest = measured.iter().min_by(|a, b| a.batch_latency_ms.total_cmp(&b.batch_latency_ms));
        return lowest.copied().into_iter().collect();
    }
    allowed
}

fn best_score(measured: &[Measurement]) -> f64 {
    measured.iter().map(|it| it.score).fold(0.0, f64::max)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
