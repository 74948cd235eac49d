//! What was fetched, on this machine's disk: files by their SHA-256, and the models' folders that are made of them.
//!
//! ```text
//! <cache>/<store>/blobs/<sha256>    a file, read-only
//!                 trees/<model>-…/  a model's folder, of hard links to blobs
//!                 models/<model>    a symbolic link to its tree; this folder is the repository's root
//!                 incoming/         files that are not whole yet
//!                 state.json        what is published
//! ```
//!
//! A model's folder is complete before a link leads to it, and replacing a link is one rename. A file that two trees share is the
//! same inode in both, so that whoever follows the repository sees which versions are what they were.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};
use tracing::{debug, warn};

use super::location::Location;
use super::tree::{Digest, File, Tree};
use crate::cache_folder;
use crate::error::{Error, Result};
use crate::sha256;

/// The cache of one store, which no other process uses meanwhile.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    _lock: fs::File,
    /// Where nothing is to be kept.
    _private: Option<TempDir>,
}

impl Cache {
    /// The cache of the store at `location`, below `configured` or else below this user's caches. One that another process
    /// uses, or a usual one that cannot be written to, is replaced by a folder that lasts as long as this does.
    ///
    /// # Errors
    /// `Unavailable` when no such folder can be made.
    pub(super) fn open(configured: Option<&Path>, location: &Location) -> Result<Self> {
        let parent = configured.map(Path::to_owned).or_else(|| Some(cache_folder::default()?.join("stores")));
        if let Some(parent) = parent {
            let folder = parent.join(name_of(location));
            match Self::open_folder(folder.clone(), None) {
                Ok(Some(cache)) => return Ok(cache),
                Ok(None) => warn!(
                    cache = %folder.display(),
                    "another server uses this cache of the model store: this one keeps what it fetches only while it runs"
                ),
                Err(error) if configured.is_some() => {
                    return Err(error.map_message(|said| format!("model_store.cache cannot be used: {said}")));
                }
                Err(error) => warn!(
                    cause = error.chain(),
                    "what is fetched from the model store is kept only while this server runs; model_store.cache can name a place"
                ),
            }
        }
        let private = tempfile::Builder::new().prefix("convoy-store-").tempdir();
        let private = private.map_err(|error| {
            Error::unavailable("the model store needs a folder to fetch into: set model_store.cache").with_source(error)
        })?;
        let folder = private.path().join(name_of(location));
        let cache = Self::open_folder(folder, Some(private))?;
        cache.ok_or_else(|| Error::internal("a new folder for the model store is in use"))
    }

    /// `None` where another process uses the folder.
    fn open_folder(folder: PathBuf, private: Option<TempDir>) -> Result<Option<Self>> {
        let made =
            |name: &str| fs::create_dir_all(folder.join(name)).map_err(|error| failed(&folder.join(name), error));
        ["blobs", "trees", "models", "incoming"].into_iter().try_for_each(made)?;
        let path = folder.join("lock");
        let lock = fs::File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| failed(&path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(&path, error)),
        }
        let cache = Self { folder, _lock: lock, _private: private };
        cache.clean();
        Ok(Some(cache))
    }

    /// Removes what an earlier process left half-done.
    fn clean(&self) {
        let entries =
            |name: &str| fs::read_dir(self.folder.join(name)).into_iter().flatten().filter_map(io::Result::ok);
        for entry in entries("incoming") {
            remove(&entry.path());
        }
        let links = || entries("models").map(|entry| entry.path());
        let (hidden, models): (Vec<_>, Vec<_>) = links().partition(|path| is_hidden(path));
        for path in &hidden {
            remove(path);
        }
        let used: BTreeSet<_> = models.iter().filter_map(|link| fs::canonicalize(link).ok()).collect();
        for tree in entries("trees").map(|entry| entry.path()) {
            if fs::canonicalize(&tree).is_ok_and(|tree| !used.contains(&tree)) {
                remove(&tree);
            }
        }
    }

    /// The folder of the models that are published.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("models")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.as_str())
    }

    /// Whether the file's bytes are here.
    pub(super) fn has(&self, file: &File) -> bool {
        fs::metadata(self.blob(&file.sha256)).is_ok_and(|metadata| metadata.len() == file.bytes)
    }

    /// Whether every file of the published model is what it was when it was published. Reads all of them.
    pub(super) fn is_intact(&self, model: &str, tree: &Tree) -> bool {
        let folder = self.root().join(model);
        tree.iter().all(|(path, file)| {
            let mut hash = Sha256::new();
            let read =
                fs::File::open(path.in_folder(&folder)).and_then(|mut file| sha256::update(&mut hash, &mut file));
            read.is_ok() && Digest::of(&hash.finalize()) == file.sha256 && self.has(file)
        })
    }

    /// Takes in a file.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be written.
    pub(super) fn writer(&self) -> Result<Writer<'_>> {
        let folder = self.folder.join("incoming");
        let file = NamedTempFile::new_in(&folder).map_err(|error| failed(&folder, error))?;
        Ok(Writer { cache: self, file, hash: Sha256::new(), bytes: 0 })
    }

    /// Makes `tree` the folder of `model`: at one moment it is the old one, at the next the new.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be written; then the old one stays.
    pub(super) fn publish(&self, model: &str, tree: &Tree) -> Result<()> {
        let trees = self.folder.join("trees");
        let folder = tempfile::Builder::new().prefix(&format!("{model}-")).tempdir_in(&trees);
        let folder = folder.map_err(|error| failed(&trees, error))?;
        for (path, file) in tree {
            let path = path.in_folder(folder.path());
            let parent = path.parent().unwrap_or(folder.path());
            fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
            link(&self.blob(&file.sha256), &path).map_err(|error| failed(&path, error))?;
        }
        let (link, next) = (self.root().join(model), self.root().join(format!(".{model}.new")));
        let old = fs::canonicalize(&link).ok();
        let name = folder.path().file_name().unwrap_or_default().to_owned();
        remove(&next);
        symlink(Path::new("../trees").join(name), &next).map_err(|error| failed(&next, error))?;
        fs::rename(&next, &link).map_err(|error| failed(&link, error))?;
        // From here on the link leads to it.
        let _ = folder.keep();
        if let Some(old) = old {
            remove(&old);
        }
        Ok(())
    }

    /// Takes the folder of `model` away.
    pub(super) fn withdraw(&self, model: &str) {
        let link = self.root().join(model);
        let tree = fs::canonicalize(&link).ok();
        remove(&link);
        if let Some(tree) = tree {
            remove(&tree);
        }
    }

    /// Removes the files that nothing needs.
    pub(super) fn prune(&self, needed: &BTreeSet<&Digest>) {
        let blobs = fs::read_dir(self.folder.join("blobs")).into_iter().flatten().filter_map(io::Result::ok);
        for blob in blobs {
            let digest = blob.file_name().to_str().and_then(Digest::parse);
            if digest.is_none_or(|digest| !needed.contains(&digest)) {
                remove(&blob.path());
            }
        }
    }

    /// What was noted last; `None` where nothing was, or it cannot be understood.
    pub(super) fn read_state<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&fs::read(self.folder.join("state.json")).ok()?).ok()
    }

    /// Notes `state` for the next start. That it cannot be is no error: then everything is fetched again.
    pub(super) fn write_state<T: Serialize>(&self, state: &T) {
        let written = (|| {
            let mut file = NamedTempFile::new_in(self.folder.join("incoming"))?;
            serde_json::to_writer(&mut file, state)?;
            file.persist(self.folder.join("state.json")).map_err(|error| error.error)
        })();
        if let Err(error) = written {
            warn!(cause = error.to_string(), "what is known of the model store cannot be kept for the next start");
        }
    }
}

