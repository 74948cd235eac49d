//! Preprocessing through its public interface: its numbers against Pillow and torchvision, its recipes, and pictures that
//! mean harm.

#![expect(clippy::unwrap_used, reason = "a test whose ground gives way should stop")]

mod goldens;
mod hostile;
mod recipes;

use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/preprocess")
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(folder().join(file)).unwrap()
}
