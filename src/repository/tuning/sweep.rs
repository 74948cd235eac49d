//! The full sweep: how good a choice is among all setups that there are.

use std::time::Duration;

use serde::Serialize;

use super::grid::Setup;
use super::search::{self, Bench, Goal, Measurement};
use crate::error::{Error, Result};

/// How often each setup is measured, and how often the best and the choice are measured against each other.
const ROUNDS: usize = 5;
const DUEL_ROUNDS: usize = 11;
/// How long each time, in parts of the budget.
const WINDOWS_IN_BUDGET: u32 = 40;

/// How the choice stands among all setups.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// The fastest of all within the latency bound.
    pub best: Setup,
    /// The choice's throughput in parts of the best's: the median of eleven rounds in which only these two took turns.
    pub choice_of_best: f64,
    /// Every setup, ascending.
    pub measurements: Vec<Measurement>,
}

/// Measures `all` setups, and then `choice` against the best of them.
pub(super) fn sweep(bench: &mut impl Bench, all: &[Setup], choice: Setup, goal: &Goal) -> Result<Sweep> {
    let window = goal.budget / WINDOWS_IN_BUDGET;
    bench.keep(all);
    let measurements = search::race(bench, all, ROUNDS, window, Duration::MAX)?;
    let best =
        search::fastest(&measurements, goal).ok_or_else(|| Error::internal("there is nothing to choose from"))?;
    let choice_of_best = if best == choice {
        1.0
    } else {
        let duel = [best, choice];
        bench.keep(&duel);
        let measured = search::race(bench, &duel, DUEL_ROUNDS, window * 2, Duration::MAX)?;
        measured[1].score / measured[0].score
    };
    Ok(Sweep { best, choice_of_best, measurements })
}
