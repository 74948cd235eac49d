use super::*;
use crate::repository::tuning::grid::Space;
use crate::repository::tuning::sweep::sweep;

/// A machine that is as fast as `rate` says, and measures in no time.
struct Fake<F> {
    rate: F,
    /// A factor for each measurement, in turn.
    noise: Vec<f64>,
    measured: Vec<Setup>,
    spent: Duration,
    kept: Vec<Setup>,
}

impl<F: Fn(Setup) -> f64> Fake<F> {
    fn new(rate: F) -> Self {
        Self { rate, noise: vec![1.0], measured: Vec::new(), spent: Duration::ZERO, kept: Vec::new() }
    }
}

impl<F: Fn(Setup) -> f64> Bench for Fake<F> {
    fn measure(&mut self, setup: Setup, window: Duration) -> Result<Sample> {
        assert!(self.kept.contains(&setup), "{setup:?} was not kept");
        let factor = self.noise[self.measured.len() % self.noise.len()];
        self.measured.push(setup);
        let rate = (self.rate)(setup);
        let batch_latency = Duration::from_secs_f64((setup.max_batch_size * setup.instances) as f64 / rate);
        // A run to prepare, and at least one that is measured.
        let took = batch_latency + window.max(batch_latency);
        self.spent += took;
        Ok(Sample { images_per_second: rate * factor, batch_latency, took })
    }

    fn keep(&mut self, setups: &[Setup]) {
        self.kept = setups.to_vec();
    }
}

fn grid(cores: usize) -> Vec<Setup> {
    space(cores).grid()
}

fn space(cores: usize) -> Space {
    Space { max_batch_size: None, intra_op_threads: None, instances: None, largest_batch: 64, cores, is_gpu: false }
}

fn goal() -> Goal {
    Goal { max_batch_latency: None, budget: Duration::from_secs(20) }
}

fn setup(max_batch_size: usize, intra_op_threads: usize, instances: usize) -> Setup {
    Setup { max_batch_size, intra_op_threads, instances }
}

/// What cores do: each thread after the first of a run adds 80 %, and a batch saves a little.
fn cpu(saving: f64) -> impl Fn(Setup) -> f64 {
    move |setup| {
        let threads = 1.0 + 0.8 * (setup.intra_op_threads as f64 - 1.0);
        let batch = 1.0 + saving * (1.0 - 1.0 / setup.max_batch_size as f64);
        100.0 * setup.instances as f64 * threads * batch
    }
}

#[test]
fn the_fastest_is_chosen_and_of_equals_the_smallest() {
    // Batches that save next to nothing cost latency for it.
    assert_eq!(search(&mut Fake::new(cpu(0.015)), &grid(4), &goal()).unwrap().0, setup(1, 1, 4));
    // Those that save much are worth it: 8 saves 5 % more than 4.
    assert_eq!(search(&mut Fake::new(cpu(1.0)), &grid(4), &goal()).unwrap().0, setup(8, 1, 4));
    // Threads, where instances stand in each other's way.
    let crowded = |setup: Setup| cpu(0.0)(setup) / setup.instances as f64;
    assert_eq!(search(&mut Fake::new(crowded), &grid(4), &goal()).unwrap().0, setup(1, 4, 1));
    // Half as many instances, where two cores are one with two names.
    let halves = |setup: Setup| 100.0 * (setup.instances.min(2) * setup.intra_op_threads.min(1)) as f64;
    assert_eq!(search(&mut Fake::new(halves), &grid(4), &goal()).unwrap().0, setup(1, 1, 2));
}

