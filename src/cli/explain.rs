//! `convoy explain`: why a model answers what it does, worked out in this process, with no server.

use std::io::{self, Write};
use std::num::{IntErrorKind, ParseIntError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::classify::class_json;
use super::local::{self, Local, LocalArgs};
use crate::error::Error;
use crate::explain::{
    ExcitingRequest, ExplainConfig, ExplainMetrics, ExplainRequest, Explainer, Explanation, Method, Rule, Work,
};
use crate::inference::Limits;
use crate::repository::Model;

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    /// Why the picture is of its class: a heatmap or a projection
    Explanation,
    /// The names of the layers
    Layers,
    /// The filters of the first convolution
    Filters,
    /// The feature maps of --layer
    Features,
    /// Those of the pictures that excite --unit of --layer most
    Exciting,
}

/// Show why a model answers what it does, in this process, with no server
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The picture; for exciting ones, the pictures or folders of them
    #[arg(value_name = "PICTURE")]
    pictures: Vec<PathBuf>,

    /// How: cam, gradcam, occlusion, deconvnet, guided or gradient [default: cam where the model allows it, else gradcam, or
    /// occlusion where neither is possible; for exciting pictures, deconvnet]
    #[arg(long)]
    method: Option<Method>,

    /// What to show
    #[arg(long, value_enum, default_value_t = Show::Explanation)]
    show: Show,

    /// The class to explain, by its index [default: the most probable]
    #[arg(long, allow_negative_numbers = true, value_parser = whole_number)]
    class: Option<usize>,

    /// The layer, by its name
    #[arg(long, required_if_eq_any([("show", "features"), ("show", "exciting")]))]
    layer: Option<String>,

    /// The unit of the layer, a channel [default: the strongest]
    #[arg(long, required_if_eq("show", "exciting"), allow_negative_numbers = true, value_parser = whole_number)]
    unit: Option<usize>,

    /// How many units to project, or exciting pictures to show [default: 1, or 9]
    #[arg(long, allow_negative_numbers = true, value_parser = whole_number)]
    count: Option<usize>,

    /// Occlusion: the side of the square that covers the picture, in pixels of the network's input [default: a sixth of it]
    #[arg(long, allow_negative_numbers = true, value_parser = whole_number)]
    patch: Option<usize>,

    /// Occlusion: how far the square moves [default: half its side]
    #[arg(long, allow_negative_numbers = true, value_parser = whole_number)]
    stride: Option<usize>,

    /// Where the picture goes, as PNG
    #[arg(long, short, value_name = "FILE", default_value = "explanation.png")]
    output: PathBuf,

    /// Print JSON instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    local: LocalArgs,
}

/// A number of the command line, with words for what is none.
fn whole_number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "it is too large".to_owned(),
        _ => "it is not a whole number from 0 on".to_owned(),
    })
}

impl ExplainArgs {
    /// Refuses what means nothing to what is to be shown: it would be answered as if it had.
    fn check(&self) -> Result<()> {
        if self.show == Show::Explanation {
            return Ok(());
        }
        let taken = [
            ("--method", self.method.is_some(), &[Show::Exciting][..]),
            ("--class", self.class.is_some(), &[]),
            ("--layer", self.layer.is_some(), &[Show::Features, Show::Exciting]),
            ("--unit", self.unit.is_some(), &[Show::Exciting]),
            ("--count", self.count.is_some(), &[Show::Exciting]),
            ("--patch", self.patch.is_some(), &[]),
            ("--stride", self.stride.is_some(), &[]),
            ("picture", !self.pictures.is_empty(), &[Show::Features, Show::Exciting]),
        ];
        let useless = taken.iter().find(|(_, is_given, by)| *is_given && !by.contains(&self.show));
        if let Some((name, ..)) = useless {
            let show = self.show.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            bail!("--show {show} takes no {name}");
        }
        Ok(())
    }
}

