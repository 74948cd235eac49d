//! Taking an archive, whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Held, Kept, Synced};
use crate::error::{Error, Result};
use crate::store::archive;
use crate::store::listing::{Listing, Object, Unit};
use crate::store::location::Location;
use crate::store::path::FilePath;
use crate::store::tree::Tree;
use crate::store::{Source, Store};

/// An archive is a unit by itself, whose one object has this name.
const ARCHIVE: &str = "archive";

impl Store {
    /// Takes an archive with all that is in it.
    pub(super) fn take_archive(&self, held: &mut Held, unit: &Unit, synced: &mut Synced) -> Result<()> {
        let version = unit.0.values().next().map(|object| object.version.clone()).unwrap_or_default();
        let mut kept = held.state.models.values().flat_map(BTreeMap::values).peekable();
        if kept.peek().is_some() && kept.all(|kept| kept.version == version) {
            return Ok(());
        }
        let models = self.read_archive(unit)?;
        // At first there may be none yet, which whoever starts from it says. Later that is a mistake rather than meant.
        if models.is_empty() && !held.state.models.is_empty() {
            return Err(self.is_empty_now());
        }
        let gone: Vec<String> = held.state.models.keys().filter(|name| !models.contains_key(*name)).cloned().collect();
        for (model, tree) in models {
            self.publish(held, &model, keep(tree, unit))?;
        }
        for model in gone {
            self.withdraw(held, &model, synced);
        }
        Ok(())
    }

    pub(super) fn read_archive(&self, unit: &Unit) -> Result<BTreeMap<String, Tree>> {
        let models = match (&self.source, &self.location) {
            (Source::Archive(options), Location::Archive(path)) => archive::read_archive(path, options, &self.cache)?,
            (Source::Layout(options), Location::Layout(folder)) => archive::read_layout(folder, options, &self.cache)?,
            _ => BTreeMap::new(),
        };
        if self.list()?.get("") != Some(unit) {
            return Err(Error::unavailable(format!("{} has changed while it was read", self.location)));
        }
        let bytes = models.values().flat_map(BTreeMap::values).map(|file| file.bytes).sum();
        self.metrics.fetched_bytes.inc_by(bytes);
        *self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = models.keys().cloned().collect();
        Ok(models)
    }
}

/// A listing of an archive: one unit with one object.
pub(super) fn single(path: &Path) -> Result<Listing> {
    let metadata = fs::metadata(path);
    let metadata = metadata.map_err(|error| Error::not_found(format!("{} cannot be read: {error}", path.display())))?;
    let version = format!("{}.{:09}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
    let object = Object { bytes: metadata.len(), version, e_tag: None, modified: metadata.modified().ok() };
    Ok(Listing::from([(String::new(), Unit(BTreeMap::from([(FilePath::parse(ARCHIVE)?, object)])))]))
}

/// The files of an archive, each of the archive's own version.
pub(super) fn keep(tree: Tree, unit: &Unit) -> BTreeMap<FilePath, Kept> {
    let version = unit.0.values().next().map(|object| object.version.clone()).unwrap_or_default();
    tree.into_iter().map(|(path, file)| (path, Kept { file, version: version.clone() })).collect()
}
