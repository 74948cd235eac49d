//! `convoy export`: a checkpoint becomes a model of the model repository.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::onnx;
use crate::zoo::weights::{Origin, Weights};
use crate::zoo::{Architecture, Recipe};

const LABELS_FILE: &str = "labels.txt";
const CONFIG_FILE: &str = "config.toml";

/// Write an architecture's ONNX graph with the weights of a checkpoint.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The architecture: efficientnet-lite0, resnet50, …; a wrong name lists them all.
    architecture: String,

    /// The checkpoint, a .safetensors file or a PyTorch file (.pth); or random:SEED for untrained weights.
    #[arg(long, value_name = "FILE|random:SEED")]
    weights: Origin,

    /// The class names: a text file with one a line, or JSON: a list, or an object from index to name. They are written to
    /// labels.txt.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Where the model goes [default: models/ARCHITECTURE/1/model.onnx].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Keep batch norms as nodes of their own instead of folding them into the convolutions.
    #[arg(long)]
    keep_batch_norm: bool,

    /// Replace a config.toml that is there already.
    #[arg(long)]
    force: bool,
}

/// Writes `MODEL/VERSION/model.onnx`, and `MODEL/config.toml` and `MODEL/labels.txt` beside the version's folder.
///
/// # Errors
/// When the weights don't fit the architecture, the labels don't fit the weights, or a file cannot be read or written.
pub(super) fn run(args: &ExportArgs) -> Result<()> {
    let architecture = Architecture::find(&args.architecture)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => ["models", architecture.name, "1", "model.onnx"].iter().collect(),
    };
    let folder = model_folder(&output)?;
    let weights = Weights::open(&args.weights)?;
    let labels = args.labels.as_deref().map(read_labels).transpose()?;
    if let Some(labels) = &labels {
        let classes = architecture.classes(&weights);
        ensure!(labels.len() == classes, "there are {} labels, and the weights have {classes} classes", labels.len());
    }

    let model = architecture.to_onnx(&weights, args.keep_batch_norm)?;
    drop(weights);
    write_atomically(&output, |file| onnx::write_model(model, file))?;
    println!("{}: {}, weights from {}", output.display(), architecture.title, origin(&args.weights));

    let labels_path = folder.join(LABELS_FILE);
    if let Some(labels) = &labels {
        write_atomically(&labels_path, |file| labels.iter().try_for_each(|label| writeln!(file, "{label}")))?;
        println!("{}: {} labels", labels_path.display(), labels.len());
    }

    let config_path = folder.join(CONFIG_FILE);
    if config_path.exists() && !args.force {
        println!("{}: left as it is", config_path.display());
        return Ok(());
    }
    let config = config(architecture, labels_path.exists())?;
    write_atomically(&config_path, |file| file.write_all(config.as_bytes()))?;
    println!("{}: the recipe of {}", config_path.display(), architecture.title);
    Ok(())
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::File(path) => path.display().to_string(),
        Origin::Random(seed) => format!("the seed {seed}: untrained, its answers mean nothing"),
    }
}

/// The folder of the model whose version's folder `output` is in.
fn model_folder(output: &Path) -> Result<&Path> {
    let version = output.parent().filter(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
    });
    version
        .and_then(Path::parent)
        .with_context(|| format!("{} does not end in VERSION/model.onnx, where VERSION is a number", output.display()))
}

fn config(architecture: &Architecture, has_labels: bool) -> Result<String> {
    #[derive(Serialize)]
    struct Config<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        labels: Option<&'a str>,
        preprocess: &'a Recipe,
    }
    let config = Config { labels: has_labels.then_some(LABELS_FILE), preprocess: &architecture.recipe };
    Ok(format!("# {}, {}\n\n{}", architecture.title, architecture.paper, toml::to_string(&config)?))
}

/// Writes a file beside `path` and moves it there: whoever reads `path` sees the old file or the whole new one.
fn write_atomically(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let result = File::create(&temporary).map(BufWriter::new).and_then(|mut file| {
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&temporary, path)
    });
    if result.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    result.with_context(|| format!("{} cannot be written", path.display()))
}

/// The labels in `path`, by class index.
fn read_labels(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let labels = match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("json") => parse_json_labels(&text),
        _ => Ok(text.lines().map(str::to_owned).collect()),
    };
    labels.with_context(|| format!("{} has no labels that can be read", path.display()))
}

/// Labels as a JSON list of names, or as an object from class index to a name or to `{"name": …}`. Of several names of one
/// class in a list, all are kept, joined by commas.
fn parse_json_labels(text: &str) -> Result<Vec<String>> {
    use serde_json::Value;

    fn name(value: &Value) -> Result<String> {
        match value {
            // labels.txt has one label a line.
            Value::String(name) => Ok(name.replace('\n', " ")),
            Value::Array(names) => Ok(names.iter().map(name).collect::<Result<Vec<_>>>()?.join(", ")),
            Value::Object(class) => name(class.get("name").context("a class has no name")?),
            other => anyhow::bail!("{other} is no label"),
        }
    }

    match serde_json::from_str(text)? {
        Value::Array(names) => names.iter().map(name).collect(),
        Value::Object(classes) => (0..classes.len())
            .map(|index| name(classes.get(&index.to_string()).with_context(|| format!("class {index} is missing"))?))
            .collect(),
        _ => anyhow::bail!("it is neither a list nor an object"),
    }
}
