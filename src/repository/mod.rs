//! The model repository: which models and versions there are, and what state each is in.
//!
//! It knows folders, configurations and lifecycles; it does not know requests.

pub mod config;
mod description;
mod ensemble;
mod facts;
mod graph_model;
mod interface;
mod labels;
pub mod layout;
mod model;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tracing::{error, info};

use self::config::ModelConfig;
pub use self::description::{Description, TensorDescription};
use self::ensemble::Definition;
pub use self::ensemble::{Ensemble, Member};
pub use self::graph_model::GraphModel;
pub use self::interface::{ClassOutput, Interface};
pub use self::model::{Kind, Model};
use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// Where a model version is in its life, as the repository index spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name says what it is")]
pub enum ModelState {
    Unknown,
    Ready,
    Unavailable,
    Loading,
    Unloading,
}

impl ModelState {
    const ALL: &[&str] = &["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"];

    /// The index's spelling, `"READY"` for instance.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
        }
    }
}

/// One row of the repository index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// The version; `None` where the model failed before its versions were known.
    pub version: Option<u64>,
    /// Its state.
    pub state: ModelState,
    /// Why it is not ready; empty when it is.
    pub reason: String,
}

/// All models.
#[derive(Debug)]
pub struct Repository {
    root: PathBuf,
    runtime: Runtime,
    metrics: Metrics,
    models: RwLock<BTreeMap<String, Entry>>,
    changes: watch::Sender<()>,
}

/// A model: what is known of its versions, or why nothing is.
#[derive(Debug, Default)]
struct Entry {
    failure: Option<String>,
    versions: BTreeMap<u64, Version>,
}

#[derive(Debug)]
enum Version {
    Loading,
    Ready(Arc<Model>),
    /// As ready as its members are.
    Ensemble(Arc<Definition>),
    Unavailable(String),
}

impl Repository {
    /// A repository in which nothing is loaded yet.
    pub fn new(root: impl Into<PathBuf>, runtime: Runtime, metrics: Metrics) -> Self {
        Self { root: root.into(), runtime, metrics, models: RwLock::default(), changes: watch::Sender::default() }
    }

    /// Loads every model under the root, one after the other. A model that cannot be loaded is unavailable, with a reason;
    /// the others are not touched by that. Blocks.
    ///
    /// # Errors
    /// `NotFound` when the root itself cannot be read.
    pub fn load_all(&self) -> Result<()> {
        let models = layout::models(&self.root)?;
        for (name, _) in &models {
            self.change(name, |entry| *entry = Entry::default());
        }
        for (name, folder) in &models {
            self.load(name, folder);
        }
        Ok(())
    }

    /// Loads one model by name. Blocks.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder; else why its newest version is unavailable.
    pub fn load_one(&self, name: &str) -> Result<()> {
        let models = layout::models(&self.root)?;
        let Some((name, folder)) = models.iter().find(|(found, _)| found == name) else {
            return Err(Error::not_found(format!("there is no model {name} in {}", self.root.display())));
        };
        self.load(name, folder);
        for member in self.members(name) {
            if let Some((name, folder)) = models.iter().find(|(found, _)| *found == member) {
                self.load(name, folder);
            }
        }
        self.get(name, None).map(drop)
    }

