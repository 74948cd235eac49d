//! Environment variables that libraries read when a process starts, and at no other time: ONNX Runtime's, and those of the two
//! allocators, glibc's, from which ONNX Runtime takes its memory, and mimalloc, from which the server does.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::engine::NO_TELEMETRY;

/// The official builds of ONNX Runtime report to Microsoft: the process and device, and what the models are like. A call can stop
/// that only when the first report is made; with this variable none is.
const QUIET: (&str, &str) = (NO_TELEMETRY, "1");

/// With the others a model that is unloaded, or loaded again, gives its memory back: blocks of 32 KiB and more are mapped for
/// themselves, where glibc by default stops doing so once one has been freed; there is one arena instead of one for each
/// thread, each of which keeps what is free in it; and mimalloc takes pages of 4 KiB rather than of 2 MiB, of which a thread that
/// comes and goes leaves one behind (docs/model-management.md has the figures).
const SETTINGS: &[(&str, &str)] =
    &[QUIET, ("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "32768"), ("MIMALLOC_ALLOW_THP", "0")];

/// Starts this program again, as the same process, with the settings that the environment does not have: setting them here
/// would be unsafe code. Returns where nothing is to be done, or it cannot be done, which [`crate::engine::Runtime::load`] says of the
/// first of them.
pub(super) fn settle() {
    let missing: Vec<_> = SETTINGS.iter().copied().filter(|(name, _)| env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It returns only when it has failed.
    drop(command.args(arguments).envs(missing).exec());
}
