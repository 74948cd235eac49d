//! What is admitted, what is refused, and what a refused client is told. The one instance takes 100 ms a row.

use std::time::{Duration, Instant};

use super::{Held, demand, options};
use crate::error::{Error, ErrorKind};
use crate::scheduler::{Demand, Preparation, SchedulerOptions};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A request of one row that has `ms` left.
fn within(ms: u64) -> Demand {
    Demand { deadline: Some(Instant::now() + Duration::from_millis(ms)), ..demand(1) }
}

fn refusal(error: &Error) -> (ErrorKind, Duration) {
    (error.kind(), error.retry_after().unwrap())
}

#[test]
fn places_are_bounded_and_come_back() {
    let held = Held::new(2, 1);
    let whole = held.scheduler.admit(demand(3)).unwrap();
    let refused = held.scheduler.admit(demand(1)).unwrap_err();
    assert_eq!(refusal(&refused), (ErrorKind::Overloaded, ms(200)));
    assert_eq!(held.scheduler.metrics().in_flight.get(), 3);
    drop(whole);
    assert_eq!(held.scheduler.metrics().in_flight.get(), 0);
    assert_eq!(held.scheduler.admit(demand(2)).unwrap().rows(), 2);
    assert_eq!(held.scheduler.admit(demand(4)).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn bytes_are_bounded_and_come_back() {
    let held = Held::with(SchedulerOptions { queue_bytes: 1000, ..options(1, 16) });
    let of = |bytes| Demand { bytes, ..demand(1) };
    let mut first = held.scheduler.admit(of(100)).unwrap();
    first.change(of(800)).unwrap();
    assert_eq!(held.scheduler.metrics().queue_bytes.get(), 800);
    let refused = held.scheduler.admit(of(201)).unwrap_err();
    assert_eq!(refusal(&refused), (ErrorKind::Overloaded, ms(100)));
    assert_eq!(first.change(of(1001)).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    // What is refused keeps what it had.
    let second = held.scheduler.admit(of(200)).unwrap();
    assert_eq!(first.change(of(801)).unwrap_err().kind(), ErrorKind::Overloaded);
    drop(first);
    drop(second);
    assert_eq!(held.scheduler.metrics().queue_bytes.get(), 0);
    held.scheduler.admit(of(1000)).unwrap();
}

#[test]
fn a_deadline_that_the_work_ahead_will_miss_is_refused_on_arrival() {
    let held = Held::new(1, 16);
    // Nothing is ahead: even a deadline below the estimate is let in, as only a run can correct the estimate.
    let first = held.scheduler.admit(within(1)).unwrap();
    let second = held.scheduler.admit(Demand { rows: 2, ..within(350) });
    assert!(second.is_ok(), "one row ahead and one of its own leave time for a third run");
    let refused = held.scheduler.admit(within(350)).unwrap_err();
    assert_eq!(refusal(&refused), (ErrorKind::Overloaded, ms(300)));
    held.scheduler.admit(within(450)).unwrap();
    drop(first);
    held.scheduler.admit(within(350)).unwrap();
}

#[test]
fn only_what_runs_before_a_request_is_ahead_of_it() {
    let held = Held::new(1, 64);
    let backlog = [
        // More urgent by priority; by deadline; less urgent by each.
        (Demand { priority: 1, ..demand(1) }, 1),
        (Demand { priority: 2, ..within(240) }, 1),
        (Demand { priority: 2, ..within(60_000) }, 0),
        (Demand { priority: 2, ..demand(20) }, 0),
        (Demand { priority: 3, ..within(60_000) }, 0),
    ];
    let mut permits = Vec::new();
    let mut ahead = 0;
    for (other, counts) in backlog {
        permits.push(held.scheduler.admit(other).unwrap());
        ahead += counts;
        // Ahead rows take 100 ms each, and the row itself another 100.
        let enough = Demand { priority: 2, ..within(150 + 100 * ahead) };
        assert!(held.scheduler.admit(enough).is_ok(), "{other:?}");
        let short = Demand { priority: 2, ..within(50 + 100 * ahead) };
        assert!(held.scheduler.admit(short).is_err(), "{other:?}");
    }
}

#[test]
fn a_backlog_counts_in_batches_of_the_size_that_it_will_run_in() {
    let held = Held::new(4, 64);
    held.scheduler.shared.admission.times().observe(4, ms(160));
    // Alone it would run in one batch of 4, behind which the next begins after 160 ms, not 400.
    let backlog = held.scheduler.admit(demand(4)).unwrap();
    let as_late = |ms: u64| Demand { priority: 2, ..within(ms) };
    assert!(held.scheduler.admit(as_late(340)).is_ok());
    assert_eq!(refusal(&held.scheduler.admit(as_late(250)).unwrap_err()), (ErrorKind::Overloaded, ms(160)));
    drop(backlog);
}

#[test]
fn preparation_counts_and_runs_beside_the_work_ahead() {
    let held = Held::new(1, 16);
    let prepared = |deadline_ms, backlog_ms, own_ms| Demand {
        preparation: Preparation { backlog: ms(backlog_ms), own: ms(own_ms) },
        ..within(deadline_ms)
    };
    // Without a backlog of its own kind or of the model's, nothing would correct the estimate.
    held.scheduler.admit(prepared(150, 0, 500)).unwrap();
    let refused = held.scheduler.admit(prepared(350, 250, 50)).unwrap_err();
    assert_eq!(refusal(&refused), (ErrorKind::Overloaded, ms(250)));
    let _two = held.scheduler.admit(demand(2)).unwrap();
    let after = Demand { priority: 2, ..prepared(350, 100, 50) };
    held.scheduler.admit(after).unwrap();
}

#[test]
fn a_second_look_counts_only_what_has_become_more_urgent() {
    let held = Held::new(1, 16);
    let _ahead = held.scheduler.admit(demand(1)).unwrap();
    let permit = held.scheduler.admit(Demand { priority: 5, ..within(350) }).unwrap();
    // What came later with the same urgency is behind it.
    let _behind = held.scheduler.admit(Demand { rows: 4, priority: 5, ..within(60_000) }).unwrap();
    permit.check().unwrap();
    // And what was before it then is no news, however little time is left.
    let deadline = Instant::now() + ms(250);
    let hurried = held.scheduler.admit(Demand { priority: 5, deadline: Some(deadline), ..demand(1) }).unwrap();
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    hurried.check().unwrap();
    drop(hurried);
    let _before = held.scheduler.admit(demand(3)).unwrap();
    assert_eq!(permit.check().unwrap_err().kind(), ErrorKind::Overloaded);
}

#[test]
fn estimates_are_corrected_by_how_long_requests_took() {
    let held = Held::new(1, 16);
    let _ahead = held.scheduler.admit(demand(1)).unwrap();
    let after = |ms| Demand { priority: 2, ..within(ms) };
    held.scheduler.admit(after(250)).unwrap();
    for _ in 0..300 {
        held.scheduler.shared.admission.observe(ms(100), ms(200));
    }
    assert!(held.scheduler.admit(after(350)).is_err());
    held.scheduler.admit(after(450)).unwrap();
}

#[test]
fn what_a_request_took_is_set_beside_the_rows_that_were_really_run() {
    let held = Held::new(1, 16);
    let _ahead = held.scheduler.admit(demand(4)).unwrap();
    let mut permit = held.scheduler.admit(demand(2)).unwrap();
    assert!(permit.outcome().is_none(), "one that is not answered teaches nothing");
    // Three of those ahead gave up, and five more urgent ones came before it.
    held.scheduler.shared.admission.count_run(1 + 5 + 2);
    permit.note_answer();
    assert_eq!(permit.outcome().unwrap().0, ms(800));
}

#[test]
fn refusals_are_counted_by_their_reason() {
    let metrics = crate::telemetry::Metrics::new();
    let model = metrics.model("m", 1);
    model.record_refusal(crate::telemetry::Refusal::Deadline);
    let families = metrics.registry().gather();
    let refusals = families.iter().find(|family| family.name() == "convoy_refusals_total").unwrap();
    let counts: Vec<_> = refusals
        .get_metric()
        .iter()
        .map(|metric| {
            let reason = metric.get_label().iter().find(|label| label.name() == "reason").unwrap();
            (reason.value().to_owned(), metric.get_counter().get_value() as u64)
        })
        .collect();
    assert_eq!(counts, [("deadline".into(), 1), ("queue_bytes".into(), 0), ("queue_size".into(), 0)]);
}
