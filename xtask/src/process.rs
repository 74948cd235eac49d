//! Child processes, and where things lie in the source tree.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// The root of the source tree that this xtask was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one level below the root")
}

/// `target/`: everything that xtask downloads, unpacks or builds is in here, the models' own files excepted.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The release binary of the server.
pub(crate) fn convoy() -> PathBuf {
    target().join("release/convoy")
}

/// The cargo that runs this xtask, set up to build in [`target`] whatever the user's own settings say, since the paths above
/// count on that.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    // What cargo says of xtask to xtask. Some build scripts (ring's) ask to be run again when these change: were they passed on,
    // a `cargo build` after a `cargo xtask test` would build half of the tree again, and so would the next xtask.
    for (name, _) in env::vars_os() {
        let is_about_xtask = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_CRATE_NAME"
        });
        if is_about_xtask {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `command` with this process's own standard streams.
///
/// # Errors
/// When it cannot be started, or does not succeed. The child has then said why, so the error only names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs `command` and returns its exit status and what it wrote.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn capture(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| cannot_start(command))
}

/// Becomes `command`: signals and the exit code need no passing on, because there is one process.
///
/// # Errors
/// When it cannot be started. It does not return otherwise.
pub(crate) fn become_process(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| cannot_start(command))
}

fn cannot_start(command: &Command) -> String {
    match command.get_program().to_str() {
        Some("python3") => {
            "python3 is not on the PATH: install Python 3 with pip, which fetches the pinned packages".into()
        }
        _ => format!("`{}` could not be started", line(command)),
    }
}

/// Whether a program of this name is on the `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The command as a person would type it, with paths inside the tree relative to its root.
pub(crate) fn line(command: &Command) -> String {
    let prefix = format!("{}/", root().display());
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().replace(&prefix, ""))
        .collect::<Vec<_>>()
        .join(" ")
}
