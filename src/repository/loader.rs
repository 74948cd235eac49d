//! One load or unload of one model, from its files to what serves. Blocks.
//!
//! Everything is read, built and checked before anything that serves is touched. It must not know who asked, nor what waits
//! behind: [`super::lifecycle`] lets one action at a time work on a model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tracing::{error, info, warn};

use super::config::ModelConfig;
use super::ensemble::Definition;
use super::fingerprint::Fingerprint;
use super::overrides::{Overrides, is_plain_name};
use super::registry::Ended;
use super::served::{Served, Serving};
use super::state::{Entry, Loaded};
use super::translate::Machine;
use super::{Model, Repository, golden, layout};
use crate::error::{Error, Result};

/// What the index says of a version that is tuned, be it only that the cache is looked at.
const TUNING: &str = "it is being measured how the model runs best, as its configuration says \"auto\"";

/// What can be done with a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Load it, or load all of it again.
    Load(Overrides),
    /// Bring what its store has of it into its folder, where there is a store, and load it.
    Refresh(Overrides),
    /// Follow its folder, which has this fingerprint: what has not changed is kept.
    Follow(Fingerprint),
    /// Take it out of service.
    Unload,
    /// Take it out of service and forget it: its folder is gone.
    Remove,
}

/// What an action came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Result<()>,
    /// What is to be drained.
    pub(super) retired: Vec<Serving>,
}

/// Where a model is read from.
struct Source {
    folder: PathBuf,
    what: What,
    made_of: Option<Fingerprint>,
    overridden: Option<Arc<TempDir>>,
}

/// What the configuration says that the model is.
enum What {
    Graph(Box<ModelConfig>),
    Ensemble(Arc<Definition>),
}

impl Source {
    /// The folder of the version folders.
    fn versions(&self) -> &Path {
        self.overridden.as_ref().map_or(&self.folder, |folder| folder.path())
    }
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        Self { result, retired: Vec::new() }
    }
}

impl Repository {
    /// Does `action` with the model called `name`.
    pub(super) fn perform(&self, name: &str, action: &Action) -> Outcome {
        match action {
            Action::Load(overrides) => self.load_from(name, overrides, None),
            Action::Refresh(overrides) => match self.restock(name, overrides) {
                Ok(()) => self.load_from(name, overrides, None),
                Err(error) => Err(error).into(),
            },
            Action::Follow(fingerprint) => self.load_from(name, &Overrides::default(), Some(fingerprint)),
            // As Triton has it, a model that is not loaded is unloaded with success.
            Action::Unload | Action::Remove if !self.knows(name) => Ok(()).into(),
            Action::Unload | Action::Remove => {
                let retired = self.change(name, Entry::begin_unload);
                info!(model = name, versions = retired.len(), "model out of service");
                Outcome { result: Ok(()), retired }
            }
        }
    }

