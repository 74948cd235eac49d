//! How long a thread was ready to run and had no core, because other programs had it. Linux alone tells.

use std::fs;
use std::time::Duration;

/// How long the calling thread has waited for a core since it began; zero where that is not known.
pub(super) fn of_this_thread() -> Duration {
    parse(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

/// The second of three numbers: the time on a core and the time waited for one, both in nanoseconds, and the turns.
fn parse(schedstat: &str) -> Duration {
    let nanoseconds = schedstat.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_counts_and_what_is_not_there_is_nothing() {
        assert_eq!(parse("30025693 1500000000 227\n"), Duration::from_millis(1500));
        assert_eq!(parse(""), Duration::ZERO);
        assert!(of_this_thread() <= of_this_thread());
    }
}
