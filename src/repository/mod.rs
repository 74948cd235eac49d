//! The model repository: which models and versions there are, and what state each is in.
//!
//! It knows folders, configurations and lifecycles; it does not know requests.

mod beside;
pub mod config;
mod control;
mod description;
mod ensemble;
mod facts;
mod failures;
mod fingerprint;
mod golden;
mod graph_model;
mod instances;
mod interface;
mod labels;
pub mod layout;
mod lifecycle;
mod loader;
mod model;
mod model_file;
mod overrides;
mod readiness;
mod registry;
mod served;
mod single_model;
mod state;
mod stocking;
mod sync;
mod translate;
pub mod tuning;
mod warm_up;
mod watcher;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

pub use self::control::{ModelControlConfig, ModelControlMode};
pub use self::ensemble::{Ensemble, Member};
pub use self::graph_model::GraphModel;
pub use self::interface::{ClassOutput, Interface};
use self::lifecycle::Lines;
use self::loader::{Action, Outcome};
use self::model::Host;
pub use self::model::{Kind, Model};
pub use self::model_file::ModelFile;
pub use self::overrides::{Overrides, unloads_members};
pub use self::readiness::Lack;
use self::readiness::Readiness;
use self::registry::Registry;
use self::served::{Models, Served, Serving};
pub use self::single_model::SingleModel;
pub use self::state::ModelState;
use self::state::{Entry, Row, STATES_IN_METRICS, state_in_metrics};
pub use self::translate::Machine;
use self::tuning::Tuner;
use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::response_cache::ResponseCache;
use crate::scheduler::device::Devices;
use crate::store::Store;
use crate::telemetry::Metrics;

/// One row of the repository index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// The version; `None` where the model failed before its versions were known.
    pub version: Option<u64>,
    /// Its state.
    pub state: ModelState,
    /// Why it is not ready, or why what is ready is not what the last load was to bring; else empty.
    pub reason: String,
}

/// All models.
#[derive(Debug)]
pub struct Repository {
    root: PathBuf,
    control: ModelControlConfig,
    runtime: Runtime,
    metrics: Metrics,
    devices: Devices,
    response_cache: Option<ResponseCache>,
    store: Option<Store>,
    tuner: Tuner,
    models: Registry<Serving>,
    readiness: Mutex<Readiness>,
    lines: Mutex<Lines>,
    /// Places for loads that go on at the same time.
    loads: Semaphore,
    changes: watch::Sender<()>,
    closed: watch::Sender<bool>,
}

impl Repository {
    /// A repository in which nothing is loaded yet. `control` says what [`Repository::start`] loads, and who decides
    /// afterwards.
    pub fn new(root: impl Into<PathBuf>, control: ModelControlConfig, runtime: Runtime, metrics: Metrics) -> Self {
        let may_be_empty = control.mode == ModelControlMode::Explicit && control.load.is_empty();
        Self {
            root: root.into(),
            control,
            runtime,
            metrics,
            devices: Devices::new(),
            response_cache: None,
            store: None,
            tuner: Tuner::default(),
            models: Registry::default(),
            readiness: Mutex::new(Readiness::new(may_be_empty)),
            lines: Mutex::default(),
            loads: Semaphore::new(lifecycle::PARALLEL_LOADS),
            changes: watch::Sender::default(),
            closed: watch::Sender::new(false),
        }
    }

    /// Has the models that are loaded from now on keep their answers in `cache`, unless their configuration says otherwise.
    pub fn with_response_cache(self, cache: Option<ResponseCache>) -> Self {
        Self { response_cache: cache, ..self }
    }

    /// Has `store` bring to the root what is loaded from it.
    pub fn with_store(self, store: Option<Store>) -> Self {
        Self { store, ..self }
    }

    /// Keeps in `folder` how models were tuned. Without it they are tuned whenever they are loaded.
    pub fn with_tuning_cache(self, folder: Option<PathBuf>) -> Self {
        Self { tuner: Tuner::new(folder), ..self }
    }

    /// Loads every model under the root, one after the other, and follows nothing. A model that cannot be loaded is
    /// unavailable, with a reason; the others are not touched by that. Blocks.
    ///
    /// # Errors
    /// `NotFound` when the root itself cannot be read.
    pub fn load_all(&self) -> Result<()> {
        for (name, _) in layout::models(&self.root)? {
            // The reason is in the log and in the index.
            drop(self.load_one(&name));
        }
        Ok(())
    }

    /// Loads one model by name. Blocks.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder; else why it cannot be loaded.
    pub fn load_one(&self, name: &str) -> Result<()> {
        self.load_now(name)?;
        self.members(name).iter().try_for_each(|member| self.load_now(member))
    }

    fn load_now(&self, name: &str) -> Result<()> {
        let Outcome { result, retired } = self.perform(name, &Action::Load(Overrides::default()));
        retired.iter().for_each(Serving::close);
        result
    }

    /// The members of the ensemble called `name`; none for another model.
    fn members(&self, name: &str) -> Vec<String> {
        let models = self.models.read();
        let ensembles =
            models.get(name).into_iter().flat_map(Entry::serving).filter_map(|(_, serving)| match &serving.served {
                Served::Ensemble(definition) => Some(definition.members().map(str::to_owned)),
                Served::Graph(_) => None,
            });
        ensembles.flatten().collect()
    }

