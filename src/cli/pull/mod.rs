//! `convoy pull`: torchvision's published weights become a model of the model repository.

mod download;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::export::{self, Target};
use crate::cache_folder;
use crate::zoo::Architecture;
use crate::zoo::published::{CHECKPOINTS_URL, Published};
use crate::zoo::weights::{Checkpoint, Weights};

/// No published checkpoint is nearly as large (VGG-19's has 575 MB). It keeps a broken mirror from filling the disk.
const MAX_BYTES: u64 = 1 << 30;

/// Download torchvision's published weights of an architecture, and export them.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The architecture, and which of its weights: `resnet50`, `resnet50:IMAGENET1K_V2`. `convoy list` names them all.
    #[arg(value_name = "ARCHITECTURE[:WEIGHTS]")]
    name: String,

    /// Where the checkpoints are, under torchvision's file names.
    #[arg(long, value_name = "URL", env = "CONVOY_MIRROR", default_value = CHECKPOINTS_URL)]
    mirror: String,

    /// Where downloaded checkpoints are kept [default: ~/.cache/convoy].
    #[arg(long, value_name = "FOLDER", env = "CONVOY_CACHE")]
    cache: Option<PathBuf>,

    #[command(flatten)]
    target: Target,
}

/// Downloads the checkpoint, unless it is there already, and exports it with the recipe of its weights. A download that broke off
/// goes on where it ended when the command is given again.
///
/// # Errors
/// When the file cannot be downloaded or has another hash than its name says, and as [`export::run`].
pub(super) fn run(args: &PullArgs) -> Result<()> {
    let published = Published::find(&args.name)?;
    let cache = match &args.cache {
        Some(cache) => cache.clone(),
        None => cache_folder::default()
            .context("there is no home directory: say where checkpoints are kept with --cache")?,
    };
    pull(published, &args.mirror, &cache, &args.target)
}

fn pull(published: &Published, mirror: &str, cache: &Path, target: &Target) -> Result<()> {
    let architecture = Architecture::find(published.architecture)?;
    let (file, digest) =
        published.file.zip(published.digest()).with_context(|| format!("{} has no file", published.weights))?;
    let path = cache.join(file);
    let url = format!("{}/{file}", mirror.trim_end_matches('/'));
    download::fetch(&url, &path, digest, MAX_BYTES)?;
    let weights = Weights::from_checkpoint(Checkpoint::read(&path)?, file);
    export::export(architecture, &weights, &published.recipe(), target)
}