#[test]
fn the_bound_goes_before_throughput_and_what_comes_closest_where_nothing_keeps_it() {
    let fast_batches = || Fake::new(cpu(1.0));
    let within = |milliseconds| Goal { max_batch_latency: Some(Duration::from_millis(milliseconds)), ..goal() };
    // On two instances a batch of b takes b × 10 / (2 - 1/b) ms: 10, 13.3, 22.9 and 42.7; on one of two threads
    // 0.56 of that, for 0.9 of the throughput.
    for (bound, best) in [(50, setup(8, 1, 2)), (30, setup(4, 1, 2)), (22, setup(4, 2, 1)), (10, setup(2, 2, 1))] {
        let (chosen, _) = search(&mut fast_batches(), &grid(2), &within(bound)).unwrap();
        assert_eq!(chosen, best, "{bound}");
    }
    let (chosen, table) = search(&mut fast_batches(), &grid(2), &within(1)).unwrap();
    let lowest = table.iter().min_by(|a, b| a.batch_latency_ms.total_cmp(&b.batch_latency_ms)).unwrap();
    assert_eq!(chosen, lowest.setup);
}

#[test]
fn a_machine_that_is_slower_for_a_while_changes_nothing() {
    // Nobody is disturbed for a whole round more than the others; a third of the measurements has half the machine.
    for disturbed in 3..12 {
        let mut bench = Fake::new(cpu(0.0));
        bench.noise = (0..disturbed).map(|turn| if turn % 3 == 0 { 0.8 } else { 1.0 }).collect();
        let (chosen, _) = search(&mut bench, &grid(2), &goal()).unwrap();
        assert_eq!((chosen.intra_op_threads, chosen.instances), (1, 2), "{disturbed}");
    }
}

#[test]
fn the_budget_holds_and_the_smallest_batches_get_their_look_whatever_it_is() {
    let mut bench = Fake::new(cpu(0.1));
    search(&mut bench, &grid(2), &goal()).unwrap();
    assert!(bench.spent <= goal().budget.mul_f64(1.2), "{:?}", bench.spent);

    // A picture takes ten seconds.
    let mut slow = Fake::new(|setup: Setup| cpu(0.1)(setup) / 1000.0);
    let (chosen, table) = search(&mut slow, &grid(2), &goal()).unwrap();
    assert_eq!(table.iter().map(|it| it.setup).collect::<Vec<_>>(), [setup(1, 1, 1), setup(1, 1, 2), setup(1, 2, 1)]);
    assert_eq!(chosen, setup(1, 1, 2));
}

#[test]
fn what_cannot_win_is_not_measured_any_further() {
    let mut bench = Fake::new(cpu(0.0));
    search(&mut bench, &grid(4), &goal()).unwrap();
    let looks = |wanted: Setup| bench.measured.iter().filter(|it| **it == wanted).count();
    // Half of the cores idle.
    assert_eq!((looks(setup(1, 1, 2)), looks(setup(2, 1, 2))), (2, 0));
    assert!(looks(setup(1, 1, 4)) >= 2 + RACE_ROUNDS + FINAL_ROUNDS);
}

#[test]
fn the_full_sweep_says_how_near_the_choice_is() {
    let all = space(3).all();
    let mut bench = Fake::new(cpu(1.0));
    let found = sweep(&mut bench, &all, setup(1, 1, 3), &goal()).unwrap();
    assert_eq!((found.best, found.measurements.len()), (setup(32, 1, 3), all.len()));
    assert!((found.choice_of_best - 1.0 / (2.0 - 1.0 / 32.0)).abs() < 1e-9, "{found:?}");
    let best = sweep(&mut bench, &all, found.best, &goal()).unwrap();
    assert!((best.choice_of_best - 1.0).abs() < 1e-9, "{best:?}");
}

#[test]
fn one_is_not_several() {
    let said = |instances, intra_op_threads| {
        let setup = Setup { max_batch_size: 8, intra_op_threads, instances };
        Measurement { setup, images_per_second: 12.5, batch_latency_ms: 320.0, score: 0.0 }.to_string()
    };
    assert_eq!(said(1, 1), "1 instance, 1 thread each, batch 8: 12.5/s, 320.0 ms");
    assert_eq!(said(2, 4), "2 instances, 4 threads each, batch 8: 12.5/s, 320.0 ms");
}
