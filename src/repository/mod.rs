//! The model repository: which models and versions there are, and what state each is in.
//!
//! It knows folders, configurations and lifecycles; it does not know requests.

pub mod config;
mod description;
mod facts;
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
pub use self::description::{BACKEND, Description, PLATFORM, TensorDescription};
pub use self::interface::ClassOutput;
pub use self::model::Model;
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
        self.get(name, None).map(drop)
    }

    fn load(&self, name: &str, folder: &Path) {
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
        let entry = models.get(name).ok_or_else(|| Error::not_found(format!("there is no model called {name}")))?;
        let found = match version {
            Some(version) => entry.versions.get(&version),
            None => {
                let ready = entry.versions.values().rfind(|version| matches!(version, Version::Ready(_)));
                ready.or_else(|| entry.versions.values().next_back())
            }
        };
        match (found, version, &entry.failure) {
            (Some(Version::Ready(model)), ..) => Ok(Arc::clone(model)),
            (Some(Version::Unavailable(reason)), ..) | (None, _, Some(reason)) => {
                Err(Error::unavailable(format!("the model {name} is unavailable: {reason}")))
            }
            (None, Some(version), None) => {
                Err(Error::not_found(format!("the model {name} has no version {version} that is loaded")))
            }
            (Some(Version::Loading), ..) | (None, None, None) => {
                Err(Error::unavailable(format!("the model {name} is loading")))
            }
        }
    }

    /// Every version that is ready, by name and version.
    pub fn ready(&self) -> Vec<Arc<Model>> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let versions = models.values().flat_map(|entry| entry.versions.values());
        versions
            .filter_map(|version| match version {
                Version::Ready(model) => Some(Arc::clone(model)),
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
                let (state, reason) = version.state();
                index.push(IndexEntry { name: name.clone(), version: Some(number), state, reason: reason.to_owned() });
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
            model.scheduler().close();
        }
    }

    fn set(&self, name: &str, number: u64, version: Version) {
        self.metrics.set_state(name, number, version.state().0.as_str(), ModelState::ALL);
        self.change(name, |entry| {
            entry.failure = None;
            entry.versions.insert(number, version);
        });
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        change(models.entry(name.to_owned()).or_default());
        drop(models);
        self.changes.send_replace(());
    }
}

impl Version {
    fn state(&self) -> (ModelState, &str) {
        match self {
            Self::Loading => (ModelState::Loading, ""),
            Self::Ready(_) => (ModelState::Ready, ""),
            Self::Unavailable(reason) => (ModelState::Unavailable, reason),
        }
    }
}
