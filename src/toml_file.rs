//! Reading a TOML file into a struct, with errors that say where.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::serde_words::in_words;

/// Reads the file at `path`. `what` names it in the error: "the configuration file".
///
/// # Errors
/// `NotFound` when the file cannot be read, `InvalidArgument` naming file, line and key where something is wrong in it.
pub fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = fs::read_to_string(path)
        .map_err(|error| Error::not_found(format!("{what} {} could not be read", path.display())).with_source(error))?;
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
        Error::invalid(format!("{}: line {line}: {}", path.display(), in_words(error.message())))
    })
}