    fn load_from(&self, name: &str, overrides: &Overrides, expected: Option<&Fingerprint>) -> Outcome {
        let folder = self.root.join(name);
        if !is_plain_name(name) {
            return Err(self.unknown(name)).into();
        }
        let made_of = Fingerprint::of(&folder).ok().flatten();
        if expected.is_some() && made_of.as_ref() != expected {
            // It has changed again since it was looked at, perhaps it is just being written: whoever follows it sees that too.
            return Ok(()).into();
        }
        let overridden = match overrides.check().and_then(|()| overrides.write()) {
            Ok(overridden) => overridden.map(Arc::new),
            Err(error) => return Err(error).into(),
        };
        if overridden.is_none() && !folder.is_dir() {
            let error = self.unknown(name);
            if self.knows(name) {
                self.fail(name, &error);
            }
            return Err(error).into();
        }
        self.change(name, Entry::begin_load);
        let machine = Machine::of(&self.runtime);
        let definition = match &overrides.config {
            Some(text) => Definition::from_json(&self.metrics, &folder, name, text),
            None => Definition::read(&self.metrics, &folder, name),
        };
        let prepared = definition.and_then(|definition| {
            let what = match definition {
                Some(definition) => What::Ensemble(Arc::new(definition)),
                None => What::Graph(Box::new(match overrides.config(name, machine)? {
                    Some(config) => config,
                    None => ModelConfig::read(&folder, machine)?,
                })),
            };
            let source = Source { folder, what, made_of, overridden };
            let versions = select(&source)?;
            Ok((source, versions))
        });
        let (source, versions) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.fail(name, &error);
                return Err(refused(name, &error)).into();
            }
        };
        self.change(name, |entry| entry.begin_versions(&versions));
        let keeps = |version| expected.is_some_and(|expected| self.serves_from(name, version, expected));
        let mut failure = None;
        let mut loaded = Vec::with_capacity(versions.len());
        for version in versions {
            loaded.push((
                version,
                if keeps(version) {
                    Loaded::Kept
                } else {
                    match self.load_version(name, version, &source) {
                        Ok(serving) => Loaded::New(serving),
                        Err(error) => {
                            let reason = error.chain();
                            self.log_failure(name, Some(version), &reason);
                            failure.get_or_insert(refused(name, &error));
                            Loaded::Failed(reason)
                        }
                    }
                },
            ));
        }
        if expected.is_some() && Fingerprint::of(&source.folder).ok().flatten().as_ref() != expected {
            info!(model = name, "the model's folder changed while it was read: what was read is dropped");
            self.change(name, Entry::abandon);
            return Outcome {
                result: Ok(()),
                retired: loaded.into_iter().filter_map(|(_, loaded)| loaded.into_new()).collect(),
            };
        }
        let ended = self.models.finish_load(name, loaded, |models, before| self.show_change(models, name, before));
        self.changes.send_replace(());
        let retired = match ended {
            Ended::Refused(retired) => return Outcome { result: Err(super::shutting_down()), retired },
            Ended::Swapped(retired) => retired,
        };
        self.metrics.record_model_load(name, failure.is_none());
        Outcome { result: failure.map_or(Ok(()), Err), retired }
    }

    /// Loads and checks one version.
    fn load_version(&self, name: &str, version: u64, source: &Source) -> Result<Serving> {
        let served = match &source.what {
            What::Graph(config) => Served::Graph(Arc::new(self.load_graph(name, version, source, config)?)),
            What::Ensemble(definition) => {
                let members = definition.members().collect::<Vec<_>>().join(", ");
                info!(model = name, version, members, "ensemble defined");
                Served::Ensemble(Arc::clone(definition))
            }
        };
        Ok(Serving {
            served,
            made_of: source.made_of.clone().filter(|_| source.overridden.is_none()),
            _overridden: source.overridden.clone(),
        })
    }

    fn load_graph(&self, name: &str, version: u64, source: &Source, config: &ModelConfig) -> Result<Model> {
        let path = config.graph(&source.versions().join(version.to_string()));
        let folder = &source.folder;
        if config.has_auto() {
            self.change(name, |entry| entry.show_progress(version, TUNING));
        }
        // Whatever is wrong with a model must not keep the others from being served.
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let model = Model::load(self.host(), folder, &path, name, version, config)?;
            if let Some(golden) = &config.golden
                && let Some(graph) = model.graph()
                && let Err(error) = golden::check(&model, graph, folder, config, golden)
            {
                graph.scheduler().close();
                return Err(error);
            }
            Ok(model)
        }));
        loaded.unwrap_or_else(|_| Err(Error::internal(format!("{}: loading it panicked", path.display()))))
    }

    /// Whether `version` serves, and was made of the files that `fingerprint` tells of.
    fn serves_from(&self, name: &str, version: u64, fingerprint: &Fingerprint) -> bool {
        let models = self.models.read();
        let mut serving = models.get(name).into_iter().flat_map(Entry::serving);
        let made_of = serving.find(|(number, _)| *number == version).and_then(|(_, serving)| serving.made_of.as_ref());
        made_of.is_some_and(|made_of| made_of.agrees_on(version, fingerprint))
    }

    fn log_failure(&self, name: &str, version: Option<u64>, reason: &str) {
        // What a server that ends gives up is nobody's failure.
        if *self.closed.borrow() {
            info!(model = name, version, reason, "the model was not loaded");
        } else {
            error!(model = name, version, reason, "the model could not be loaded");
        }
    }

    pub(super) fn unknown(&self, name: &str) -> Error {
        Error::not_found(format!("there is no model {name} in {}", self.root.display()))
    }

    /// Notes that a load failed before it came to any version.
    pub(super) fn fail(&self, name: &str, error: &Error) {
        let reason = error.chain();
        self.log_failure(name, None, &reason);
        self.metrics.record_model_load(name, false);
        self.change(name, |entry| entry.fail(&reason));
    }
}

/// The versions that the configuration's policy picks.
fn select(source: &Source) -> Result<Vec<u64>> {
    let versions = match &source.what {
        What::Graph(config) => {
            let present = layout::versions(source.versions())?;
            let (there, missing): (Vec<_>, Vec<_>) =
                config.versions.select(&present).into_iter().partition(|version| present.contains(version));
            if there.is_empty() {
                // Each of them fails, with its path.
                missing
            } else {
                // As in Triton.
                if !missing.is_empty() {
                    let folder = source.versions().display();
                    warn!(%folder, ?missing, "versions that the configuration names are not there");
                }
                there
            }
        }
        What::Ensemble(definition) => vec![definition.version()],
    };
    if versions.is_empty() {
        let folder = source.versions().display();
        return Err(Error::not_found(format!("{folder}: there is no version folder (a number, as 1)")));
    }
    Ok(versions)
}

/// What the caller of a load is told. All of it, for whoever may load models must know what is wrong with one.
fn refused(name: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("the model {name} could not be loaded: {}", error.chain()))
}
