//! Writes the smallest model that is a classifier, for measuring what a server costs beside its model:
//! `cargo run --release --example trivial_model -- REPOSITORY/NAME`.
//!
//! Three classes, whose scores are the means of an 8×8 picture's channels.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

#[expect(dead_code, reason = "the tests need more graphs")]
#[path = "../tests/support/graphs.rs"]
mod graphs;

const SIDE: i64 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("usage: trivial_model REPOSITORY/NAME")?.into();
    let version = folder.join("1");
    fs::create_dir_all(&version)?;
    fs::write(folder.join("config.toml"), format!("[preprocess]\nresize = {SIDE}\ncrop = {SIDE}\n"))?;
    graphs::write(&version, &graphs::channel_means(SIDE, None));
    Ok(())
}
