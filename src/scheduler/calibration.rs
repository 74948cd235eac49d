//! How far the estimates of waiting times are off, learned from the requests that were answered.

use std::time::Duration;

/// A new observation's part in the averages.
const NEW_PART: f64 = 1.0 / 16.0;

/// How many deviations beyond the mean are allowed for. Were the errors normally distributed, about one in a hundred would lie
/// beyond it: their mean deviation is 0.8 of the standard deviation.
const DEVIATIONS: f64 = 3.0;

/// What an observation counts at most, and at least, so that one request that hung does not close the model.
const RATIOS: std::ops::RangeInclusive<f64> = 0.1..=4.0;

/// Moving averages of what requests took, in times of what they should have taken, as Jacobson (1988) keeps them for the round
/// trips of TCP; and of the errors that remain.
///
/// The errors count by the square root of the time expected, because a long wait is one for many batches, whose errors are
/// independent and partly even out. By the time itself, the half batch that a short wait is off by would make every long one
/// seem uncertain by half, and a server with work for half of the deadline would refuse what it can do.
///
/// An average time is not enough to promise something: under overload every request that is admitted is expected close to its
/// deadline, and half of them would miss it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calibration {
    mean: f64,
    /// In square roots of a second.
    deviation: f64,
}

impl Default for Calibration {
    /// The estimate is right until it is seen not to be.
    fn default() -> Self {
        Self { mean: 1.0, deviation: 0.0 }
    }
}

impl Calibration {
    /// Folds in a request that should have taken `expected` and took `took`.
    pub(super) fn observe(&mut self, expected: Duration, took: Duration) {
        if expected.is_zero() {
            return;
        }
        let ratio = took.div_duration_f64(expected).clamp(*RATIOS.start(), *RATIOS.end());
        let error = ratio - self.mean;
        self.mean += error * NEW_PART;
        let scaled = error.abs() * expected.as_secs_f64().sqrt();
        self.deviation += (scaled - self.deviation) * NEW_PART;
    }

    /// What a request that should take `expected` takes at most, save for one in a hundred or so.
    pub(super) fn at_most(&self, expected: Duration) -> Duration {
        let allowance = DEVIATIONS * self.deviation * expected.as_secs_f64().sqrt();
        expected.mul_f64(self.mean) + Duration::from_secs_f64(allowance)
    }
}
