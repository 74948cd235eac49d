//! `cargo xtask stage`: what an image or a package installs, gathered in one folder.
//!
//! ```text
//! bin/convoy                          the server
//! lib/                                ONNX Runtime, and its execution providers
//! licenses/                           ONNX Runtime's licence and notices
//! models/efficientnet-lite0/          the example model, ready to serve
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::pins::Device;
use crate::process;
use crate::setup;

/// The example model's files. Its graph is in a folder of its own, the version's.
const MODEL: [&str; 3] = ["config.toml", "labels.txt", "1/model.onnx"];

/// Sets up, then copies into `folder` what is to be installed.
///
/// # Errors
/// When the set-up fails or a file cannot be copied.
pub(crate) fn stage(device: Device, folder: &str) -> Result<()> {
    let ready = setup::setup(device)?;
    let folder = std::path::absolute(folder)?;
    copy(&process::convoy(), &folder.join("bin/convoy"))?;
    let runtime = ready.onnxruntime.parent().context("ONNX Runtime lies in no folder")?;
    for file in files(runtime)? {
        let name = file.file_name().context("a file has no name")?.to_string_lossy().into_owned();
        let into = match name.as_str() {
            "stamp.txt" => continue,
            "LICENSE" | "ThirdPartyNotices.txt" => "licenses/onnxruntime",
            _ => "lib",
        };
        copy(&file, &folder.join(into).join(name))?;
    }
    let model = "efficientnet-lite0";
    for file in MODEL {
        copy(&ready.models.join(model).join(file), &folder.join("models").join(model).join(file))?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))?;
    Ok(())
}
