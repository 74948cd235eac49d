//! A served version that is replaced, unloaded or ended while requests hold it, under every interleaving of a few threads: no
//! request is lost, nothing is ended while it is held or ended twice, and a drain ends when the last holder is gone. loom fails on
//! a thread that waits for ever.
//!
//! The files are the repository's and the scheduler's own, compiled once more against loom's locks and handles.
//! `tests/interleavings.rs` does the same for what happens within one version, so here a request runs what it queues itself.

#[expect(
    unreachable_pub,
    clippy::struct_field_names,
    reason = "it is public where it belongs, where that lint spares it"
)]
#[path = "../src/scheduler/batcher.rs"]
mod batcher;
#[expect(dead_code, reason = "not all of it is modelled")]
#[path = "../src/scheduler/queue.rs"]
mod queue;
#[path = "../src/repository/registry.rs"]
mod registry;
#[expect(dead_code, unreachable_pub, reason = "it is public where it belongs, and not all of it is modelled")]
#[path = "../src/repository/state.rs"]
mod state;

/// What `repository::sync` and `scheduler::sync` are there.
mod sync {
    pub(super) use counted::Arc;
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
    pub(super) use std::sync::PoisonError;

    /// loom does not take reading the count of its own `Arc` for something that the order of threads could matter to. Here it does.
    mod counted {
        use loom::sync::atomic::{AtomicUsize, Ordering};
        use std::ops::Deref;

        /// A handle whose count is an atomic number that loom knows.
        pub(crate) struct Arc<T>(loom::sync::Arc<(AtomicUsize, T)>);

        impl<T> Arc<T> {
            pub(crate) fn new(value: T) -> Self {
                Self(loom::sync::Arc::new((AtomicUsize::new(1), value)))
            }

            pub(crate) fn strong_count(this: &Self) -> usize {
                this.0.0.load(Ordering::SeqCst)
            }
        }

        impl<T> Clone for Arc<T> {
            fn clone(&self) -> Self {
                self.0.0.fetch_add(1, Ordering::SeqCst);
                Self(self.0.clone())
            }
        }

        impl<T> Drop for Arc<T> {
            fn drop(&mut self) {
                self.0.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        impl<T> Deref for Arc<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0.1
            }
        }
    }
}

use std::time::{Duration, Instant};

use batcher::{Policy, Ticket};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use queue::Queue;
use registry::{Ended, Registry, is_either_shared};
use state::{Entry, Found, Loaded, ModelState};
use sync::Arc;

/// As in `tests/interleavings.rs`.
const PREEMPTIONS: usize = 2;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// What has a queue: a graph there.
struct Graph {
    queue: Queue<usize>,
    /// Of its own, so that looking at it holds no graph.
    ended: Arc<AtomicUsize>,
}

/// What a request is given, and what serves.
struct Model {
    number: usize,
    graph: Arc<Graph>,
}

impl Graph {
    /// What a request does that holds the graph, as its own instance. That it is not refused is what is checked here.
    fn answer_one(&self) {
        let ticket = Ticket { priority: 1, deadline: None, arrived: Instant::now(), rows: 1, row_shape: Vec::new() };
        self.queue.push(ticket, 0).expect("what is held is not closed");
        assert_eq!(self.queue.take(1).batch.len(), 1);
        assert_eq!(self.ended.load(Ordering::SeqCst), 0, "it is held");
    }

    fn end(&self) {
        assert_eq!(self.ended.fetch_add(1, Ordering::SeqCst), 0, "it is ended twice");
        self.queue.close();
    }
}

impl Model {
    fn new(number: usize) -> Arc<Self> {
        let policy =
            Policy { max_batch_size: 1, max_queue_delay: Duration::ZERO, max_priority_wait: Duration::from_hours(1) };
        let graph = Graph { queue: Queue::new(policy, 2), ended: Arc::new(AtomicUsize::new(0)) };
        Arc::new(Self { number, graph: Arc::new(graph) })
    }
}

/// Waits, as the repository does, until nobody holds what was retired, and ends it.
fn drain(retired: Vec<Arc<Model>>) {
    for model in retired {
        while is_either_shared(&model, &model.graph) {
            thread::yield_now();
        }
        model.graph.end();
    }
}

type Models = Arc<Registry<Arc<Model>>>;

/// A registry in which `model` serves.
fn serving(model: Arc<Model>) -> Models {
    let models = Arc::new(Registry::default());
    begin(&models);
    assert!(matches!(load(&models, model), Ended::Swapped(retired) if retired.is_empty()));
    models
}

