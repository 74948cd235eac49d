use std::time::Duration;

use super::super::service_times::ServiceTimes;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn sizes_between_measured_ones_are_interpolated_and_beyond_them_scaled() {
    let times = ServiceTimes::new(16, &[(1, ms(10)), (2, ms(12)), (8, ms(36))]);
    for (rows, expected) in [(0, 10), (1, 10), (2, 12), (3, 16), (5, 24), (8, 36), (16, 72), (99, 72)] {
        assert_eq!(times.of(rows), ms(expected), "{rows} rows");
    }
    let buckets = ServiceTimes::new(8, &[(4, ms(20)), (8, ms(30))]);
    assert_eq!((buckets.of(1), buckets.of(6)), (ms(20), ms(25)));
    assert_eq!(ServiceTimes::new(4, &[]).of(4), Duration::ZERO);
}

#[test]
fn runs_move_the_time_of_their_own_size_by_an_eighth() {
    let times = ServiceTimes::new(4, &[(1, ms(10)), (2, ms(16))]);
    times.observe(2, ms(24));
    assert_eq!((times.of(1), times.of(2)), (ms(10), ms(17)));
    for _ in 0..100 {
        times.observe(2, ms(8));
    }
    assert!(times.of(2) < ms(9));
    // Sizes that there are not are no reason to panic.
    times.observe(0, ms(1));
    times.observe(5, ms(1));
}

#[test]
fn a_size_that_is_wrong_and_never_runs_is_put_right_by_the_smallest() {
    let times = ServiceTimes::new(4, &[(1, ms(1000)), (4, ms(3000))]);
    for _ in 0..100 {
        times.observe(1, ms(1));
    }
    assert!(times.of(4) < ms(5), "{:?}", times.of(4));
}