    /// The members that an ensemble names; none for another model.
    fn members(&self, name: &str) -> Vec<String> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let versions = models.get(name).into_iter().flat_map(|entry| entry.versions.values());
        let members = versions.filter_map(|version| match version {
            Version::Ensemble(definition) => Some(definition.members().map(str::to_owned)),
            _ => None,
        });
        members.flatten().collect()
    }

    fn load(&self, name: &str, folder: &Path) {
        match Definition::read(&self.metrics, folder, name) {
            Ok(None) => self.load_graph(name, folder),
            Ok(Some(definition)) => {
                let version = definition.version();
                let members = definition.members().collect::<Vec<_>>().join(", ");
                info!(model = name, version, members, "ensemble defined");
                self.set(name, version, Version::Ensemble(Arc::new(definition)));
            }
            Err(failure) => {
                let reason = failure.chain();
                error!(model = name, reason, "model unavailable");
                self.change(name, |entry| entry.failure = Some(reason));
            }
        }
    }

    fn load_graph(&self, name: &str, folder: &Path) {
        let prepared = ModelConfig::read(folder).and_then(|config| {
            let versions = config.versions.select(&layout::versions(folder)?);
            if versions.is_empty() {
                return Err(Error::not_found(format!(
                    "{}: there is no version folder (a number, as 1)",
                    folder.display()
                )));
            }
            Ok((config, versions))
        });
        let (config, versions) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                let reason = failure.chain();
                error!(model = name, reason, "model unavailable");
                self.change(name, |entry| entry.failure = Some(reason));
                return;
            }
        };
        if !folder.join(layout::CONFIG_FILE).exists() {
            info!(model = name, "there is no config.toml: torchvision's ImageNet preprocessing is assumed");
        }
        for &version in &versions {
            self.set(name, version, Version::Loading);
        }
        for &version in &versions {
            // Whatever is wrong with a model must not keep the others from being served.
            let loaded = catch_unwind(AssertUnwindSafe(|| {
                Model::load(&self.runtime, &self.metrics, folder, name, version, &config)
            }))
            .unwrap_or_else(|_| {
                Err(Error::internal(format!("{}: loading version {version} failed", folder.display())))
            });
            let state = loaded.map(Arc::new).map_or_else(
                |failure| {
                    let reason = failure.chain();
                    error!(model = name, version, reason, "model unavailable");
                    Version::Unavailable(reason)
                },
                Version::Ready,
            );
            self.set(name, version, state);
        }
    }

    /// The model called `name`, in `version` or, without one, the highest that is ready.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version, `Unavailable` with the reason where it is known but not ready.
    pub fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Model>> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        match find(&models, name, version)? {
            Version::Ensemble(definition) => assemble(&models, definition)
                .map_err(|error| error.map_message(|reason| format!("the model {name} is unavailable: {reason}"))),
            found => found.model(name),
        }
    }

    /// Every version that is ready, by name and version.
    pub fn ready(&self) -> Vec<Arc<Model>> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let versions = models.values().flat_map(|entry| entry.versions.values());
        versions
            .filter_map(|version| match version {
                Version::Ready(model) => Some(Arc::clone(model)),
                Version::Ensemble(definition) => assemble(&models, definition).ok(),
                _ => None,
            })
            .collect()
    }

    /// Every model and version that is known, with its state.
    pub fn index(&self) -> Vec<IndexEntry> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let mut index = Vec::new();
        for (name, entry) in &*models {
            if entry.versions.is_empty() {
                let (state, reason) = match &entry.failure {
                    Some(reason) => (ModelState::Unavailable, reason.clone()),
                    None => (ModelState::Loading, String::new()),
                };
                index.push(IndexEntry { name: name.clone(), version: None, state, reason });
            }
            for (&number, version) in &entry.versions {
                let (state, reason) = version.state(&models);
                index.push(IndexEntry { name: name.clone(), version: Some(number), state, reason });
            }
        }
        index
    }

    /// Sees every change of a model's state.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Has every model finish what is queued and end its instances. Blocks.
    pub fn close(&self) {
        for model in self.ready() {
            if let Kind::Graph(graph) = model.kind() {
                graph.scheduler().close();
            }
        }
    }

    fn set(&self, name: &str, number: u64, version: Version) {
        self.change(name, |entry| {
            entry.failure = None;
            entry.versions.insert(number, version);
        });
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        change(models.entry(name.to_owned()).or_default());
        self.show_states(&models, name);
        drop(models);
        self.changes.send_replace(());
    }

    /// Shows the states of the model called `name` in the metrics, and of every ensemble, which may follow.
    fn show_states(&self, models: &BTreeMap<String, Entry>, name: &str) {
        for (other, entry) in models {
            for (&number, version) in &entry.versions {
                if other == name || matches!(version, Version::Ensemble(_)) {
                    let (state, _) = version.state(models);
                    self.metrics.set_state(other, number, state.as_str(), ModelState::ALL);
                }
            }
        }
    }
}

/// The version of the model called `name` that is meant: the highest that is ready where none is named.
fn find<'m>(models: &'m BTreeMap<String, Entry>, name: &str, version: Option<u64>) -> Result<&'m Version> {
    let entry = models.get(name).ok_or_else(|| Error::not_found(format!("there is no model called {name}")))?;
    let found = match version {
        Some(version) => entry.versions.get(&version),
        None => {
            let is_usable = |version: &&Version| matches!(version, Version::Ready(_) | Version::Ensemble(_));
            entry.versions.values().rfind(is_usable).or_else(|| entry.versions.values().next_back())
        }
    };
    match (found, version, &entry.failure) {
        (Some(found), ..) => Ok(found),
        (None, _, Some(reason)) => Err(Error::unavailable(format!("the model {name} is unavailable: {reason}"))),
        (None, Some(version), None) => {
            Err(Error::not_found(format!("the model {name} has no version {version} that is loaded")))
        }
        (None, None, None) => Err(Error::unavailable(format!("the model {name} is loading"))),
    }
}

/// Puts an ensemble together out of its members as they are now.
fn assemble(models: &BTreeMap<String, Entry>, definition: &Definition) -> Result<Arc<Model>> {
    definition.assemble(|member, version| find(models, member, version)?.model(member)).map(Arc::new)
}

impl Version {
    /// The model called `name`, of which this is a version, where it has a graph.
    fn model(&self, name: &str) -> Result<Arc<Model>> {
        match self {
            Self::Ready(model) => Ok(Arc::clone(model)),
            Self::Ensemble(_) => {
                Err(Error::unavailable(format!("{name} is an ensemble itself, which cannot be a member")))
            }
            Self::Unavailable(reason) => Err(Error::unavailable(format!("the model {name} is unavailable: {reason}"))),
            Self::Loading => Err(Error::unavailable(format!("the model {name} is loading"))),
        }
    }

    fn state(&self, models: &BTreeMap<String, Entry>) -> (ModelState, String) {
        match self {
            Self::Loading => (ModelState::Loading, String::new()),
            Self::Ready(_) => (ModelState::Ready, String::new()),
            Self::Ensemble(definition) => match assemble(models, definition) {
                Ok(_) => (ModelState::Ready, String::new()),
                Err(error) => (ModelState::Unavailable, error.chain()),
            },
            Self::Unavailable(reason) => (ModelState::Unavailable, reason.clone()),
        }
    }
}