/// Explains what it was asked to, writes the picture and prints the numbers.
///
/// # Errors
/// When ONNX Runtime, the model or a picture cannot be loaded, the model cannot be explained so, or the output cannot be written.
pub(super) async fn run(args: &ExplainArgs) -> Result<()> {
    args.check()?;
    let limits = Limits::default();
    let Local { runtime, metrics, inference: _inference, model } =
        tokio::task::block_in_place(|| local::load(&args.local, &limits))?;
    let mut out = io::stdout().lock();
    if args.show == Show::Layers {
        let graph = model.graph().context("an ensemble has no layers of its own: name a member")?;
        let layers = &graph.description().layers;
        if args.json {
            let layers: Vec<_> = layers
                .iter()
                .map(|it| json!({"name": it.name, "operator": it.operator, "output_shape": it.output_shape}))
                .collect();
            writeln!(out, "{}", json!({ "layers": layers }))?;
            return Ok(());
        }
        for layer in layers {
            let shape = layer.output_shape.as_ref().map_or_else(|| "?".to_owned(), |shape| format!("{shape:?}"));
            writeln!(out, "{}\t{}\t{shape}", layer.name, layer.operator)?;
        }
        return Ok(());
    }
    let paths = tokio::task::block_in_place(|| files(&args.pictures))?;
    let explain_metrics = ExplainMetrics::register(metrics.registry())?;
    // Whoever waits here ends it himself.
    let config = ExplainConfig { timeout_ms: u64::MAX, ..ExplainConfig::default() };
    let explainer = Explainer::new(runtime, &config, limits.picture(), explain_metrics);

    let (png, answer) = show(args, &explainer, model, paths).await?;
    if let Some(png) = &png {
        tokio::task::block_in_place(|| std::fs::write(&args.output, png))
            .with_context(|| format!("{} cannot be written", args.output.display()))?;
    }
    if args.json {
        writeln!(out, "{answer}")?;
    } else {
        print(&mut out, &answer)?;
        match png {
            Some(_) => writeln!(out, "picture: {}", args.output.display())?,
            None => writeln!(out, "picture: none: the unit is not above zero in any of the pictures")?,
        }
    }
    Ok(())
}

/// What is asked for, as PNG, where there is anything to be seen, and as JSON.
async fn show(
    args: &ExplainArgs,
    explainer: &Explainer,
    model: Arc<Model>,
    paths: Vec<PathBuf>,
) -> Result<(Option<Vec<u8>>, Value)> {
    let layer = args.layer.clone().unwrap_or_default();
    Ok(match args.show {
        Show::Filters => {
            let filters = explainer.admit(model, Work::Filters, None)?.filters().await?;
            (Some(filters.png), json!({"layer": filters.layer, "shape": filters.shape}))
        }
        Show::Features => {
            let (path, picture) = single(&paths)?;
            let features = explainer.admit(model, Work::Features, None)?.features(picture, layer).await;
            let features = features.with_context(|| path.display().to_string())?;
            let channels: Vec<_> = features
                .channels
                .iter()
                .map(|it| json!({"min": it.min, "max": it.max, "mean": it.mean, "std": it.std, "active": it.active}))
                .collect();
            (Some(features.png), json!({"layer": features.layer, "shape": features.shape, "channels": channels}))
        }
        Show::Exciting => {
            let rule = args.method.map_or(Ok(Rule::Deconvnet), Method::rule)?;
            let (unit, count) = (args.unit.unwrap_or_default(), args.count.unwrap_or(ExcitingRequest::DEFAULT_COUNT));
            // A file that somebody has named is meant; what else is in a folder may not be.
            let leaves_out_broken = args.pictures.iter().any(|path| path.is_dir());
            let request = ExcitingRequest { layer, unit, count, rule, leaves_out_broken };
            let names = paths.clone();
            // One at a time: a folder may hold more than the memory does.
            let pictures = paths.into_iter().map(|path| {
                let unread = |error| Error::invalid("the file cannot be read").with_source(error);
                (path.display().to_string(), std::fs::read(&path).map(Bytes::from).map_err(unread))
            });
            let exciting = explainer.admit(model, Work::Exciting, None)?.exciting(request, pictures).await?;
            for why in &exciting.left_out {
                eprintln!("left out: {why}");
            }
            let pictures = exciting.pictures.iter().map(|it| {
                let path = names.get(it.index).map(|path| path.display().to_string());
                json!({"picture": path, "activation": it.unit.activation, "row": it.unit.row, "column": it.unit.column})
            });
            let pictures: Vec<_> = pictures.collect();
            (exciting.png, json!({"layer": exciting.layer, "unit": unit, "pictures": pictures}))
        }
        Show::Explanation | Show::Layers => {
            let (path, picture) = single(&paths)?;
            let request = ExplainRequest {
                picture,
                method: args.method,
                class: args.class,
                layer: args.layer.clone(),
                unit: args.unit,
                count: args.count,
                patch: args.patch,
                stride: args.stride,
            };
            let work = Work::Explanation(args.method);
            let explanation = explainer.admit(model, work, None)?.explain(request).await;
            let explanation = explanation.with_context(|| path.display().to_string())?;
            let answer = to_json(&explanation);
            (Some(explanation.png), answer)
        }
    })
}

