//! `cargo xtask setup`: everything that the server needs, made once and checked in seconds afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

use crate::pins::{self, Device};
use crate::process;
use crate::progress;

/// What [`fetch`] has brought.
#[derive(Debug)]
struct Fetched {
    /// The folder of ONNX Runtime.
    onnxruntime: PathBuf,
    weights: PathBuf,
    labels: PathBuf,
    photo: PathBuf,
    /// What the model is written from: it is written anew when this changes.
    inputs: String,
}

/// What [`setup`] has made.
#[derive(Debug)]
pub(crate) struct Ready {
    /// ONNX Runtime's shared library.
    pub(crate) onnxruntime: PathBuf,
    /// The model repository.
    pub(crate) models: PathBuf,
    /// A photograph to try the server with.
    pub(crate) photo: PathBuf,
}

/// Fetches ONNX Runtime, the weights and the labels, builds the server, and writes the model's graph with it.
///
/// # Errors
/// The first step that fails ends the set-up; the next call goes on from there.
pub(crate) fn setup(device: Device) -> Result<Ready> {
    let start = Instant::now();
    let fetched = fetch_inputs(device)?;
    build_server()?;
    let models = process::root().join("models");
    export(&fetched, &models.join("efficientnet-lite0"))?;

    if device == Device::Gpu {
        progress::say(&format!("ONNX Runtime's CUDA build needs {}: these must be on the machine", pins::GPU_NEEDS));
    }
    progress::say(&format!("everything is set up ({})", progress::seconds(start.elapsed())));
    Ok(Ready { onnxruntime: fetched.onnxruntime.join(pins::onnxruntime_library()), models, photo: fetched.photo })
}

/// Fetches what the server and its example model are made from, and builds nothing: what an image's build keeps as a layer
/// while the source changes.
///
/// # Errors
/// When something cannot be fetched.
pub(crate) fn fetch(device: Device) -> Result<()> {
    fetch_inputs(device).map(drop)
}

fn fetch_inputs(device: Device) -> Result<Fetched> {
    let onnxruntime = pins::onnxruntime(device)?.ensure()?;
    let checkpoint = pins::checkpoint();
    let names = pins::labels();
    Ok(Fetched {
        onnxruntime,
        weights: checkpoint.ensure()?.join("efficientnet-lite0.pth"),
        labels: names.ensure()?.join("labels.json"),
        photo: pins::cats().ensure()?.join("siamese-cat.jpg"),
        inputs: checkpoint.stamp() + &names.stamp(),
    })
}

/// Builds the release binary. cargo finds out by itself whether there is anything to do.
fn build_server() -> Result<()> {
    if !process::convoy().exists() {
        progress::say("building the server takes some minutes the first time");
        if cfg!(target_arch = "x86_64") && !process::on_path("nasm") {
            progress::say(
                "nasm is not installed. It is not needed, but with it at build time JPEG decoding is about twice as fast",
            );
        }
    }
    let mut build = process::cargo();
    build.args(["build", "--release", "--locked", "--package", "convoy", "--bin", "convoy"]);
    process::run(&mut build)
}

/// Writes the model into `folder` unless it is there, from these inputs and by this binary.
fn export(Fetched { weights, labels, inputs, .. }: &Fetched, folder: &Path) -> Result<()> {
    let model = folder.join("1/model.onnx");
    let stamp = process::target().join("checkpoints/efficientnet-lite0.exported");
    let fresh = fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == *inputs)
        && ["labels.txt", "config.toml"].iter().all(|name| folder.join(name).is_file())
        && modified(&model).is_some_and(|written| Some(written) >= modified(&process::convoy()));
    if fresh {
        return Ok(());
    }
    progress::step("writing the graph of efficientnet-lite0", || {
        let mut export = Command::new(process::convoy());
        export.current_dir(process::root()).args(["export", "efficientnet-lite0"]);
        for (option, path) in [("--weights", weights), ("--labels", labels), ("--output", &model)] {
            export.arg(option).arg(path.strip_prefix(process::root()).unwrap_or(path));
        }
        process::run(&mut export)
    })?;
    // Last, so that an export cut short is made again.
    fs::write(&stamp, inputs).with_context(|| format!("{} could not be written", stamp.display()))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
