//! Model stores: a model repository that is an archive, an image or a bucket, brought to this machine as a folder.
//!
//! What a store has is fetched into a cache, checked, and put into place model by model. What lies in place is a model repository
//! like any other, so that whatever loads and follows models works on it unchanged. This module knows files and where they come
//! from; it does not know what a model is made of, and loads none. Everything here blocks.

mod archive;
mod cache;
mod config;
mod listing;
mod location;
mod metrics;
mod path;
mod pause;
mod s3;
mod sync;
mod tree;
mod words;

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::Registry;

use self::archive::Options;
use self::cache::Cache;
pub use self::config::StoreConfig;
use self::location::Location;
use self::metrics::StoreMetrics;
pub use self::pause::Pause;
use self::s3::Bucket;
use self::sync::Held;
pub use self::sync::Synced;
use crate::error::Result;

/// A model store and its cache.
#[derive(Debug)]
pub struct Store {
    location: Location,
    source: Source,
    cache: Cache,
    metrics: StoreMetrics,
    poll_interval: std::time::Duration,
    root: std::path::PathBuf,
    /// Held for as long as the store is looked at, since what is known of it and what lies in the cache change together.
    held: Mutex<Held>,
    /// What the last listing had, by name.
    names: Mutex<Vec<String>>,
}

/// Where models come from.
#[derive(Debug)]
enum Source {
    Bucket(Bucket),
    Archive(Options),
    Layout(Options),
}

impl Store {
    /// The store that `repository` names; `None` where it is a plain folder. Fetches nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument` for a store that cannot be, `Unavailable` where there is no room for its cache.
    pub fn open(repository: &Path, config: &StoreConfig, registry: &Registry) -> Result<Option<Self>> {
        let Some(location) = Location::parse(repository)? else { return Ok(None) };
        let options = Options { max_bytes: config.max_bytes, path: config.folder() };
        let source = match &location {
            Location::S3 { bucket, prefix } => Source::Bucket(Bucket::new(bucket, prefix, config)?),
            Location::Archive(_) => Source::Archive(options),
            Location::Layout(_) => Source::Layout(options),
        };
        let cache = Cache::open(config.cache.as_deref(), &location)?;
        Ok(Some(Self {
            location,
            source,
            root: cache.root(),
            cache,
            metrics: StoreMetrics::register(registry)?,
            poll_interval: config.poll_interval(),
            held: Mutex::new(Held::new(config.poll_interval())),
            names: Mutex::default(),
        }))
    }

    /// The folder in which the store's models lie.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The models that the store has, whether they have been fetched or not.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it is, as whoever has set it up knows it.
    pub fn location(&self) -> impl fmt::Display {
        &self.location
    }

    /// What to look at where no model is found in it.
    pub fn hint(&self) -> &'static str {
        match self.source {
            Source::Bucket(_) => "are the bucket's name and the prefix right?",
            Source::Archive(_) | Source::Layout(_) => "model_store.path names the folder in it that has the models",
        }
    }

    /// How long to wait between two looks at the store.
    pub fn pause(&self) -> Pause {
        Pause::new(self.poll_interval)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
