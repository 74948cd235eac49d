//! Command-line verbs.
pub mod bench;
pub mod classify;
