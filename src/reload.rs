//! Files that are read again when they change, so that keys and certificates are renewed without a restart.
//!
//! It knows files, not what is in them.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use crate::error::Result;

/// How often files are looked at. A certificate or a key is renewed by a program or a person, and neither minds a second.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was last read from some files. Cheap to clone; clones see the same.
pub struct Reloaded<T>(Arc<Inner<T>>);

struct Inner<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T> + Send + Sync>,
    current: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

/// What the last look at the files showed.
struct Seen {
    files: Vec<Option<Fingerprint>>,
    /// Why they could not be read, where they could not.
    failure: Option<String>,
}

/// What changes when a file's content does. A file that is replaced by one of the same age and length is another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Fingerprint {
    /// `None` while there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
    }
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads `paths` by `load`. `what` names it in the log: "the API keys".
    ///
    /// # Errors
    /// What `load` fails with.
    pub fn open(
        what: &'static str,
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        // Before the files are read: a change in between is then seen as one, and not missed.
        let seen = Seen { files: fingerprints(&paths), failure: None };
        let current = RwLock::new(Arc::new(load()?));
        Ok(Self(Arc::new(Inner { what, paths, load: Box::new(load), current, seen: Mutex::new(seen) })))
    }

    /// What the files held when they could last be read.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files every second, and never ends.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let files = self.clone();
            // The file system may be slow. A panic has been reported where it happened.
            let _ = tokio::task::spawn_blocking(move || files.refresh()).await;
        }
    }

    /// Reads the files again if one has changed, or if they could not be read the last time: what was in the way may have gone
    /// without a trace in the file, as with its permissions. Where it fails, what was read before stays, and the log says why.
    fn refresh(&self) {
        let inner = &self.0;
        let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fingerprints(&inner.paths);
        if seen.files == now && seen.failure.is_none() {
            return;
        }
        seen.files = now;
        match (inner.load)() {
            Ok(value) => {
                seen.failure = None;
                *inner.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                tracing::info!("{} have changed and are read again", inner.what);
            }
            Err(error) => {
                let reason = error.chain();
                // Not every second.
                if seen.failure.as_ref() != Some(&reason) {
                    tracing::error!(error = reason, "{} have changed, but the old ones stay in use", inner.what);
                }
                seen.failure = Some(reason);
            }
        }
    }
}

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Without what was read, which may be secret.
impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloaded").field(&self.0.paths).finish()
    }
}

fn fingerprints(paths: &[PathBuf]) -> Vec<Option<Fingerprint>> {
    paths.iter().map(|path| Fingerprint::of(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// A file that holds a number.
    fn number(path: &Path) -> Result<Reloaded<u64>> {
        let file = path.to_owned();
        Reloaded::open("the numbers", vec![path.to_owned()], move || {
            let text = fs::read_to_string(&file).map_err(|error| Error::not_found(error.to_string()))?;
            text.trim().parse().map_err(|_| Error::invalid("not a number"))
        })
    }

    #[test]
    fn what_could_not_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "1").unwrap();
        // Not what is in the file: its permissions, or that too many files are open.
        let is_in_the_way = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (file, in_the_way) = (path.clone(), Arc::clone(&is_in_the_way));
        let reloaded = Reloaded::open("the files", vec![path.clone()], move || {
            if in_the_way.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::not_found("the file cannot be read"));
            }
            fs::read_to_string(&file).map_err(|error| Error::not_found(error.to_string()))
        })
        .unwrap();
        is_in_the_way.store(true, std::sync::atomic::Ordering::Relaxed);
        fs::write(&path, "12").unwrap();
        reloaded.refresh();
        assert_eq!(*reloaded.current(), "1");
        is_in_the_way.store(false, std::sync::atomic::Ordering::Relaxed);
        reloaded.refresh();
        assert_eq!(*reloaded.current(), "12");
    }

    #[test]
    fn a_change_is_seen_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        assert!(number(&path).is_err());
        fs::write(&path, "1").unwrap();
        let reloaded = number(&path).unwrap();
        let other = reloaded.clone();

        reloaded.refresh();
        assert_eq!(*other.current(), 1);
        fs::write(&path, "12").unwrap();
        reloaded.refresh();
        assert_eq!(*other.current(), 12);
        fs::write(&path, "one").unwrap();
        reloaded.refresh();
        assert_eq!(*other.current(), 12);
        fs::remove_file(&path).unwrap();
        reloaded.refresh();
        assert_eq!(*other.current(), 12);
        // As secret mounts and certificate renewers do it: the same length, another file.
        let next = folder.path().join("next");
        fs::write(&next, "34").unwrap();
        fs::rename(&next, &path).unwrap();
        reloaded.refresh();
        assert_eq!(*other.current(), 34);
    }
}
