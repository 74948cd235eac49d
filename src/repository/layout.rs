//! Where things lie in a model repository: `<root>/<name>/config.toml` and `<root>/<name>/<version>/model.onnx`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The configuration's file name in a model's folder.
pub const CONFIG_FILE: &str = "config.toml";
/// The file name of Triton's configuration, which is read where there is no [`CONFIG_FILE`].
pub const TRITON_CONFIG_FILE: &str = "config.pbtxt";
/// The graph's default file name in a version's folder.
pub const MODEL_FILE: &str = "model.onnx";
/// The labels' default file name in a model's folder.
pub const LABELS_FILE: &str = "labels.txt";

/// The models' folders, by name. Hidden folders and plain files are no models.
///
/// # Errors
/// `NotFound` when the repository cannot be read.
pub(super) fn models(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = std::fs::read_dir(root).map_err(|error| {
        Error::not_found(format!("the model repository {} cannot be read: {error}", root.display()))
    })?;
    let mut models: Vec<_> = entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    models.sort();
    Ok(models)
}

/// The names of links that lead nowhere where models' folders should be.
pub(super) fn broken_links(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(std::result::Result::ok);
    let broken = entries.filter(|entry| entry.path().is_symlink() && !entry.path().exists());
    let mut names: Vec<_> = broken.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// The versions in a model's folder, ascending: the folders whose names are numbers.
///
/// # Errors
/// `NotFound` when the folder cannot be read.
pub(super) fn versions(folder: &Path) -> Result<Vec<u64>> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| Error::not_found(format!("{}: {error}", folder.display())))?;
    let mut versions: Vec<u64> = entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| parse_version(entry.file_name().to_str()?))
        .collect();
    versions.sort_unstable();
    Ok(versions)
}

/// A version's number: digits only, no leading zero, so that each version has one spelling.
pub fn parse_version(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits && canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_one_spelling() {
        assert_eq!(parse_version("12"), Some(12));
        for text in ["", "01", "+1", "-1", "1.0", "v1", "99999999999999999999"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }

    #[test]
    fn only_numbered_folders_are_versions() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10", "2", "old", ".git", "03"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("3"), "a file").unwrap();
        assert_eq!(versions(folder.path()).unwrap(), [2, 10]);
        let names: Vec<_> = models(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["03", "10", "2", "old"]);
        assert!(models(&folder.path().join("nowhere")).is_err());
        for (name, target) in [("linked", "2"), ("lost", "nowhere"), (".lost", "nowhere")] {
            std::os::unix::fs::symlink(folder.path().join(target), folder.path().join(name)).unwrap();
        }
        assert_eq!(broken_links(folder.path()), ["lost"]);
        assert_eq!(models(folder.path()).unwrap().len(), 5);
    }
}
