//! One model's folder in the place of a repository, for platforms that mount a model and say apart how it is called, as KServe does.
//!
//! What comes out is a repository of links, so that nothing behind it knows of a second layout.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tracing::info;

use super::layout::{self, CONFIG_FILE, MODEL_FILE, TRITON_CONFIG_FILE};
use super::overrides::is_plain_name;
use crate::error::{Error, Result};

/// The version of a graph that lies in no version's folder.
const ONLY_VERSION: &str = "1";

/// A repository with one model in it. It goes when this is dropped; the model's own folder is never written to.
#[derive(Debug)]
pub struct SingleModel {
    repository: TempDir,
}

impl SingleModel {
    /// The model in `folder`, called `name`. The folder is laid out as a model's in a repository, or holds the graph itself:
    /// `model.onnx`, or a single file whose name ends in `.onnx`.
    ///
    /// # Errors
    /// `NotFound` when the folder cannot be read or has no graph, `InvalidArgument` for a name that no model can have and for
    /// several graphs of which it is not known which is meant, `Unavailable` when the links cannot be made.
    pub fn link(folder: &Path, name: &str) -> Result<Self> {
        if !is_plain_name(name) {
            return Err(Error::invalid(format!("model_name: `{name}` cannot be a model's name")));
        }
        let files = if layout::versions(folder)?.is_empty() { Some(Files::of(folder)?) } else { None };
        let linked = || {
            let repository = tempfile::tempdir()?;
            // As it is given, not where it leads to: what is swapped behind a link is followed.
            let folder = std::path::absolute(folder)?;
            let model = repository.path().join(name);
            match &files {
                None => symlink(folder, model)?,
                Some(files) => files.link(&folder, &model)?,
            }
            Ok(Self { repository })
        };
        let linked = linked().map_err(|error: io::Error| {
            Error::unavailable(format!("the model in {} cannot be linked to: {error}", folder.display()))
        })?;
        info!(model = name, folder = %folder.display(), "one model is served");
        Ok(linked)
    }

    /// The repository's folder.
    pub fn repository(&self) -> &Path {
        self.repository.path()
    }
}

/// The files of a folder that holds a graph and no versions.
#[derive(Debug)]
struct Files {
    names: Vec<String>,
    /// The configuration that names the graph, where the folder has none and the graph is not called as it would be by default.
    config: Option<String>,
}

impl Files {
    fn of(folder: &Path) -> Result<Self> {
        let names = names(folder).map_err(|error| Error::not_found(format!("{}: {error}", folder.display())))?;
        let has = |name: &str| names.iter().any(|other| other == name);
        let graphs: Vec<_> = names.iter().filter(|name| is_graph(name)).collect();
        let config = match graphs[..] {
            // The configuration may call its graph anything. Whether that is there, loading will show.
            _ if has(CONFIG_FILE) || has(TRITON_CONFIG_FILE) || has(MODEL_FILE) => None,
            [graph] => Some(format!("filename = {}\n", toml::Value::from(graph.as_str()))),
            [] => {
                return Err(Error::not_found(format!(
                    "{}: there is neither a version folder (a number, as 1) nor a .onnx file; where it is a repository of \
                     models, leave out model_name",
                    folder.display()
                )));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "{}: there are several graphs and none is called {MODEL_FILE}; {CONFIG_FILE} can say which is meant, as \
                     filename",
                    folder.display()
                )));
            }
        };
        Ok(Self { names, config })
    }

    /// Makes `model` a model's folder: `folder` itself is the version, and its files stand beside it, too, where configuration
    /// and labels are looked for.
    fn link(&self, folder: &Path, model: &Path) -> io::Result<()> {
        std::fs::create_dir(model)?;
        symlink(folder, model.join(ONLY_VERSION))?;
        for name in &self.names {
            symlink(folder.join(name), model.join(name))?;
        }
        match &self.config {
            Some(config) => std::fs::write(model.join(CONFIG_FILE), config),
            None => Ok(()),
        }
    }
}

fn is_graph(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "onnx")
}

/// The names of the files in `folder` that are not hidden.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry: PathBuf = entry?.path();
        let name = entry.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
        names.extend(name.filter(|_| entry.is_file()).map(str::to_owned));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::repository::config::ModelConfig;
    use crate::repository::translate::Machine;

    const MACHINE: Machine = Machine { cores: 4, offers_cuda: false };

    fn folder(files: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    /// The graph that would be loaded, as its name in the folder.
    fn graph(files: &[&str]) -> Result<String> {
        let folder = folder(files);
        let single = SingleModel::link(folder.path(), "cats")?;
        let models = layout::models(single.repository())?;
        assert_eq!(models.len(), 1);
        let (name, model) = &models[0];
        assert_eq!(name, "cats");
        let version = layout::versions(model)?.pop().unwrap();
        let graph = ModelConfig::read(model, MACHINE)?.graph(&model.join(version.to_string()));
        let graph = graph.canonicalize().unwrap();
        let root = folder.path().canonicalize().unwrap();
        // Configuration and labels are found beside the versions, too.
        for file in files.iter().filter(|file| !file.contains('/') && !file.starts_with('.')) {
            assert!(model.join(file).is_file(), "{file}");
        }
        Ok(graph.strip_prefix(root).unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_graph_is_found_in_its_versions_folder_or_beside_the_configuration() {
        for (files, found) in [
            (&["1/model.onnx", "2/model.onnx", "labels.txt", "config.toml"][..], "2/model.onnx"),
            (&["model.onnx", "labels.txt", "config.toml"], "model.onnx"),
            (&["model.onnx", "teacher.onnx"], "model.onnx"),
            (&["resnet 50.onnx", "resnet 50.onnx.data", "labels.txt", ".hidden.onnx"], "resnet 50.onnx"),
        ] {
            assert_eq!(graph(files).unwrap(), found, "{files:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for (files, kind, said) in [
            (&["readme.md"][..], ErrorKind::NotFound, "leave out model_name"),
            (&["cats/1/model.onnx"], ErrorKind::NotFound, "leave out model_name"),
            (&["a.onnx", "b.onnx"], ErrorKind::InvalidArgument, "several graphs"),
        ] {
            let error = graph(files).unwrap_err();
            assert_eq!(error.kind(), kind, "{files:?}");
            assert!(error.message().contains(said), "{error}");
        }
        assert_eq!(SingleModel::link(Path::new("/nowhere"), "cats").unwrap_err().kind(), ErrorKind::NotFound);
        for name in ["", "..", "a/b", ".hidden"] {
            let error = SingleModel::link(folder(&["model.onnx"]).path(), name).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains("model_name"), "{error}");
        }
    }
}
