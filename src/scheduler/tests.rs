//! The scheduler with a backend that can be held, fails on NaN and panics on infinity.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::batcher::Policy;
use super::{Answer, Backend, Scheduler, SchedulerOptions, Submission};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::{BatchTimes, Metrics};
use crate::tensor::Tensor;

/// Answers each row's double. Before each run it says how many rows it got, and waits for leave.
struct Doubler {
    started: mpsc::Sender<usize>,
    leave: mpsc::Receiver<()>,
}

impl Backend for Doubler {
    fn run(&mut self, parts: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)> {
        self.started.send(rows).unwrap();
        self.leave.recv().unwrap();
        let mut values: Vec<f32> = parts.iter().flat_map(|part| part.to_slice::<f32>().unwrap().into_owned()).collect();
        if values.iter().any(|value| value.is_nan()) {
            return Err(Error::internal("the model's run failed").with_source("a NaN"));
        }
        assert!(values.iter().all(|value| value.is_finite()), "an infinity");
        for value in &mut values {
            *value *= 2.0;
        }
        values.resize(rows, 0.0);
        let times = BatchTimes { input: Duration::ZERO, infer: Duration::from_millis(1), output: Duration::ZERO };
        Ok((vec![Tensor::from_vec(vec![rows, 1], values)?], times))
    }
}

/// A scheduler with one instance, and the two ends that hold it.
struct Held {
    scheduler: Scheduler,
    started: mpsc::Receiver<usize>,
    leave: mpsc::Sender<()>,
    metrics: Metrics,
}

impl Held {
    fn new(max_batch_size: usize, queue_size: usize, fixed_batch: Option<usize>) -> Self {
        let (started_sender, started) = mpsc::channel();
        let (leave, leave_receiver) = mpsc::channel();
        let metrics = Metrics::new();
        let options = SchedulerOptions {
            policy: Policy { max_batch_size, max_queue_delay: Duration::ZERO },
            queue_size,
            fixed_batch,
        };
        let backend: Box<dyn Backend> = Box::new(Doubler { started: started_sender, leave: leave_receiver });
        let row_time = Duration::from_millis(100);
        let scheduler = Scheduler::start("held", vec![backend], options, metrics.model("held", 1), row_time).unwrap();
        Self { scheduler, started, leave, metrics }
    }

    fn submit(&self, values: &[f32], deadline: Option<Instant>) -> tokio::sync::oneshot::Receiver<Result<Answer>> {
        let rows = Tensor::from_vec(vec![values.len(), 1], values.to_vec()).unwrap();
        self.scheduler.submit(Submission { rows, priority: 1, deadline }).unwrap()
    }

    /// Waits until the instance has begun a batch, and returns its rows.
    fn begun(&self) -> usize {
        self.started.recv().unwrap()
    }
}

fn values(answer: tokio::sync::oneshot::Receiver<Result<Answer>>) -> Vec<f32> {
    answer.blocking_recv().unwrap().unwrap().outputs[0].to_slice::<f32>().unwrap().into_owned()
}

fn failure(answer: tokio::sync::oneshot::Receiver<Result<Answer>>) -> ErrorKind {
    answer.blocking_recv().unwrap().unwrap_err().kind()
}