    /// Whether an ensemble has the model called `name` among its members.
    fn is_needed(&self, name: &str) -> bool {
        let models = self.models.read();
        models.values().flat_map(Entry::serving).any(|(_, serving)| match &serving.served {
            Served::Ensemble(definition) => definition.members().any(|member| member == name),
            Served::Graph(_) => false,
        })
    }

    /// The model called `name`, in `version` or, without one, the highest that is ready.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version, `Unavailable` with the reason where it is known but not ready.
    pub fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Model>> {
        let models = self.models.read();
        let found = served::find(&models, name, version);
        let found = match self.control.mode {
            // The index has it where it could be loaded.
            ModelControlMode::Explicit if !models.contains_key(name) => {
                found.map_err(|error| error.map_message(|_| format!("no model called {name} is loaded")))
            }
            _ => found,
        };
        found?
            .model(&models)
            .map_err(|error| error.map_message(|reason| format!("the model {name} is unavailable: {reason}")))
    }

    /// Every version that is ready, by name and version.
    pub fn ready(&self) -> Vec<Arc<Model>> {
        let models = self.models.read();
        let served = models.values().flat_map(Entry::serving);
        served.filter_map(|(_, serving)| serving.served.model(&models).ok()).collect()
    }

    /// The kept answers of its models, where any are kept.
    pub fn response_cache(&self) -> Option<&ResponseCache> {
        self.response_cache.as_ref()
    }

    /// What models are loaded into.
    fn host(&self) -> Host<'_> {
        Host {
            runtime: &self.runtime,
            metrics: &self.metrics,
            devices: &self.devices,
            response_cache: self.response_cache.as_ref(),
            tuner: &self.tuner,
        }
    }

    /// The names of the models that are to be served, whether they are ready or not: without those that were unloaded.
    pub fn names(&self) -> Vec<String> {
        let models = self.models.read();
        models.iter().filter(|(_, entry)| !entry.is_unloaded()).map(|(name, _)| name.clone()).collect()
    }

    /// Every model and version that is known, with its state.
    pub fn index(&self) -> Vec<IndexEntry> {
        let models = self.models.read();
        let rows = models
            .iter()
            .flat_map(|(name, entry)| served::rows(&models, entry).into_iter().map(move |row| (name, row)));
        rows.map(|(name, (version, state, reason))| IndexEntry { name: name.clone(), version, state, reason }).collect()
    }

    /// As [`Repository::index`], and where clients decide what is loaded also the models that are there to be loaded. Blocks.
    pub fn full_index(&self) -> Vec<IndexEntry> {
        let mut index = self.index();
        if self.control.mode == ModelControlMode::Explicit
            && let Ok(present) = self.present()
        {
            let unknown = present.into_iter().filter(|name| !index.iter().any(|entry| entry.name == *name));
            let unknown: Vec<_> = unknown
                .map(|name| IndexEntry {
                    name,
                    version: None,
                    state: ModelState::Unavailable,
                    reason: "not loaded".to_owned(),
                })
                .collect();
            index.extend(unknown);
            index.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        }
        index
    }

    /// Sees every change of a model's state.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Holds no batch back any more, so that what has been taken is answered soon. Blocks for a moment.
    pub fn drain(&self) {
        self.models.read().values().flat_map(Entry::serving).for_each(|(_, serving)| serving.drain());
    }

    /// Loads and follows nothing any more. Calls that wait for a load are refused; a load that has begun ends, and what it has
    /// loaded serves nobody.
    pub fn stop(&self) {
        self.models.close();
        self.tuner.stop();
        self.closed.send_replace(true);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).close();
    }

    /// As [`Repository::stop`]; then has every model finish what is queued, and ends its instances. Blocks.
    pub fn close(&self) {
        self.stop();
        for model in self.ready() {
            if let Kind::Graph(graph) = model.kind() {
                graph.scheduler().close();
            }
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.models.read().contains_key(name)
    }

    /// Changes the entry of the model called `name`, and has metrics and watchers see what has become of it.
    fn change<T>(&self, name: &str, change: impl FnOnce(&mut Entry<Serving>) -> T) -> T {
        let changed = self.models.change(name, change, |models, before| self.show_change(models, name, before));
        self.changes.send_replace(());
        changed
    }

    /// Shows in the metrics what has become of the model called `name`, which had the rows `before`. To be called while nobody
    /// can change it, so that the last change is also the last that the metrics see.
    fn show_change(&self, models: &Models, name: &str, before: &[Row]) {
        let after = models.get(name).map(Entry::rows).unwrap_or_default();
        for &(version, ..) in before {
            if let Some(gone) = version.filter(|_| !after.iter().any(|(other, ..)| *other == version)) {
                self.metrics.forget_state(name, gone, STATES_IN_METRICS);
            }
        }
        self.show_states(models, name);
        self.observe(models);
    }

    /// Shows the states of the model called `name` in the metrics, and of every ensemble, which may follow.
    fn show_states(&self, models: &Models, name: &str) {
        let follows = |entry: &Entry<Serving>| entry.serving().any(|(_, serving)| serving.served.is_ensemble());
        for (other, entry) in models.iter().filter(|(other, entry)| *other == name || follows(entry)) {
            for (version, state, reason) in served::rows(models, entry) {
                if let Some(version) = version {
                    self.metrics.set_state(other, version, state_in_metrics(state, &reason), STATES_IN_METRICS);
                }
            }
        }
    }
}

fn shutting_down() -> Error {
    Error::unavailable("the server is shutting down")
}
