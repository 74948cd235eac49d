//! Where a model repository is: what `--model-repository` can name.

use std::fmt;
use std::path::{Path, PathBuf};

use super::path::FilePath;
use crate::error::{Error, Result};

/// The endings by which a file is known to be an archive before it is there.
const ARCHIVE_ENDINGS: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];
/// The file that makes a folder an OCI image layout.
pub(super) const LAYOUT_FILE: &str = "oci-layout";

/// A store of models that is not simply their folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A tar archive of models, or an OCI image layout in one.
    Archive(PathBuf),
    /// A folder with an OCI image layout.
    Layout(PathBuf),
    /// The objects of a bucket whose keys begin with `prefix`, which is empty or ends with a `/`.
    S3 { bucket: String, prefix: String },
}

impl Location {
    /// What `repository` names; `None` for a plain folder of models.
    ///
    /// # Errors
    /// `InvalidArgument` for a URL that cannot be fetched from.
    pub(super) fn parse(repository: &Path) -> Result<Option<Self>> {
        let text = repository.to_string_lossy();
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "s3" => Self::s3(rest).map(Some),
                _ => Err(Error::invalid(format!(
                    "the model repository {text} cannot be used: it is a folder, a tar archive, an OCI image layout or \
                     s3://bucket/prefix{}",
                    match scheme {
                        "http" | "https" => " (for a server other than Amazon's, model_store.endpoint names it)",
                        "oci" | "docker" => " (mount the image as a volume, or copy it into an archive)",
                        _ => "",
                    }
                ))),
            };
        }
        if repository.join(LAYOUT_FILE).is_file() {
            return Ok(Some(Self::Layout(repository.to_owned())));
        }
        let is_archive = ARCHIVE_ENDINGS.iter().any(|ending| text.ends_with(ending)) && !repository.is_dir();
        Ok((is_archive || repository.is_file()).then(|| Self::Archive(repository.to_owned())))
    }

    fn s3(rest: &str) -> Result<Self> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if bucket.is_empty() || !bucket.chars().all(is_name) {
            return Err(Error::invalid(format!("s3://{rest} names no bucket: s3://bucket/prefix")));
        }
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{}/", FilePath::parse(prefix)?),
        };
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive(path) | Self::Layout(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_known_by_how_it_is_written_and_by_what_is_there() {
        let s3 = |bucket: &str, prefix: &str| Some(Location::S3 { bucket: bucket.into(), prefix: prefix.into() });
        let parse = |text: &str| Location::parse(Path::new(text));
        assert_eq!(parse("s3://models").unwrap(), s3("models", ""));
        assert_eq!(parse("s3://models/").unwrap(), s3("models", ""));
        assert_eq!(parse("s3://models/a/b/").unwrap(), s3("models", "a/b/"));
        assert_eq!(parse("models").unwrap(), None);
        assert_eq!(parse("there/is/none.tar.zst").unwrap(), Some(Location::Archive("there/is/none.tar.zst".into())));
        for wrong in ["s3://", "s3:///models", "s3://a b", "s3://bucket/a/../b", "gs://bucket", "https://host/bucket"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.tar");
        std::fs::create_dir(&path).unwrap();
        assert_eq!(Location::parse(&path).unwrap(), None, "a folder may be called as it likes");
        std::fs::write(path.join(LAYOUT_FILE), "{}").unwrap();
        assert_eq!(Location::parse(&path).unwrap(), Some(Location::Layout(path)));
        let path = folder.path().join("image");
        std::fs::write(&path, "").unwrap();
        assert_eq!(Location::parse(&path).unwrap(), Some(Location::Archive(path)));
    }
}
