//! What the server says of itself and of its models: metadata, readiness, versions, and the repository.

use std::sync::Arc;

use tokio::sync::watch;

use super::Inference;
use super::Phase;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::{IndexEntry, Model, ModelState, Overrides};

/// The protocol extensions that work: a client may rely on each.
pub const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

impl Inference {
    /// Whether the model called `name`, in `version` or in any, can be used.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version.
    pub fn is_model_ready(&self, name: &str, version: Option<u64>) -> Result<bool> {
        match self.model(name, version) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The version that is meant: every ready version of the model where none is named, of every model where that is not
    /// named either.
    ///
    /// # Errors
    /// As [`Inference::model`].
    pub fn select(&self, name: Option<&str>, version: Option<u64>) -> Result<Vec<Arc<Model>>> {
        let Some(name) = name else { return Ok(self.ready_models()) };
        let named = self.model(name, version)?;
        if version.is_some() {
            return Ok(vec![named]);
        }
        Ok(self.ready_versions(name))
    }

    /// As [`Inference::index`], and where clients decide what is loaded also the models that are there to be loaded.
    ///
    /// # Errors
    /// `Internal` when looking for them fails.
    pub async fn full_index(&self, ready_only: bool) -> Result<Vec<IndexEntry>> {
        let repository = Arc::clone(&self.inner.repository);
        let mut index = tokio::task::spawn_blocking(move || repository.full_index())
            .await
            .map_err(|error| Error::internal("the models could not be listed").with_source(error))?;
        index.retain(|entry| !ready_only || entry.state == ModelState::Ready);
        Ok(index)
    }

    /// Loads the model called `name`, or loads it again.
    ///
    /// # Errors
    /// As [`Repository::load`](crate::repository::Repository::load).
    pub async fn load_model(&self, name: &str, overrides: Overrides) -> Result<()> {
        self.inner.repository.load(name, overrides).await
    }

    /// Unloads the model called `name`, and where it is an ensemble its members too, if `and_members` says so.
    ///
    /// # Errors
    /// As [`Repository::unload`](crate::repository::Repository::unload).
    pub async fn unload_model(&self, name: &str, and_members: bool) -> Result<()> {
        self.inner.repository.unload(name, and_members).await
    }

    /// Watches for changes of readiness and of the models' states.
    pub fn changes(&self) -> Changes {
        Changes { phase: self.inner.phase.subscribe(), models: self.inner.repository.changes() }
    }
}

/// Tells that the server's readiness, or the state of a model, may have changed.
#[derive(Debug)]
pub struct Changes {
    phase: watch::Receiver<Phase>,
    models: watch::Receiver<()>,
}

impl Changes {
    /// Completes at the first change since this was made or last completed.
    pub async fn next(&mut self) {
        // An error says that the facade is gone: then nothing changes any more.
        let changed = tokio::select! {
            changed = self.phase.changed() => changed,
            changed = self.models.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A version as both protocols write it: digits only.
///
/// # Errors
/// `NotFound` when `text` is no number that a version of `model` could have.
pub fn parse_version(model: &str, text: &str) -> Result<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::not_found(format!("a version is a number, which `{text}` is not")));
    }
    text.parse().map_err(|_| Error::not_found(format!("the model {model} has no version {text}")))
}
