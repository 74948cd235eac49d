//! Class labels: a text file with one a line, in the order of the model's output.

use std::path::Path;
use std::sync::Arc;

use super::beside;
use super::layout::LABELS_FILE;
use crate::error::{Error, Result};

/// Reads the labels of the model in `folder`: the file that its configuration names, else `labels.txt` where there is one,
/// else none.
///
/// # Errors
/// `InvalidArgument` with a message that names the file, when it cannot be read or has another number of lines than the
/// model has classes.
pub(super) fn read(folder: &Path, configured: Option<&Path>, class_count: Option<usize>) -> Result<Vec<Arc<str>>> {
    let path = folder.join(configured.unwrap_or(Path::new(LABELS_FILE)));
    let text = match beside::read_text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && configured.is_none() => return Ok(Vec::new()),
        Err(error) => return Err(Error::invalid(format!("labels: {}: {error}", path.display()))),
    };
    let labels: Vec<Arc<str>> = text.lines().map(|line| Arc::from(line.trim())).collect();
    match class_count {
        Some(count) if count != labels.len() => Err(Error::invalid(format!(
            "labels: {} has {} lines, but the model has {count} classes",
            path.display(),
            labels.len()
        ))),
        _ => Ok(labels),
    }
}
