//! The scheduler with a backend that can be held, fails on NaN and panics on infinity.

mod admission;
mod batcher;
mod calibration;
mod device;
mod fairness;
mod service_times;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::batcher::{Policy, Ticket};
use super::device::Device;
use super::{Backend, Demand, Entry, Instance, Pending, Preparation, Scheduler, SchedulerOptions, Submission};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::{BatchTimes, Metrics, Trace};
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

/// The options of a queue that is bounded by places alone and runs batches as they are.
fn options(max_batch_size: usize, queue_size: usize) -> SchedulerOptions {
    let policy = Policy { max_batch_size, max_queue_delay: Duration::ZERO, max_priority_wait: Duration::from_secs(1) };
    SchedulerOptions { policy, queue_size, queue_bytes: usize::MAX, buckets: Vec::new(), threads: 1 }
}

/// A request of `rows` rows that weigh nothing and have no deadline.
fn demand(rows: usize) -> Demand {
    Demand { rows, bytes: 0, priority: 1, deadline: None, preparation: Preparation::default() }
}

/// A scheduler with one instance, and the two ends that hold it.
struct Held {
    scheduler: Scheduler,
    started: mpsc::Receiver<usize>,
    leave: mpsc::Sender<()>,
}

impl Held {
    fn new(max_batch_size: usize, queue_size: usize) -> Self {
        Self::with(options(max_batch_size, queue_size))
    }

    fn with(options: SchedulerOptions) -> Self {
        let (started_sender, started) = mpsc::channel();
        let (leave, leave_receiver) = mpsc::channel();
        let backend = Doubler { started: started_sender, leave: leave_receiver };
        let instances = vec![Instance { backend, device: Arc::new(Device::new(1)) }];
        let metrics = Metrics::new().model("held", 1);
        let measured = [(1, Duration::from_millis(100))];
        let scheduler = Scheduler::start("held", instances, options, metrics, &measured).unwrap();
        Self { scheduler, started, leave }
    }

    fn submit(&self, values: &[f32], deadline: Option<Instant>) -> Pending {
        let rows = Tensor::from_vec(vec![values.len(), 1], values.to_vec()).unwrap();
        self.scheduler.submit(Submission { rows, priority: 1, deadline, trace: Trace::default() }).unwrap()
    }

    /// Waits until the instance has begun a batch, and returns its rows.
    fn begun(&self) -> usize {
        self.started.recv().unwrap()
    }
}

fn values(answer: Pending) -> Vec<f32> {
    answer.wait().unwrap().outputs[0].to_slice::<f32>().unwrap().into_owned()
}

fn failure(answer: Pending) -> ErrorKind {
    answer.wait().unwrap_err().kind()
}

#[test]
fn what_gathers_behind_a_run_becomes_one_batch_and_each_gets_its_own_rows() {
    let held = Held::new(8, 8);
    let first = held.submit(&[1.0], None);
    assert_eq!(held.begun(), 1);
    let second = held.submit(&[2.0, 3.0], None);
    let third = held.submit(&[4.0], None);
    held.leave.send(()).unwrap();
    assert_eq!(held.begun(), 3);
    held.leave.send(()).unwrap();
    assert_eq!(values(first), [2.0]);
    assert_eq!(values(second), [4.0, 6.0]);
    let third = third.wait().unwrap();
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
    let held = Held::new(8, 8);
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
    let held = Held::new(1, 8);
    let panicking = held.submit(&[f32::INFINITY], None);
    let after = held.submit(&[1.0], None);
    held.leave.send(()).unwrap();
    held.leave.send(()).unwrap();
    assert_eq!(failure(panicking), ErrorKind::Internal);
    assert_eq!(values(after), [2.0]);
    assert_eq!(held.scheduler.metrics().instance_panics.get(), 1);
}

#[test]
fn entries_whose_client_is_gone_or_whose_deadline_passed_cost_no_run() {
    let held = Held::new(8, 8);
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
fn what_clients_leave_behind_is_gone_at_once() {
    let held = Held::new(8, 8);
    let first = held.submit(&[1.0], None);
    held.begun();
    let depth = || (held.scheduler.metrics().queue_depth.get(), held.scheduler.metrics().nv_pending.get());
    let left = [held.submit(&[2.0, 3.0], None), held.submit(&[4.0], None)];
    assert_eq!(depth(), (3, 3));
    drop(left);
    assert_eq!(depth(), (0, 0));
    held.leave.send(()).unwrap();
    assert_eq!(values(first), [2.0]);
}

#[test]
fn a_batch_is_filled_up_to_its_bucket_and_only_the_real_rows_are_answered() {
    let held = Held::with(SchedulerOptions { buckets: vec![1, 4, 6], ..options(6, 16) });
    for (values_in, bucket) in [(&[5.0][..], 1), (&[1.0, 2.0], 4), (&[1.0, 2.0, 3.0, 4.0], 4), (&[0.0; 5], 6)] {
        let answer = held.submit(values_in, None);
        assert_eq!(held.begun(), bucket);
        held.leave.send(()).unwrap();
        let doubled: Vec<f32> = values_in.iter().map(|value| value * 2.0).collect();
        assert_eq!(values(answer), doubled);
    }
    let statistics = held.scheduler.statistics();
    assert_eq!(statistics.inference_count, 12);
    assert_eq!(statistics.batches.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 5]);
}

#[test]
fn a_panic_outside_of_a_run_costs_its_batch_and_not_the_instance() {
    let held = Held::new(1, 8);
    let (answer, broken) = tokio::sync::oneshot::channel();
    // Nothing that `submit` takes is a scalar.
    let rows = Tensor::from_vec(vec![], vec![1f32]).unwrap();
    let arrived = Instant::now();
    let ticket = Ticket { priority: 1, deadline: None, arrived, rows: 1, row_shape: vec![1] };
    held.scheduler.shared.queue.push(ticket, Entry { rows, arrived, trace: Trace::default(), answer }).unwrap();
    assert!(broken.blocking_recv().is_err());
    let after = held.submit(&[1.0], None);
    held.leave.send(()).unwrap();
    assert_eq!(values(after), [2.0]);
    assert_eq!(held.scheduler.metrics().instance_panics.get(), 1);
}

#[test]
fn closing_answers_what_is_queued_and_refuses_what_comes_after() {
    let held = Held::new(1, 8);
    let queued = [held.submit(&[1.0], None), held.submit(&[2.0], None)];
    held.leave.send(()).unwrap();
    held.leave.send(()).unwrap();
    held.scheduler.close();
    let [first, second] = queued;
    assert_eq!(values(first), [2.0]);
    assert_eq!(values(second), [4.0]);
    let rows = Tensor::from_vec(vec![1, 1], vec![1f32]).unwrap();
    let refused =
        held.scheduler.submit(Submission { rows, priority: 1, deadline: None, trace: Trace::default() }).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[test]
fn draining_runs_what_is_held_back_and_still_takes_work() {
    let mut options = options(4, 8);
    options.policy.max_queue_delay = Duration::from_hours(1);
    let held = Held::with(options);
    let waiting = held.submit(&[1.0], None);
    held.scheduler.drain();
    assert_eq!(held.begun(), 1);
    held.leave.send(()).unwrap();
    assert_eq!(values(waiting), [2.0]);
    let late = held.submit(&[2.0], None);
    held.leave.send(()).unwrap();
    assert_eq!(values(late), [4.0]);
}
