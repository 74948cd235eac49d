//! What a load call brings along: a configuration, and files that stand in for the version folders.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;

use super::config::ModelConfig;
use super::layout::parse_version;
use super::translate::Machine;
use crate::error::{Error, Result};

/// What a load call brings along. Both empty: the model is read from its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// A configuration in JSON, convoy's or Triton's, that stands in for the model's own.
    pub config: Option<String>,
    /// Files by the path `<version>/<name>`. They stand in for all of the model's version folders.
    pub files: Vec<(String, Bytes)>,
}

/// The parameter of a load that is no file.
const CONFIG: &str = "config";
/// What begins the name of a parameter that is a file.
const FILE: &str = "file:";
/// The one parameter of an unload.
const UNLOAD_DEPENDENTS: &str = "unload_dependents";

/// Whether an unload takes an ensemble's members along, by its parameters: a name, and its value where that is true or false.
///
/// # Errors
/// `InvalidArgument` for a parameter of another name or type.
pub fn unloads_members(parameters: impl IntoIterator<Item = (String, Option<bool>)>) -> Result<bool> {
    let mut unloads_members = false;
    for (name, value) in parameters {
        if name != UNLOAD_DEPENDENTS {
            let message = format!("unloading takes the parameter `{UNLOAD_DEPENDENTS}`, not `{name}`");
            return Err(Error::invalid(message));
        }
        unloads_members =
            value.ok_or_else(|| Error::invalid(format!("the parameter {UNLOAD_DEPENDENTS} must be true or false")))?;
    }
    Ok(unloads_members)
}

impl Overrides {
    /// Takes in the parameter of a load called `name`: `config`, which `text` reads, or `file:<version>/<name>`, which `file`
    /// reads.
    ///
    /// # Errors
    /// `InvalidArgument` for a parameter of another name; what `text` or `file` fails with.
    pub fn set(
        &mut self,
        name: &str,
        text: impl FnOnce() -> Result<String>,
        file: impl FnOnce() -> Result<Bytes>,
    ) -> Result<()> {
        if name == CONFIG {
            self.config = Some(text()?);
        } else if let Some(path) = name.strip_prefix(FILE) {
            self.files.push((path.to_owned(), file()?));
        } else {
            return Err(Error::invalid(format!("loading takes the parameters `config` and `file:…`, not `{name}`")));
        }
        Ok(())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what can be checked without touching the disk.
    ///
    /// # Errors
    /// `InvalidArgument` for files without a configuration, and for a path that is not `<version>/<name>` or is there twice.
    pub(super) fn check(&self) -> Result<()> {
        if self.config.is_none() && !self.files.is_empty() {
            return Err(Error::invalid("files can be overridden only together with `config`"));
        }
        let mut seen = BTreeSet::new();
        for (path, _) in &self.files {
            // Exactly two parts, of which the second is a plain name: nothing else can leave the folder that is made for it.
            let version =
                path.split_once('/').filter(|(_, name)| is_plain_name(name)).and_then(|(v, _)| parse_version(v));
            if version.is_none() {
                return Err(Error::invalid(format!(
                    "the path of an overridden file is <version>/<name>, not `{path}`"
                )));
            }
            if !seen.insert(path) {
                return Err(Error::invalid(format!("the file {path} is overridden twice")));
            }
        }
        Ok(())
    }

    /// The configuration of the model called `name`, where there is one.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub(super) fn config(&self, name: &str, machine: Machine) -> Result<Option<ModelConfig>> {
        let config = self.config.as_deref().map(|text| ModelConfig::from_json(text, name, machine)).transpose();
        config.map_err(|reason| Error::invalid(format!("config: {reason}")))
    }

    /// Writes the files into a private temporary folder; `None` where there are none.
    ///
    /// # Errors
    /// `Internal` when that cannot be done, a full disk for instance.
    pub(super) fn write(&self) -> Result<Option<TempDir>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let failed = |error: std::io::Error| {
            Error::internal("the overridden files cannot be written to a temporary folder").with_source(error)
        };
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("convoy-override-").permissions(private).tempdir();
        let folder = folder.map_err(failed)?;
        for (path, content) in &self.files {
            let path = folder.path().join(path);
            if let Some(version) = path.parent() {
                fs::create_dir_all(version).map_err(failed)?;
            }
            fs::write(path, content).map_err(failed)?;
        }
        Ok(Some(folder))
    }
}

/// Whether `name` is the name of a file or folder and no path.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.starts_with('.') && Path::new(name).file_name() == Some(name.as_ref()) && !name.contains(['\0', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::config::Tunable;

    fn with(path: &str) -> Overrides {
        Overrides { config: Some("{}".into()), files: vec![(path.into(), Bytes::from_static(b"x"))] }
    }

    #[test]
    fn a_path_is_a_version_and_a_name() {
        for path in ["1/model.onnx", "12/weights.bin", "0/a"] {
            with(path).check().unwrap();
        }
        for path in [
            "",
            "/",
            "1",
            "1/",
            "/1/a",
            "1//a",
            "1/..",
            "1/.",
            "1/../a",
            "../1/a",
            "1/a/b",
            "01/a",
            "-1/a",
            "v1/a",
            "1/.a",
            "1/a/",
            "1\\a",
            "1/a\\..\\b",
            "1/a\0",
            "model.onnx",
            "/etc/passwd",
            "../../etc/passwd",
        ] {
            let error = with(path).check().unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidArgument, "{path}");
            assert!(error.message().contains("<version>/<name>"), "{error}");
        }
    }

    #[test]
    fn files_need_a_configuration_and_names_of_their_own() {
        let mut overrides = with("1/a");
        overrides.config = None;
        assert!(overrides.check().unwrap_err().message().contains("`config`"));
        let mut overrides = with("1/a");
        overrides.files.push(overrides.files[0].clone());
        assert!(overrides.check().unwrap_err().message().contains("twice"));
    }

    #[test]
    fn a_configuration_has_the_keys_of_the_file() {
        let machine = Machine { cores: 4, offers_cuda: false };
        let config = |text: &str| Overrides { config: Some(text.into()), files: Vec::new() }.config("m", machine);
        let nothing = ModelConfig { is_brought: true, ..ModelConfig::default() };
        assert_eq!(config("{}").unwrap().unwrap(), nothing);
        let read = config(r#"{"max_batch_size": 2, "versions": {"specific": [3]}, "batching": {"queue_size": 7}}"#);
        let read = read.unwrap().unwrap();
        assert_eq!(
            (read.max_batch_size, read.batching.queue_size, read.versions.select(&[3])),
            (Some(Tunable::Number(2)), 7, vec![3])
        );
        let read = config(r#"{"max_batch_size": "auto", "instances": {"count": "auto"}}"#).unwrap().unwrap();
        assert_eq!((read.max_batch_size, read.instances.count), (Some(Tunable::Auto), Some(Tunable::Auto)));
        for (text, said) in [
            ("", "JSON"),
            ("[]", "JSON"),
            (r#"{"max_batch": 2}"#, "max_batch"),
            (r#"{"max_batch_size": 0}"#, "max_batch_size"),
        ] {
            assert!(config(text).unwrap_err().message().contains(said), "{text}");
        }
    }

    #[test]
    fn files_are_written_where_nobody_else_looks_and_go_with_their_folder() {
        let folder = with("7/model.onnx").write().unwrap().unwrap();
        assert_eq!(fs::read(folder.path().join("7/model.onnx")).unwrap(), b"x");
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o077, 0);
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
