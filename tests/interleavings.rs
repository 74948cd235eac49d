//! The scheduler's concurrent parts under every interleaving of a few threads: the queue, the turns of a device, and the loop
//! that an instance works in. loom runs each model once for every order in which the threads can meet at a lock, and fails on
//! a thread that waits for ever: on a lost wake-up, that is.
//!
//! The files are the scheduler's own, compiled once more against loom's locks.

#[expect(
    unreachable_pub,
    clippy::struct_field_names,
    reason = "it is public where it belongs, where that lint spares it"
)]
#[path = "../src/scheduler/batcher.rs"]
mod batcher;
#[expect(dead_code, unreachable_pub, reason = "it is public where it belongs, and not all of it is modelled")]
#[path = "../src/scheduler/device.rs"]
mod device;
#[expect(dead_code, reason = "not all of it is modelled")]
#[path = "../src/scheduler/queue.rs"]
mod queue;
#[path = "../src/scheduler/worker.rs"]
mod worker;

/// What `scheduler::sync` is there.
mod sync {
    pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

use std::time::{Duration, Instant};

use batcher::{Policy, Ticket};
use device::{Device, Share};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use queue::{Closed, Queue};
use sync::{Arc, Condvar, Mutex, MutexGuard};
use worker::{Work, work};

/// How often a thread is stopped where it could go on. loom's authors found that two or three show nearly every error, and each
/// one more costs many times as long.
const PREEMPTIONS: usize = 2;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

fn queue(instances: usize) -> Arc<Queue<usize>> {
    held_back_queue(instances, Duration::ZERO)
}

fn held_back_queue(instances: usize, max_queue_delay: Duration) -> Arc<Queue<usize>> {
    // What is overdue is far away: time must not decide anything here.
    let policy = Policy { max_batch_size: 2, max_queue_delay, max_priority_wait: Duration::from_hours(1) };
    Arc::new(Queue::new(policy, instances))
}

fn ticket() -> Ticket {
    Ticket { priority: 1, deadline: None, arrived: Instant::now(), rows: 1, row_shape: Vec::new() }
}

/// Counts how often each entry was answered, and how many runs there are at a time.
struct Answers {
    counts: Mutex<[usize; 3]>,
    more: Condvar,
    running: AtomicUsize,
}

impl Answers {
    fn new() -> Arc<Self> {
        Arc::new(Self { counts: Mutex::new([0; 3]), more: Condvar::new(), running: AtomicUsize::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, [usize; 3]> {
        self.counts.lock().expect("no thread panics")
    }

    fn counts(&self) -> [usize; 3] {
        *self.lock()
    }

    /// Waits, as a client does, until `entry` is answered.
    fn wait_for(&self, entry: usize) {
        let mut counts = self.lock();
        while counts[entry] == 0 {
            counts = self.more.wait(counts).expect("no thread panics");
        }
    }
}

struct Instance {
    answers: Arc<Answers>,
    capacity: usize,
}

impl Work<usize> for Instance {
    fn run(&mut self, batch: Vec<usize>, _: Duration) -> Duration {
        let running = self.answers.running.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(running <= self.capacity, "{running} runs at a time");
        for entry in batch {
            self.answers.lock()[entry] += 1;
        }
        self.answers.more.notify_all();
        self.answers.running.fetch_sub(1, Ordering::SeqCst);
        Duration::from_millis(1)
    }

    fn expire(&mut self, expired: Vec<usize>) {
        panic!("{expired:?} have no deadline");
    }
}

/// A model's part in a device of its own.
fn share(capacity: usize) -> Arc<Share> {
    Arc::new(Share::new(&Arc::new(Device::new(capacity)), 1, Duration::ZERO))
}

/// Starts an instance of a model on `device`.
fn start(
    queue: &Arc<Queue<usize>>,
    share: &Arc<Share>,
    answers: &Arc<Answers>,
    capacity: usize,
) -> thread::JoinHandle<()> {
    let (queue, share) = (Arc::clone(queue), Arc::clone(share));
    let mut instance = Instance { answers: Arc::clone(answers), capacity };
    thread::spawn(move || work(&queue, &share, &mut instance))
}

/// Closes the queue, and waits until its instances have ended.
fn end(queue: &Queue<usize>, instances: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    queue.close();
    for instance in instances {
        instance.join().expect("no thread panics");
    }
}

#[test]
fn every_entry_is_answered_once_and_a_close_ends_every_instance() {
    check(|| {
        let (queue, answers) = (queue(2), Answers::new());
        let share = share(2);
        let instances = [start(&queue, &share, &answers, 2), start(&queue, &share, &answers, 2)];
        let mut accepted = [0; 3];
        for (entry, count) in accepted.iter_mut().enumerate() {
            *count = usize::from(queue.push(ticket(), entry).is_ok());
        }
        end(&queue, instances);
        assert_eq!(answers.counts(), accepted);
    });
}

#[test]
fn an_entry_wakes_an_instance_whatever_the_others_do() {
    check(|| {
        let (queue, answers) = (queue(2), Answers::new());
        let share = share(1);
        let instances = [start(&queue, &share, &answers, 1), start(&queue, &share, &answers, 1)];
        for entry in 0..2 {
            queue.push(ticket(), entry).unwrap();
            answers.wait_for(entry);
        }
        end(&queue, instances);
        assert_eq!(answers.counts(), [1, 1, 0]);
    });
}

#[test]
fn what_is_held_back_is_run_once_the_queue_drains() {
    check(|| {
        // loom's clock stands still, so nothing but the draining can end the wait.
        let (queue, answers) = (held_back_queue(1, Duration::from_hours(1)), Answers::new());
        let share = share(1);
        let instance = start(&queue, &share, &answers, 1);
        queue.push(ticket(), 0).unwrap();
        queue.drain();
        answers.wait_for(0);
        queue.push(ticket(), 1).unwrap();
        answers.wait_for(1);
        end(&queue, [instance]);
        assert_eq!(answers.counts(), [1, 1, 0]);
    });
}

#[test]
fn what_is_pushed_while_the_queue_closes_is_answered_or_refused() {
    check(|| {
        let (queue, answers) = (queue(1), Answers::new());
        let share = share(1);
        let instance = start(&queue, &share, &answers, 1);
        let closing = Arc::clone(&queue);
        let closing = thread::spawn(move || closing.close());
        let accepted = [0, 1, 2].map(|entry| match queue.push(ticket(), entry) {
            Ok(_) => 1,
            Err(Closed) => 0,
        });
        closing.join().unwrap();
        instance.join().unwrap();
        assert_eq!(answers.counts(), accepted);
    });
}

#[test]
fn an_entry_that_is_removed_is_not_answered_and_one_that_is_answered_cannot_be_removed() {
    check(|| {
        let (queue, answers) = (queue(1), Answers::new());
        let share = share(1);
        let instance = start(&queue, &share, &answers, 1);
        let key = queue.push(ticket(), 0).unwrap();
        queue.push(ticket(), 1).unwrap();
        let removed = usize::from(queue.remove(key).is_some());
        end(&queue, [instance]);
        assert_eq!(answers.counts(), [1 - removed, 1, 0]);
    });
}

#[test]
fn models_that_share_a_device_never_run_at_once_where_one_turn_is_all_there_is() {
    check(|| {
        let answers = Answers::new();
        let device = Arc::new(Device::new(1));
        let models = [queue(1), queue(1)];
        let instances = models.clone().map(|queue| {
            let share = Arc::new(Share::new(&device, 1, Duration::from_millis(1)));
            start(&queue, &share, &answers, 1)
        });
        models[0].push(ticket(), 0).unwrap();
        models[1].push(ticket(), 1).unwrap();
        models[0].push(ticket(), 2).unwrap();
        for queue in models {
            queue.close();
        }
        for instance in instances {
            instance.join().unwrap();
        }
        assert_eq!(answers.counts(), [1; 3]);
    });
}

#[test]
fn turns_that_end_are_given_on_to_who_waits() {
    check(|| {
        let device = Arc::new(Device::new(2));
        let wide = Arc::new(Share::new(&device, 2, Duration::from_millis(1)));
        let narrow = Arc::new(Share::new(&device, 1, Duration::from_millis(1)));
        let users = [Arc::clone(&wide), wide, narrow].map(|share| {
            thread::spawn(move || {
                let mut turn = share.take();
                turn.charge(Duration::from_millis(1));
                turn.renew();
            })
        });
        for user in users {
            user.join().unwrap();
        }
    });
}