/// What `paths` name: files, and the pictures in folders, in the order of their names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
        let mut inside = entries.with_context(|| format!("{} cannot be read", path.display()))?;
        inside.retain(|path| is_picture(path) && !path.is_dir());
        if inside.is_empty() {
            bail!("{} holds no picture: none of its files is called .{}", path.display(), EXTENSIONS.join(", ."));
        }
        inside.sort_unstable();
        files.extend(inside);
    }
    Ok(files)
}

/// What the names of pictures end with.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Whether the file's name says that it is a picture: folders hold other things, too.
fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

fn single(paths: &[PathBuf]) -> Result<(&Path, Bytes)> {
    let [path] = paths else {
        bail!("one picture must be named, not {}", paths.len());
    };
    let bytes = tokio::task::block_in_place(|| std::fs::read(path));
    Ok((path, bytes.with_context(|| format!("{} cannot be read", path.display()))?.into()))
}

fn to_json(explanation: &Explanation) -> Value {
    let units = explanation.units.iter();
    let units =
        units.map(|it| json!({"unit": it.unit, "row": it.row, "column": it.column, "activation": it.activation}));
    let heatmap = &explanation.heatmap;
    json!({
        "method": explanation.method.as_str(),
        "class": explanation.class.as_ref().map(class_json),
        "layer": explanation.layer,
        "units": units.collect::<Vec<_>>(),
        "heatmap": {"shape": [heatmap.height, heatmap.width], "data": heatmap.data},
    })
}

/// Prints what is short enough to be read, a line a key.
fn print(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    for (key, value) in answer.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Array(list) if list.is_empty() => {}
            Value::Array(list) if list.iter().all(Value::is_object) => {
                for (index, item) in list.iter().enumerate() {
                    writeln!(out, "{key} {index}: {item}")?;
                }
            }
            // Hundreds of numbers: --json has them, and the picture shows them.
            Value::Object(map) if map.contains_key("data") => {}
            Value::String(text) => writeln!(out, "{key}: {text}")?,
            other => writeln!(out, "{key}: {other}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        explain: ExplainArgs,
    }

    #[test]
    fn what_means_nothing_to_what_is_shown_is_refused() {
        let check = |line: &str| Line::try_parse_from(line.split(' ')).unwrap().explain.check();
        for line in [
            "explain a.jpg --class 3 --method cam",
            "explain --show layers --json",
            "explain --show filters",
            "explain a.jpg --show features --layer a",
            "explain a.jpg b.jpg --show exciting --layer a --unit 1 --count 2 --method guided",
        ] {
            check(line).unwrap();
        }
        for (line, said) in [
            ("explain a.jpg --show layers", "--show layers takes no picture"),
            ("explain --show filters --layer a", "--show filters takes no --layer"),
            ("explain a.jpg --show features --layer a --unit 1", "--show features takes no --unit"),
            ("explain a.jpg --show exciting --layer a --unit 1 --class 3", "--show exciting takes no --class"),
        ] {
            assert_eq!(check(line).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn numbers_that_are_none_are_said_to_be_none() {
        for line in ["explain a.jpg --class -1", "explain a.jpg --class=-1", "explain a.jpg --class x"] {
            let error = Line::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains("it is not a whole number from 0 on"), "{error}");
        }
        let line = "explain a.jpg --patch 99999999999999999999";
        let error = Line::try_parse_from(line.split(' ')).unwrap_err().to_string();
        assert!(error.contains("it is too large"), "{error}");
    }

    #[test]
    fn a_folder_without_pictures_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let error = files(&[folder.path().to_owned()]).unwrap_err().to_string();
        let said = "holds no picture: none of its files is called .jpg, .jpeg, .png, ";
        assert!(error.starts_with(&folder.path().display().to_string()) && error.contains(said), "{error}");
        std::fs::write(folder.path().join("a.PNG"), "").unwrap();
        assert_eq!(files(&[folder.path().to_owned()]).unwrap(), [folder.path().join("a.PNG")]);
    }
}
