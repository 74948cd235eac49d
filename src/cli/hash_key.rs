//! `convoy hash-key`.

use std::io::{Read, Write};

use anyhow::Context;
use clap::Args;

use crate::auth::{KeyHash, Right};

/// Hash an API key for the keys file
///
/// Reads the key from standard input and writes its entry for the keys file, as in
/// `convoy hash-key --right infer < key >> keys.toml`. A line break at the end is not part of the key.
#[derive(Debug, Args)]
pub(super) struct HashKeyArgs {
    /// What the key shall allow: using the models, or changing what is served, too
    #[arg(long, value_enum, default_value_t = Right::Infer)]
    right: Right,
}

/// Reads a key and writes its entry.
pub(super) fn run(args: &HashKeyArgs) -> anyhow::Result<()> {
    let mut key = String::new();
    std::io::stdin().read_to_string(&mut key).context("the key could not be read from standard input")?;
    let hash = KeyHash::of_new(key.trim_end_matches(['\r', '\n']))?;
    let entry = format!("[[keys]]\nsha256 = \"{}\"\nright = \"{}\"\n", hash.to_hex(), args.right.as_str());
    std::io::stdout().write_all(entry.as_bytes()).context("the entry could not be written")
}
