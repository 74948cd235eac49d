//! `convoy explain`: why a model answers what it does, worked out in this process, with no server.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::local::{self, Local, LocalArgs};
use crate::explain::{
    ExcitingRequest, ExplainConfig, ExplainMetrics, ExplainRequest, Explainer, Explanation, Method, Rule,
};
use crate::inference::Limits;
use crate::preprocess::PictureLimits;
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
    /// The picture; for exciting ones, the pictures
    #[arg(value_name = "PICTURE")]
    pictures: Vec<PathBuf>,

    /// How: cam, gradcam, occlusion, deconvnet, guided or gradient [default: cam where the model allows it, else gradcam; for
    /// exciting pictures, deconvnet]
    #[arg(long)]
    method: Option<Method>,

    /// What to show
    #[arg(long, value_enum, default_value_t = Show::Explanation)]
    show: Show,

    /// The class to explain, by its index [default: the most probable]
    #[arg(long)]
    class: Option<usize>,

    /// The layer, by its name
    #[arg(long, required_if_eq_any([("show", "features"), ("show", "exciting")]))]
    layer: Option<String>,

    /// The unit of the layer, a channel [default: the strongest]
    #[arg(long, required_if_eq("show", "exciting"))]
    unit: Option<usize>,

    /// How many units to project, or exciting pictures to show [default: 1, or 9]
    #[arg(long)]
    count: Option<usize>,

    /// Occlusion: the side of the square that covers the picture, in pixels of the network's input [default: a sixth of it]
    #[arg(long)]
    patch: Option<usize>,

    /// Occlusion: how far the square moves [default: half its side]
    #[arg(long)]
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

/// Explains what it was asked to, writes the picture and prints the numbers.
///
/// # Errors
/// When ONNX Runtime, the model or a picture cannot be loaded, the model cannot be explained so, or the output cannot be written.
pub(super) async fn run(args: &ExplainArgs) -> Result<()> {
    let limits = Limits::default();
    let Local { runtime, metrics, inference: _inference, model } =
        tokio::task::block_in_place(|| local::load(&args.local, &limits))?;
    let mut out = io::stdout().lock();
    if args.show == Show::Layers {
        let graph = model.graph().context("an ensemble has no layers of its own: name a member")?;
        for layer in &graph.description().layers {
            let shape = layer.output_shape.as_ref().map_or_else(|| "?".to_owned(), |shape| format!("{shape:?}"));
            writeln!(out, "{}\t{}\t{shape}", layer.name, layer.operator)?;
        }
        return Ok(());
    }
    let pictures =
        tokio::task::block_in_place(|| args.pictures.iter().map(|path| read(path)).collect::<Result<Vec<_>>>())?;
    let limits = PictureLimits { max_pixels: limits.max_pixels, max_decode_bytes: limits.max_decode_bytes };
    let explain_metrics = ExplainMetrics::register(metrics.registry())?;
    let explainer = Explainer::new(runtime, &ExplainConfig::default(), limits, explain_metrics);

    let (png, answer) = show(args, &explainer, model, pictures).await?;
    tokio::task::block_in_place(|| std::fs::write(&args.output, png))
        .with_context(|| format!("{} cannot be written", args.output.display()))?;
    if args.json {
        writeln!(out, "{answer}")?;
    } else {
        print(&mut out, &answer)?;
        writeln!(out, "picture: {}", args.output.display())?;
    }
    Ok(())
}

/// What is asked for, as PNG and as JSON.
async fn show(
    args: &ExplainArgs,
    explainer: &Explainer,
    model: Arc<Model>,
    pictures: Vec<Bytes>,
) -> Result<(Vec<u8>, Value)> {
    let layer = args.layer.clone().unwrap_or_default();
    Ok(match args.show {
        Show::Filters => {
            let filters = explainer.filters(model).await?;
            (filters.png, json!({"layer": filters.layer, "shape": filters.shape}))
        }
        Show::Features => {
            let features = explainer.features(model, single(pictures)?, layer).await?;
            let channels: Vec<_> = features
                .channels
                .iter()
                .map(|it| json!({"min": it.min, "max": it.max, "mean": it.mean, "std": it.std, "active": it.active}))
                .collect();
            (features.png, json!({"layer": features.layer, "shape": features.shape, "channels": channels}))
        }
        Show::Exciting => {
            let rule = match args.method {
                None => Rule::Deconvnet,
                Some(Method::Projection(rule)) => rule,
                Some(other) => bail!("exciting pictures take deconvnet, guided or gradient, not {}", other.as_str()),
            };
            let (unit, count) = (args.unit.unwrap_or_default(), args.count.unwrap_or(9));
            let request = ExcitingRequest { pictures, layer, unit, count, rule };
            let exciting = explainer.exciting(model, request).await?;
            let pictures = exciting.pictures.iter().map(|it| {
                let path = args.pictures.get(it.index).map(|path| path.display().to_string());
                json!({"picture": path, "activation": it.unit.activation, "row": it.unit.row, "column": it.unit.column})
            });
            let pictures: Vec<_> = pictures.collect();
            (exciting.png, json!({"layer": exciting.layer, "unit": unit, "pictures": pictures}))
        }
        Show::Explanation | Show::Layers => {
            let request = ExplainRequest {
                picture: single(pictures)?,
                method: args.method,
                class: args.class,
                layer: args.layer.clone(),
                unit: args.unit,
                count: args.count.unwrap_or(1),
                patch: args.patch,
                stride: args.stride,
            };
            let explanation = explainer.explain(model, request).await?;
            let answer = to_json(&explanation);
            (explanation.png, answer)
        }
    })
}

fn read(path: &Path) -> Result<Bytes> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(bytes.into())
}

fn single(pictures: Vec<Bytes>) -> Result<Bytes> {
    let count = pictures.len();
    let Ok([picture]) = <[Bytes; 1]>::try_from(pictures) else {
        bail!("one picture must be named, not {count}");
    };
    Ok(picture)
}

fn to_json(explanation: &Explanation) -> Value {
    let class = explanation.class.as_ref();
    let units = explanation.units.iter();
    let units =
        units.map(|it| json!({"unit": it.unit, "row": it.row, "column": it.column, "activation": it.activation}));
    let heatmap = &explanation.heatmap;
    json!({
        "method": explanation.method.as_str(),
        "class": class.map(|it| json!({"index": it.index, "label": it.label.as_deref(), "score": it.score})),
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
