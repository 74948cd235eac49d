//! The virtual environment with the real clients that the tests run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::progress;

/// The packages, each with its version.
const REQUIREMENTS: &str = "tests/clients/requirements.txt";
/// KServe's SDK runs on no older one.
const OLDEST_PYTHON: (u32, u32) = (3, 10);

/// Makes `target/venv` out of [`REQUIREMENTS`], unless it is there, made of the same by the same Python.
///
/// # Errors
/// When Python is missing or too old, or pip cannot install.
pub(crate) fn ensure() -> Result<()> {
    let requirements = process::root().join(REQUIREMENTS);
    let folder = process::target().join("venv");
    let stamp = folder.join("stamp.txt");
    let version = python_version()?;
    let made_of = format!("python {version}\n{}", fs::read_to_string(&requirements)?);
    if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == made_of) {
        return Ok(());
    }
    progress::step("installing the real clients for the tests", || {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        // Without pip, which Debian packs apart: the machine's own pip installs into the folder just as well.
        process::run(Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&folder))?;
        let packages = packages_of(&folder)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        // The list is complete, so nothing has to be resolved, and nothing is compiled. KServe's SDK names a newest Python,
        // which its clients do not need.
        pip.args(["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]);
        // pip warns root of breaking the system's packages, which it is not near.
        pip.env("PIP_ROOT_USER_ACTION", "ignore");
        pip.arg("--target").arg(packages).arg("--requirement").arg(&requirements);
        process::run(&mut pip)?;
        fs::write(&stamp, &made_of).with_context(|| format!("{} could not be written", stamp.display()))
    })
}

/// The version of the machine's Python, such as `3.11`.
fn python_version() -> Result<String> {
    let code = "import sys; print('%d.%d' % sys.version_info[:2])";
    let version = said(Command::new("python3").args(["-c", code]))?;
    let (major, minor) = version.split_once('.').context("python3 says no version")?;
    if (major.parse()?, minor.parse()?) < OLDEST_PYTHON {
        let (major, minor) = OLDEST_PYTHON;
        bail!("python3 is {version}, but the real clients that the tests run need {major}.{minor} or later");
    }
    Ok(version)
}

/// Where the environment in `folder` has its packages.
fn packages_of(folder: &Path) -> Result<PathBuf> {
    let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
    said(Command::new(folder.join("bin/python")).args(["-c", code])).map(PathBuf::from)
}

/// What the command prints, in one line.
fn said(command: &mut Command) -> Result<String> {
    let output = process::capture(command)?;
    if !output.status.success() {
        bail!("`{}` failed: {}", process::line(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
