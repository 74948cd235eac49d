//! The locks of the queue and of devices. Here they are the standard library's; `tests/interleavings.rs` compiles the same
//! files against loom's.

pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
