//! Paths of files in a store: what a key or an archive's member may be called.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What file systems take.
const MAX_PART_BYTES: usize = 255;
const MAX_BYTES: usize = 1024;

/// A path below a root: relative, in UTF-8, of plain names with `/` between them. Joined to a folder it lies in that folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct FilePath(String);

impl FilePath {
    /// # Errors
    /// `InvalidArgument` for a path that is absolute, leads up, is too long, or has parts that are no names.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Err(Error::invalid(format!("`{}` is no path of a file: {why}", text.escape_debug())));
        if text.len() > MAX_BYTES {
            return Err(Error::invalid(format!("a path has {} bytes, more than {MAX_BYTES}", text.len())));
        }
        if text.starts_with('/') {
            return wrong("it is absolute");
        }
        for part in text.split('/') {
            match part {
                "" => return wrong("a part of it is empty"),
                "." | ".." => return wrong("it does not say the way straight"),
                _ if part.len() > MAX_PART_BYTES => return wrong("a part of it is too long"),
                _ if part.chars().any(|letter| letter.is_control() || letter == '\\') => {
                    return wrong("it has letters that names don't have");
                }
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path of an archive's member, where `./` may stand before it and `/` behind it; `None` for the root itself.
    ///
    /// # Errors
    /// As [`FilePath::parse`], and where it is not UTF-8.
    pub(super) fn of_member(bytes: &[u8]) -> Result<Option<Self>> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::invalid(format!("`{}` is no path of a file: it is not UTF-8", bytes.escape_ascii())))?;
        let mut text = text.strip_suffix('/').unwrap_or(text);
        while let Some(rest) = text.strip_prefix("./") {
            text = rest;
        }
        if text.is_empty() && bytes.starts_with(b"/") {
            return Self::parse("/").map(Some);
        }
        if matches!(text, "" | ".") { Ok(None) } else { Self::parse(text).map(Some) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below `folder`, where it lies there; with an empty one, the path itself.
    pub(super) fn below(&self, folder: &str) -> Option<Self> {
        if folder.is_empty() {
            return Some(self.clone());
        }
        self.0.strip_prefix(folder)?.strip_prefix('/').map(|rest| Self(rest.to_owned()))
    }

    /// The first name and what is behind it, where there is something.
    pub(super) fn split_first(&self) -> Option<(&str, Self)> {
        self.0.split_once('/').map(|(first, rest)| (first, Self(rest.to_owned())))
    }

    /// The folder that it lies in, empty for the root, and its name.
    pub(super) fn split_last(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }

    /// Whether a part of it begins with a dot: nothing looks at those.
    pub(super) fn is_hidden(&self) -> bool {
        self.0.split('/').any(|part| part.starts_with('.'))
    }

    /// The folders that it lies in, the outermost first.
    pub(super) fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }

    pub(super) fn in_folder(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }
}

impl TryFrom<String> for FilePath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<FilePath> for String {
    fn from(path: FilePath) -> Self {
        path.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_relative_paths_are_taken() {
        for wrong in ["", "/", "/m/1", "../m", "m/../../etc", "m//1", "m/", "m/./1", ".", "m\\1", "m\n/1", "m\0"] {
            assert!(FilePath::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(FilePath::parse(&"x".repeat(256)).is_err());
        assert!(FilePath::parse(&"x/".repeat(600)).is_err());
        let member = |bytes: &[u8]| FilePath::of_member(bytes).map(|path| path.map(String::from));
        assert_eq!(member(b"./m/1/").unwrap().as_deref(), Some("m/1"));
        assert_eq!(member(b"././m").unwrap().as_deref(), Some("m"));
        for root in ["./", ".", ""] {
            assert_eq!(member(root.as_bytes()).unwrap(), None, "{root:?}");
        }
        for wrong in [&b"/"[..], b"//", b"/etc/passwd", b"./../m", b"m/..", b"\xff"] {
            assert!(member(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn paths_are_cut_at_whole_names() {
        let path = FilePath::parse("models/m/1/model.onnx").unwrap();
        assert_eq!(path.below("models").unwrap().as_str(), "m/1/model.onnx");
        assert_eq!((path.below("mod"), path.below("")), (None, Some(path.clone())));
        assert_eq!(path.folders().collect::<Vec<_>>(), ["models", "models/m", "models/m/1"]);
        assert_eq!(path.split_last(), ("models/m/1", "model.onnx"));
        assert!(!path.is_hidden() && FilePath::parse("m/.git/config").unwrap().is_hidden());
    }

    proptest! {
        #[test]
        fn whatever_is_taken_lies_in_its_folder(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some(path)) = FilePath::of_member(&bytes) {
                let joined = path.in_folder(Path::new("/cache"));
                prop_assert!(joined.starts_with("/cache"));
                prop_assert!(joined.components().skip(2).all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
