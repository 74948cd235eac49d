//! Two models on one device, with backends that take their time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Pending, options};
use crate::error::Result;
use crate::scheduler::device::Device;
use crate::scheduler::{Backend, Instance, Scheduler, Submission};
use crate::telemetry::{BatchTimes, Metrics, Trace};
use crate::tensor::Tensor;

/// Says its name at the begin of a run, and ends it when the test says so.
struct Named {
    name: &'static str,
    begun: mpsc::Sender<(&'static str, usize, mpsc::Sender<()>)>,
}

impl Backend for Named {
    fn run(&mut self, _: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)> {
        let (leave, left) = mpsc::channel();
        self.begun.send((self.name, rows, leave)).unwrap();
        left.recv().unwrap();
        let times = BatchTimes { input: Duration::ZERO, infer: Duration::from_millis(1), output: Duration::ZERO };
        Ok((vec![Tensor::from_vec(vec![rows, 1], vec![0f32; rows])?], times))
    }
}

fn model(
    name: &'static str,
    instances: usize,
    device: &Arc<Device>,
    begun: &mpsc::Sender<(&'static str, usize, mpsc::Sender<()>)>,
) -> Scheduler {
    let backend = || Instance { backend: Named { name, begun: begun.clone() }, device: Arc::clone(device) };
    let instances = (0..instances).map(|_| backend()).collect();
    let measured = [(1, Duration::from_millis(1))];
    Scheduler::start(name, instances, options(4, 256), Metrics::new().model(name, 1), &measured).unwrap()
}

fn submit(model: &Scheduler) -> Pending {
    let rows = Tensor::from_vec(vec![1, 1], vec![1f32]).unwrap();
    model.submit(Submission { rows, priority: 1, deadline: None, trace: Trace::default() }).unwrap()
}

#[test]
fn a_model_with_one_request_waits_for_at_most_one_run_of_a_saturated_one() {
    let device = Arc::new(Device::new(2));
    let (begun, runs) = mpsc::channel();
    let busy = model("busy", 2, &device, &begun);
    let calm = model("calm", 2, &device, &begun);
    let backlog: Vec<_> = (0..256).map(|_| submit(&busy)).collect();
    let mut running = vec![runs.recv().unwrap(), runs.recv().unwrap()];
    for _ in 0..20 {
        let request = submit(&calm);
        while device.waiting() < 3 - running.len().min(2) {
            std::thread::yield_now();
        }
        // One run ends, and the next is the calm model's.
        let (_, _, leave) = running.remove(0);
        leave.send(()).unwrap();
        let (name, rows, leave) = runs.recv().unwrap();
        assert_eq!((name, rows), ("calm", 1));
        leave.send(()).unwrap();
        request.wait().unwrap();
        running.push(runs.recv().unwrap());
        assert_eq!(running[1].0, "busy");
    }
    drop(backlog);
    drop(running.into_iter().map(|(_, _, leave)| leave.send(())).collect::<Vec<_>>());
    while let Ok((_, _, leave)) = runs.recv_timeout(Duration::from_millis(1)) {
        leave.send(()).unwrap();
    }
    busy.close();
}

/// Sleeps, which takes device time and no core.
struct Sleeper {
    took: Duration,
    total_us: Arc<AtomicUsize>,
}

impl Backend for Sleeper {
    fn run(&mut self, _: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)> {
        let started = std::time::Instant::now();
        std::thread::sleep(self.took);
        self.total_us.fetch_add(started.elapsed().as_micros() as usize, Ordering::Relaxed);
        let times = BatchTimes { input: Duration::ZERO, infer: self.took, output: Duration::ZERO };
        Ok((vec![Tensor::from_vec(vec![rows, 1], vec![0f32; rows])?], times))
    }
}

#[test]
fn two_saturated_models_get_equal_device_time_however_long_their_runs_are() {
    let device = Arc::new(Device::new(2));
    let start = |name, took_ms| {
        let total_us = Arc::new(AtomicUsize::new(0));
        let took = Duration::from_millis(took_ms);
        let backend =
            || Instance { backend: Sleeper { took, total_us: Arc::clone(&total_us) }, device: Arc::clone(&device) };
        let instances = vec![backend(), backend()];
        let scheduler =
            Scheduler::start(name, instances, options(1, 4096), Metrics::new().model(name, 1), &[(1, took)]).unwrap();
        (scheduler, total_us)
    };
    let (short, short_us) = start("short", 2);
    let (long, long_us) = start("long", 10);
    let backlogs: Vec<_> = (0..1000).flat_map(|_| [submit(&short), submit(&long)]).collect();
    while long_us.load(Ordering::Relaxed) < 400_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (short_us, long_us) = (short_us.load(Ordering::Relaxed), long_us.load(Ordering::Relaxed));
    let ratio = short_us as f64 / long_us as f64;
    // Each may be ahead by the runs that are under way.
    assert!((0.8..1.25).contains(&ratio), "{short_us} and {long_us} us");
    drop(backlogs);
}