fn begin(models: &Registry<Arc<Model>>) {
    models.change("m", Entry::begin_load, |_, _| ());
    models.change("m", |entry| entry.begin_versions(&[1]), |_, _| ());
}

fn load(models: &Registry<Arc<Model>>, model: Arc<Model>) -> Ended<Arc<Model>> {
    models.finish_load("m", vec![(1, Loaded::New(model))], |entries, _| {
        // Whoever is told of the change sees all of it.
        let states: Vec<_> = entries.values().flat_map(Entry::rows).map(|(_, state, _)| state).collect();
        assert!(states.iter().all(|state| [ModelState::Ready, ModelState::Loading].contains(state)), "{states:?}");
    })
}

/// What a request gets.
fn get(models: &Registry<Arc<Model>>) -> Option<Arc<Model>> {
    match models.read().get("m")?.find(None) {
        Found::Serving(model) => Some(Arc::clone(model)),
        _ => None,
    }
}

#[test]
fn a_request_is_answered_by_the_version_it_got_whatever_replaces_that() {
    check(|| {
        let models = serving(Model::new(1));
        let requests = [0, 1].map(|_| {
            let models = Arc::clone(&models);
            thread::spawn(move || {
                let model = get(&models).expect("there is always a version that serves");
                assert!([1, 2].contains(&model.number));
                model.graph.answer_one();
            })
        });
        begin(&models);
        match load(&models, Model::new(2)) {
            Ended::Swapped(retired) => {
                assert_eq!(retired.len(), 1);
                drain(retired);
            }
            Ended::Refused(_) => panic!("nobody has closed it"),
        }
        for request in requests {
            request.join().unwrap();
        }
        assert_eq!(get(&models).unwrap().number, 2);
    });
}

/// As an ensemble's request does: it holds the members' graphs, and no model.
#[test]
fn what_holds_the_graph_alone_holds_the_version() {
    check(|| {
        let models = serving(Model::new(1));
        let request = Arc::clone(&models);
        let request = thread::spawn(move || {
            let graph = get(&request).map(|model| Arc::clone(&model.graph));
            if let Some(graph) = graph {
                graph.answer_one();
            }
        });
        drain(models.change("m", Entry::begin_unload, |_, _| ()));
        models.change("m", Entry::finish_drain, |_, _| ());
        request.join().unwrap();
        assert!(get(&models).is_none());
    });
}

#[test]
fn an_unload_during_a_load_leaves_every_version_either_serving_or_ended() {
    check(|| {
        let (old, new) = (Model::new(1), Model::new(2));
        let ended = [&old, &new].map(|model| Arc::clone(&model.graph.ended));
        let models = serving(old);
        begin(&models);
        // The repository lets one action at a time work on a model; the lock must be enough where it did not.
        let unloading = Arc::clone(&models);
        let unloading = thread::spawn(move || {
            drain(unloading.change("m", Entry::begin_unload, |_, _| ()));
            unloading.change("m", Entry::finish_drain, |_, _| ());
        });
        let request = Arc::clone(&models);
        let request = thread::spawn(move || get(&request).map(|model| model.graph.answer_one()));
        match models.finish_load("m", vec![(1, Loaded::New(new))], |_, _| ()) {
            Ended::Swapped(retired) => drain(retired),
            Ended::Refused(_) => panic!("nobody has closed it"),
        }
        unloading.join().unwrap();
        request.join().unwrap();
        let serves = get(&models).map(|model| model.number);
        let ended = ended.map(|ended| ended.load(Ordering::SeqCst));
        assert!([(Some(2), [1, 0]), (None, [1, 1])].contains(&(serves, ended)), "{serves:?} serves, ended: {ended:?}");
    });
}

#[test]
fn what_is_loaded_while_the_server_ends_is_ended_too() {
    check(|| {
        let new = Model::new(1);
        let graph = Arc::clone(&new.graph);
        let models: Models = Arc::new(Registry::default());
        begin(&models);
        let closing = Arc::clone(&models);
        let closing = thread::spawn(move || {
            closing.close();
            // As the repository's `close`, which waits for no holder: the listeners have ended.
            if let Some(model) = get(&closing) {
                model.graph.end();
            }
        });
        match load(&models, new) {
            Ended::Swapped(retired) => assert!(retired.is_empty()),
            Ended::Refused(loaded) => {
                assert_eq!(loaded.len(), 1);
                assert!(get(&models).is_none());
                loaded[0].graph.end();
            }
        }
        closing.join().unwrap();
        assert_eq!(graph.ended.load(Ordering::SeqCst), 1);
    });
}
