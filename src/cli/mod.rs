//! Command-line verbs.

pub mod bench;
pub mod classify;
pub mod export;
