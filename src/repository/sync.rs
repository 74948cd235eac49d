//! The locks and handles at which requests, loads and drains meet. Here they are the standard library's;
//! `tests/swap_and_drain.rs` compiles the same files against loom's.

pub(super) use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
