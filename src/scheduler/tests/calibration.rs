//! What is learned of the estimates' errors.

use std::time::Duration;

use crate::scheduler::calibration::Calibration;

const EXPECTED: Duration = Duration::from_millis(100);

fn after(ratios: impl IntoIterator<Item = f64>) -> Calibration {
    let mut calibration = Calibration::default();
    for ratio in ratios {
        calibration.observe(EXPECTED, EXPECTED.mul_f64(ratio));
    }
    calibration
}

fn allowance(calibration: &Calibration) -> f64 {
    calibration.at_most(EXPECTED).div_duration_f64(EXPECTED)
}

#[test]
fn an_estimate_that_is_always_off_by_the_same_is_corrected_by_just_that() {
    for ratio in [0.5, 1.0, 2.0] {
        assert!((allowance(&after([ratio; 300])) - ratio).abs() < 0.01, "{ratio}");
    }
}

#[test]
fn all_but_about_one_in_a_hundred_are_within_what_is_allowed() {
    // Twelve uniform numbers are nearly normally distributed, with a standard deviation of 1.
    let mut random = fastrand::Rng::with_seed(1);
    let mut ratio = || 1.2 + 0.2 * ((0..12).map(|_| random.f64()).sum::<f64>() - 6.0);
    let mut calibration = after((0..300).map(|_| ratio()));
    let mut beyond = 0;
    for _ in 0..10_000 {
        let ratio = ratio();
        beyond += u32::from(ratio > allowance(&calibration));
        calibration.observe(EXPECTED, EXPECTED.mul_f64(ratio));
    }
    assert!((30..=250).contains(&beyond), "{beyond} of 10000");
}

#[test]
fn one_request_that_hung_does_not_close_the_model() {
    let mut calibration = after([1.0; 100]);
    calibration.observe(EXPECTED, Duration::from_hours(1));
    assert!(allowance(&calibration) < 2.0);
    // And what was expected to take no time says nothing.
    calibration.observe(Duration::ZERO, EXPECTED);
    assert!(allowance(&calibration) < 2.0);
}

#[test]
fn what_short_waits_are_off_by_is_not_held_against_long_ones() {
    let mut calibration = Calibration::default();
    for turn in 0..300 {
        calibration.observe(EXPECTED, EXPECTED.mul_f64(if turn % 2 == 0 { 0.5 } else { 1.5 }));
    }
    // Off by 50 ms of 100: four times as long a wait is of four times as many batches, so off by twice as much.
    let beyond = |expected: Duration| calibration.at_most(expected).as_millis() - expected.as_millis();
    let (short, long) = (beyond(EXPECTED), beyond(EXPECTED * 4));
    assert!((130..=170).contains(&short), "{short}");
    assert!((260..=340).contains(&long), "{long}");
}
