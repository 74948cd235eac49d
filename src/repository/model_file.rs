//! The files that a graph was loaded from, to be read once more.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::fingerprint::File;
use crate::error::{Error, Result};
use crate::onnx::{self, ModelProto};
use crate::sha256;

/// The files that a graph was loaded from.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    /// What lay beside it, its weights for instance, as it was then.
    files: Vec<File>,
    /// What was in those that the model is made of.
    digests: HashMap<PathBuf, [u8; 32]>,
}

impl ModelFile {
    /// Notes how the files in the folder of the one at `path` are now.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let files = File::all_in(path.parent().unwrap_or(path));
        let files =
            files.map_err(|error| Error::not_found(format!("{} cannot be read", path.display())).with_source(error))?;
        Ok(Self { path: path.to_owned(), files, digests: HashMap::new() })
    }

    /// Notes what is in the model's file and in `weights`, the others that it is made of, so that they are known again when only their
    /// age or their inode is another. One that is no longer as it was noted is left out. Reads them all.
    pub(super) fn note_contents(&mut self, weights: Vec<PathBuf>) {
        for path in std::iter::once(self.path.clone()).chain(weights) {
            if let Ok(digest) = sha256::of_file(&path)
                && self.is_as_noted(&path).unwrap_or(false)
            {
                self.digests.insert(path, digest);
            }
        }
    }

    /// The model in it, with the weights that it keeps in other files. Blocks.
    ///
    /// # Errors
    /// `FailedPrecondition` when something else is in one of them than what was loaded.
    pub fn read(&self) -> Result<ModelProto> {
        let changed = || match self.missing() {
            Some(name) => Error::failed_precondition(format!(
                "explanations read the model's file, and {name} is gone: they work again when it has been put back, or when the model has \
                 been loaded again"
            )),
            None => Error::failed_precondition(
                "the model's file has changed since it was loaded: this works again when the model has been loaded again",
            ),
        };
        let mut model = onnx::read_model(&self.path).map_err(|error| changed().with_source(error))?;
        let folder = self.path.parent().unwrap_or(&self.path);
        let mut read = onnx::read_external_data(&mut model, folder).map_err(|error| changed().with_source(error))?;
        read.push(self.path.clone());
        // After they were read: what they are now is what they were all the time.
        for path in read {
            let is_same = self.is_as_noted(&path).and_then(|is| Ok(is || self.has_noted_contents(&path)?));
            if !is_same.map_err(|error| changed().with_source(error))? {
                return Err(changed());
            }
        }
        Ok(model)
    }

    /// The name of a file that the model is made of and that is there no more. Where models lie a client need not know.
    fn missing(&self) -> Option<String> {
        let mut paths = std::iter::once(&self.path).chain(self.digests.keys());
        paths.find(|path| !path.exists())?.file_name().map(|name| name.to_string_lossy().into_owned())
    }

    fn is_as_noted(&self, path: &Path) -> io::Result<bool> {
        Ok(self.files.contains(&File::of(path)?))
    }

    /// Whether the file at `path` was only touched, or replaced by its like.
    fn has_noted_contents(&self, path: &Path) -> io::Result<bool> {
        Ok(match self.digests.get(path) {
            Some(noted) => sha256::of_file(path)? == *noted,
            None => false,
        })
    }
}
