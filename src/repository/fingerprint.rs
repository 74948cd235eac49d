//! What tells that a model's folder has changed: the names, lengths, ages and inodes of its files.
//!
//! Nothing is opened, so that looking costs little, on a network file system too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::layout::parse_version;

/// How deep folders are followed: far enough for weights in files of their own, and the end of a symbolic link that leads back.
const MAX_DEPTH: usize = 4;
/// How many files are looked at. A model has a handful; a link to somewhere else may have any number.
const MAX_FILES: usize = 4096;

/// The files of a model's folder, without those that are hidden: tools that copy have unfinished ones under such names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// The files that every version uses: configuration, labels.
    shared: Vec<File>,
    versions: BTreeMap<u64, Vec<File>>,
}

/// A file that is replaced by one of the same age and length is another inode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct File {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl File {
    /// The file at `path` as it is now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::new(path, &fs::metadata(path)?))
    }

    /// The files in and below a version's `folder`.
    pub(super) fn all_in(folder: &Path) -> io::Result<Vec<Self>> {
        let (mut files, mut budget) = (Vec::new(), MAX_FILES);
        collect(folder, 1, &mut budget, &mut files)?;
        Ok(files)
    }

    fn new(path: &Path, metadata: &fs::Metadata) -> Self {
        Self {
            path: path.to_owned(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
            inode: metadata.ino(),
        }
    }
}

impl Fingerprint {
    /// The fingerprint of `folder`; `None` where there is no such folder.
    ///
    /// # Errors
    /// When a folder cannot be read for another reason, or has too many files: then nothing is known of the model.
    pub(super) fn of(folder: &Path) -> io::Result<Option<Self>> {
        let mut fingerprint = Self { shared: Vec::new(), versions: BTreeMap::new() };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut budget = MAX_FILES;
        for entry in entries {
            let path = entry?.path();
            let version = path.file_name().and_then(|name| parse_version(name.to_str()?));
            match version.filter(|_| path.is_dir()) {
                Some(version) => collect(&path, 1, &mut budget, fingerprint.versions.entry(version).or_default())?,
                None => collect(&path, 1, &mut budget, &mut fingerprint.shared)?,
            }
        }
        fingerprint.shared.sort();
        fingerprint.versions.values_mut().for_each(|files| files.sort());
        Ok(Some(fingerprint))
    }

    /// Whether `version` is made of the same files as in `other`.
    pub(super) fn agrees_on(&self, version: u64, other: &Self) -> bool {
        self.shared == other.shared && self.versions.get(&version) == other.versions.get(&version)
    }

    /// When a file was last written to.
    pub(super) fn newest(&self) -> Option<SystemTime> {
        self.shared.iter().chain(self.versions.values().flatten()).filter_map(|file| file.modified).max()
    }
}

/// Adds the file at `path`, or those below it.
fn collect(path: &Path, depth: usize, budget: &mut usize, files: &mut Vec<File>) -> io::Result<()> {
    if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
        return Ok(());
    }
    // Links are followed, as secret and volume mounts are made of them. One that leads nowhere is no file.
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if metadata.is_dir() {
        if depth < MAX_DEPTH {
            for entry in fs::read_dir(path)? {
                collect(&entry?.path(), depth + 1, budget, files)?;
            }
        }
        return Ok(());
    }
    *budget = budget.checked_sub(1).ok_or_else(|| {
        io::Error::other(format!("{}: a model's folder has more than {MAX_FILES} files", path.display()))
    })?;
    files.push(File::new(path, &metadata));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn of(folder: &Path) -> Fingerprint {
        Fingerprint::of(folder).unwrap().unwrap()
    }

    #[test]
    fn every_kind_of_change_shows_and_only_in_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(Fingerprint::of(&path.join("nowhere")).unwrap(), None);
        for version in ["1", "2"] {
            fs::create_dir(path.join(version)).unwrap();
            fs::write(path.join(version).join("model.onnx"), version).unwrap();
        }
        let first = of(path);
        assert_eq!(of(path), first);

        fs::write(path.join("2/weights.bin"), "w").unwrap();
        let second = of(path);
        assert!(first != second && first.agrees_on(1, &second) && !first.agrees_on(2, &second));

        // The same length and, set back, the same age: another file all the same.
        let modified = fs::metadata(path.join("1/model.onnx")).unwrap().modified().unwrap();
        fs::write(path.join("next"), "x").unwrap();
        fs::File::options().write(true).open(path.join("next")).unwrap().set_modified(modified).unwrap();
        fs::rename(path.join("next"), path.join("1/model.onnx")).unwrap();
        let third = of(path);
        assert!(!second.agrees_on(1, &third) && second.agrees_on(2, &third));

        fs::write(path.join("config.toml"), "").unwrap();
        assert!(!third.agrees_on(1, &of(path)) && !third.agrees_on(2, &of(path)));
        let before = of(path);
        fs::write(path.join("1/.model.onnx.part"), "half").unwrap();
        assert_eq!(of(path), before);
    }

    #[test]
    fn links_that_lead_back_or_nowhere_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("1")).unwrap();
        fs::write(path.join("1/model.onnx"), "m").unwrap();
        symlink("..", path.join("1/back")).unwrap();
        symlink("itself", path.join("itself")).unwrap();
        symlink("nowhere", path.join("dangling")).unwrap();
        assert_eq!(of(path), of(path));
    }
}