/// A file that comes in: it is hashed as it is written, and is in the cache only when it is whole.
pub(super) struct Writer<'a> {
    cache: &'a Cache,
    file: NamedTempFile,
    hash: Sha256,
    bytes: u64,
}

impl Writer<'_> {
    /// How many bytes have come.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be written.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| failed(self.file.path(), error))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Puts the file among the others.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be written.
    pub(super) fn finish(self) -> Result<File> {
        let hash = self.hash.finalize();
        let file = File { sha256: Digest::of(&hash), bytes: self.bytes };
        if self.cache.has(&file) {
            // The one that is there may be in a folder already, whose file it should stay.
            return Ok(file);
        }
        let path = self.cache.blob(&file.sha256);
        let settle = |file: &NamedTempFile| {
            file.as_file().set_modified(age_of(&hash))?;
            file.as_file().set_permissions(Permissions::from_mode(0o444))
        };
        settle(&self.file).map_err(|error| failed(&path, error))?;
        self.file.persist(&path).map_err(|error| failed(&path, error.error))?;
        Ok(file)
    }
}

/// The age that a file in the cache is given: long ago, since what is published has rested already, and told by its bytes, so that
/// other bytes of the same length show even where the file system gives them the inode of what they replace.
fn age_of(hash: &[u8]) -> SystemTime {
    let number = hash.iter().take(4).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    SystemTime::UNIX_EPOCH + Duration::from_secs(number % (1 << 30))
}

/// A name that tells stores apart, and people which it is.
fn name_of(location: &Location) -> String {
    let text = match location {
        Location::S3 { .. } => location.to_string(),
        Location::Archive(path) | Location::Layout(path) => {
            std::path::absolute(path).unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned()
        }
    };
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || ".-".contains(letter) { letter } else { '_' };
    let readable: String = text.trim_end_matches('/').chars().rev().take(40).map(plain).collect();
    let readable: String = readable.chars().rev().collect();
    format!("{}-{}", readable.trim_start_matches(['.', '_']), &sha256::hex(&Sha256::digest(text))[..12])
}

/// A hard link, or a copy where the file system has no such thing.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::StorageFull && from.exists() => {
            debug!(cause = error.to_string(), "no hard link can be made: the file is copied");
            fs::copy(from, to)?;
            fs::File::open(to)?.set_modified(fs::metadata(from)?.modified()?)
        }
        linked => linked,
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Removes a file, a link or a folder. What cannot be removed costs space and nothing else.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = removed {
        warn!(path = %path.display(), cause = error.to_string(), "what is no longer needed cannot be removed");
    }
}

/// The error of something that could not be written at `path`.
fn failed(path: &Path, error: io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        _ => error.to_string(),
    };
    Error::unavailable(format!("{}: {why}", path.display())).with_source(error)
}
