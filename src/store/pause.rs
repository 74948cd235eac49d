//! How long to wait between two looks at a store.

use std::time::Duration;

/// The longest wait is this many usual ones.
const MAX_FACTOR: u32 = 16;

/// Waits that grow while looks fail, each a little off, so that many servers that lost their store at one moment do not all come
/// back at one moment.
#[derive(Debug, Clone)]
pub struct Pause {
    interval: Duration,
    failures: u32,
}

impl Pause {
    /// Waits of `interval` while all is well.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// The wait after a look that ended so.
    pub fn after(&mut self, success: bool) -> Duration {
        self.after_at(success, fastrand::f64())
    }

    /// The same, `chance` being between 0 and 1.
    fn after_at(&mut self, success: bool, chance: f64) -> Duration {
        self.failures = if success { 0 } else { self.failures.saturating_add(1) };
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(MAX_FACTOR).min(MAX_FACTOR);
        // From 80 % to 120 %.
        (self.interval * factor).mul_f64(0.8 + 0.4 * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_failures_up_to_a_bound_and_shrink_at_once() {
        let mut pause = Pause::new(Duration::from_secs(10));
        let mut seconds = |success| pause.after_at(success, 0.5).as_secs_f64().round() as u64;
        assert_eq!([true, false, false, false, false, false].map(&mut seconds), [10, 20, 40, 80, 160, 160]);
        assert_eq!((0..100).map(|_| seconds(false)).max(), Some(160));
        assert_eq!(seconds(true), 10);
        let bounds = [0.0, 1.0].map(|chance| pause.after_at(true, chance));
        assert_eq!(bounds, [Duration::from_secs(8), Duration::from_secs(12)]);
    }
}
