//! What serves: a graph of its own, or an ensemble, which is as ready as its members are.

use std::sync::Arc;

use tempfile::TempDir;

use super::ensemble::Definition;
use super::fingerprint::Fingerprint;
use super::registry::{Entries, is_either_shared, is_shared};
use super::state::{Entry, Found, ModelState, Row};
use super::{GraphModel, Model};
use crate::error::{Error, Result};

/// All models, by name.
pub(super) type Models = Entries<Serving>;

/// What serves one version.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) served: Served,
    /// The files that it was made of, where that is known and they are the repository's own.
    pub(super) made_of: Option<Fingerprint>,
    /// The overridden files, which go when the model does.
    pub(super) _overridden: Option<Arc<TempDir>>,
}

/// Where the answers come from.
#[derive(Debug)]
pub(super) enum Served {
    /// A model with a graph of its own.
    Graph(Arc<Model>),
    /// An ensemble, put together for each request.
    Ensemble(Arc<Definition>),
}

impl Serving {
    /// Holds no batch back any more.
    pub(super) fn drain(&self) {
        if let Some(graph) = self.graph() {
            graph.scheduler().drain();
        }
    }

    /// Whether a request holds it, directly or as an ensemble's member.
    pub(super) fn is_held(&self) -> bool {
        match &self.served {
            // The model holds its graph, once.
            Served::Graph(model) => {
                model.graph().map_or_else(|| is_shared(model), |graph| is_either_shared(model, graph))
            }
            Served::Ensemble(definition) => definition.is_held(),
        }
    }

    /// Lets the instances finish what is queued, and ends them. Blocks.
    pub(super) fn close(&self) {
        if let Some(graph) = self.graph() {
            graph.scheduler().close();
        }
    }

    fn graph(&self) -> Option<&Arc<GraphModel>> {
        match &self.served {
            Served::Graph(model) => model.graph(),
            Served::Ensemble(_) => None,
        }
    }
}

impl Served {
    /// The model that answers: an ensemble is put together out of its members as they are now.
    ///
    /// # Errors
    /// `Unavailable` where that cannot be, with the reason.
    pub(super) fn model(&self, models: &Models) -> Result<Arc<Model>> {
        let definition = match self {
            Self::Graph(model) => return Ok(Arc::clone(model)),
            Self::Ensemble(definition) => definition,
        };
        definition
            .assemble(|name, version| match find(models, name, version)? {
                Self::Graph(model) => Ok(Some(Arc::clone(model))),
                Self::Ensemble(_) => Ok(None),
            })
            .map(Arc::new)
    }

    pub(super) fn is_ensemble(&self) -> bool {
        matches!(self, Self::Ensemble(_))
    }
}

/// What serves `version` of the model called `name`, or without one the highest that does.
pub(super) fn find<'m>(models: &'m Models, name: &str, version: Option<u64>) -> Result<&'m Served> {
    let unknown = || Error::not_found(format!("there is no model called {name}"));
    match (models.get(name).ok_or_else(unknown)?.find(version), version) {
        (Found::Serving(serving), _) => Ok(&serving.served),
        (Found::Loading, _) => Err(Error::unavailable(format!("the model {name} is loading"))),
        (Found::Unloading, _) => Err(Error::unavailable(format!("the model {name} is being unloaded"))),
        (Found::Unavailable(reason), _) => {
            Err(Error::unavailable(format!("the model {name} is unavailable: {reason}")).lasting())
        }
        (Found::Nothing, Some(version)) => {
            Err(Error::not_found(format!("the model {name} has no version {version} that is loaded")))
        }
        (Found::Nothing, None) => Err(unknown()),
    }
}

/// The rows of the index. A version that is loaded and an ensemble is as ready as its members are.
pub(super) fn rows(models: &Models, entry: &Entry<Serving>) -> Vec<Row> {
    let mut rows = entry.rows();
    for (version, serving) in entry.serving() {
        if let Err(error) = serving.served.model(models)
            && let Some((_, state, reason)) = rows.iter_mut().find(|(number, ..)| *number == Some(version))
        {
            (*state, *reason) = (ModelState::Unavailable, error.chain());
        }
    }
    rows
}