#[test]
fn what_gathers_behind_a_run_becomes_one_batch_and_each_gets_its_own_rows() {
    let held = Held::new(8, 8, None);
    let first = held.submit(&[1.0], None);
    assert_eq!(held.begun(), 1);
    let second = held.submit(&[2.0, 3.0], None);
    let third = held.submit(&[4.0], None);
    held.leave.send(()).unwrap();
    assert_eq!(held.begun(), 3);
    held.leave.send(()).unwrap();
    assert_eq!(values(first), [2.0]);
    assert_eq!(values(second), [4.0, 6.0]);
    let third = third.blocking_recv().unwrap().unwrap();
    assert_eq!(*third.outputs[0].to_slice::<f32>().unwrap(), [8.0]);
    assert_eq!(third.batch_size, 3);
    let statistics = held.scheduler.statistics();
    assert_eq!((statistics.inference_count, statistics.execution_count), (4, 2));
    assert_eq!(statistics.batches.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(statistics.compute_infer.count, 4);
    assert_eq!(statistics.compute_infer.ns, 4_000_000);
}

#[test]
fn one_bad_row_fails_alone_and_the_instance_lives_on() {
    let held = Held::new(8, 8, None);
    let first = held.submit(&[1.0], None);
    held.begun();
    let good = held.submit(&[2.0], None);
    let bad = held.submit(&[f32::NAN], None);
    let also_good = held.submit(&[3.0], None);
    // The first batch, the poisoned one, and its three rows one by one.
    for _ in 0..5 {
        held.leave.send(()).unwrap();
    }
    assert_eq!(values(first), [2.0]);
    assert_eq!(values(good), [4.0]);
    assert_eq!(failure(bad), ErrorKind::Internal);
    assert_eq!(values(also_good), [6.0]);
    assert_eq!(held.scheduler.consecutive_failures(), 0);
    assert_eq!(held.started.try_iter().collect::<Vec<_>>(), [3, 1, 1, 1]);
}

#[test]
fn a_panic_is_an_internal_error_counted_and_survived() {
    let held = Held::new(1, 8, None);
    let panicking = held.submit(&[f32::INFINITY], None);
    let after = held.submit(&[1.0], None);
    held.leave.send(()).unwrap();
    held.leave.send(()).unwrap();
    assert_eq!(failure(panicking), ErrorKind::Internal);
    assert_eq!(values(after), [2.0]);
    assert_eq!(held.scheduler.metrics().instance_panics.get(), 1);
    drop(held.metrics);
}

#[test]
fn entries_whose_client_is_gone_or_whose_deadline_passed_cost_no_run() {
    let held = Held::new(8, 8, None);
    let first = held.submit(&[1.0], None);
    held.begun();
    let gone = held.submit(&[2.0], None);
    let expired = held.submit(&[3.0], Some(Instant::now()));
    let alive = held.submit(&[4.0], None);
    drop(gone);
    held.leave.send(()).unwrap();
    assert_eq!(held.begun(), 1);
    held.leave.send(()).unwrap();
    assert_eq!(values(first), [2.0]);
    assert_eq!(failure(expired), ErrorKind::DeadlineExceeded);
    assert_eq!(values(alive), [8.0]);
    assert_eq!(held.scheduler.statistics().inference_count, 2);
}

#[test]
fn a_queue_that_clients_left_shows_as_empty_while_nothing_runs() {
    let held = Held::new(8, 8, None);
    let first = held.submit(&[1.0], None);
    held.begun();
    drop(held.submit(&[2.0], None));
    assert_eq!(held.scheduler.metrics().queue_depth.get(), 1);
    held.leave.send(()).unwrap();
    assert_eq!(values(first), [2.0]);
    // The instance sweeps the queue after it has answered, at a time of its own.
    let patience = Instant::now() + Duration::from_mins(1);
    while held.scheduler.metrics().queue_depth.get() > 0 {
        assert!(Instant::now() < patience, "the gauge still shows an entry that has left");
        std::thread::yield_now();
    }
    assert_eq!(held.scheduler.metrics().nv_pending.get(), 0);
}

#[test]
fn places_are_bounded_and_come_back() {
    let held = Held::new(2, 1, None);
    let whole = held.scheduler.admit(3, None).unwrap();
    let refused = held.scheduler.admit(1, None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert_eq!(refused.retry_after(), Some(Duration::from_millis(300)));
    assert_eq!(held.scheduler.metrics().in_flight.get(), 3);
    drop(whole);
    assert_eq!(held.scheduler.metrics().in_flight.get(), 0);
    assert_eq!(held.scheduler.admit(2, None).unwrap().rows(), 2);
    assert_eq!(held.scheduler.admit(4, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_deadline_that_the_work_ahead_will_miss_is_refused_on_arrival() {
    let held = Held::new(1, 16, None);
    let soon = Some(Instant::now() + Duration::from_millis(250));
    // Nothing is ahead: even a deadline below the estimate is let in, as only a run can correct the estimate.
    let first = held.scheduler.admit(1, Some(Instant::now() + Duration::from_millis(1))).unwrap();
    let second = held.scheduler.admit(2, soon);
    assert!(second.is_ok(), "one row ahead at 100 ms leaves time for a deadline of 250 ms");
    let refused = held.scheduler.admit(1, soon).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert_eq!(refused.retry_after(), Some(Duration::from_millis(300)));
    // What a request holds itself is not ahead of it.
    let held_by_all = 3;
    let late = Some(Instant::now());
    assert!(held.scheduler.check_deadline(held_by_all, late).is_ok());
    let refused = held.scheduler.check_deadline(1, late).unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_millis(200)));
    drop(first);
}

#[test]
fn a_fixed_batch_is_filled_up_and_only_the_real_rows_are_answered() {
    let held = Held::new(4, 8, Some(4));
    let answer = held.submit(&[5.0], None);
    assert_eq!(held.begun(), 4);
    held.leave.send(()).unwrap();
    assert_eq!(values(answer), [10.0]);
    assert_eq!(held.scheduler.statistics().inference_count, 1);
}

#[test]
fn closing_answers_what_is_queued_and_refuses_what_comes_after() {
    let held = Held::new(1, 8, None);
    let queued = [held.submit(&[1.0], None), held.submit(&[2.0], None)];
    held.leave.send(()).unwrap();
    held.leave.send(()).unwrap();
    held.scheduler.close();
    let [first, second] = queued;
    assert_eq!(values(first), [2.0]);
    assert_eq!(values(second), [4.0]);
    let rows = Tensor::from_vec(vec![1, 1], vec![1f32]).unwrap();
    let refused = held.scheduler.submit(Submission { rows, priority: 1, deadline: None }).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[test]
fn draining_runs_what_is_held_back_and_still_takes_work() {
    let (started_sender, started) = mpsc::channel();
    let (leave, leave_receiver) = mpsc::channel();
    let options = SchedulerOptions {
        policy: Policy { max_batch_size: 4, max_queue_delay: Duration::from_hours(1) },
        queue_size: 8,
        fixed_batch: None,
    };
    let backend: Box<dyn Backend> = Box::new(Doubler { started: started_sender, leave: leave_receiver });
    let metrics = Metrics::new().model("held", 1);
    let scheduler = Scheduler::start("held", vec![backend], options, metrics, Duration::ZERO).unwrap();
    let submit = |value: f32| {
        let rows = Tensor::from_vec(vec![1, 1], vec![value]).unwrap();
        scheduler.submit(Submission { rows, priority: 1, deadline: None }).unwrap()
    };
    let held = submit(1.0);
    scheduler.drain();
    assert_eq!(started.recv().unwrap(), 1);
    leave.send(()).unwrap();
    assert_eq!(values(held), [2.0]);
    let late = submit(2.0);
    leave.send(()).unwrap();
    assert_eq!(values(late), [4.0]);
}
