//! `convoy classify`: pictures classified in this process, with no server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::local::{self, Local, LocalArgs};
use crate::inference::{ClassifyRequest, Inference, Limits, Prediction, RequestContext};
use crate::postprocess::Class;
use crate::repository::Model;

/// Pictures in flight for each decoding thread: enough that instances find full batches, few enough to stay in the queue.
const IN_FLIGHT_PER_THREAD: usize = 4;

/// Classify pictures in this process, with no server
#[derive(Debug, Args)]
pub(super) struct ClassifyArgs {
    /// The pictures
    #[arg(required = true, value_name = "PICTURE")]
    pictures: Vec<PathBuf>,

    /// How many classes to name for each picture
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,

    /// Name the classes of the model's side branches, too
    #[arg(long)]
    aux: bool,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    local: LocalArgs,
}

/// Classifies the pictures and prints their classes; returns whether every one could be.
///
/// # Errors
/// When ONNX Runtime or the model cannot be loaded, or the output cannot be written. A picture that cannot be classified is
/// reported and does not keep the others from being.
pub(super) async fn run(args: &ClassifyArgs) -> Result<bool> {
    let limits = Limits::default();
    let Local { inference, model, .. } = tokio::task::block_in_place(|| local::load(&args.local, &limits))?;
    let (top_k, aux) = (args.top_k as usize, args.aux);
    let mut answers = futures_util::stream::iter(&args.pictures)
        .map(|path| {
            let (inference, model) = (&inference, &model);
            async move { (path, classify(inference, model, path, top_k, aux).await) }
        })
        .buffered(limits.decode_threads * IN_FLIGHT_PER_THREAD);
    let mut complete = true;
    let mut out = std::io::stdout().lock();
    while let Some((path, answer)) = answers.next().await {
        match answer {
            Ok(prediction) if args.json => writeln!(out, "{}", to_json(&model, path, &prediction))?,
            Ok(prediction) => print(&mut out, path, &prediction)?,
            Err(error) => {
                complete = false;
                writeln!(std::io::stderr(), "error: {}: {error:#}", path.display())?;
            }
        }
    }
    Ok(complete)
}

async fn classify(
    inference: &Inference,
    model: &Arc<Model>,
    path: &Path,
    top_k: usize,
    aux: bool,
) -> Result<Prediction> {
    let picture = tokio::task::block_in_place(|| std::fs::read(path)).context("the file cannot be read")?;
    let admission = inference.admit(Arc::clone(model), RequestContext::new("cli"))?;
    let request = ClassifyRequest { pictures: vec![Bytes::from(picture)], top_k, aux };
    let classification = inference.classify(admission, request).await?;
    Ok(classification.predictions.into_iter().next().unwrap_or_default())
}

fn print(out: &mut impl Write, path: &Path, prediction: &Prediction) -> std::io::Result<()> {
    writeln!(out, "{}", path.display())?;
    print_classes(out, &prediction.classes)?;
    for (output, classes) in &prediction.branches {
        writeln!(out, " {output}")?;
        print_classes(out, classes)?;
    }
    Ok(())
}

fn print_classes(out: &mut impl Write, classes: &[Class]) -> std::io::Result<()> {
    for class in classes {
        let label = class.label.as_deref().unwrap_or("");
        writeln!(out, "  {:.4}  {:>4}  {label}", class.score, class.index)?;
    }
    Ok(())
}

fn to_json(model: &Model, path: &Path, prediction: &Prediction) -> Value {
    let mut object = json!({
        "picture": path.display().to_string(),
        "model_name": model.name(),
        "model_version": model.version().to_string(),
        "classes": classes_json(&prediction.classes),
    });
    if !prediction.branches.is_empty() {
        let branches = prediction.branches.iter().map(|(output, classes)| (output.clone(), classes_json(classes)));
        object["branches"] = Value::Object(branches.collect());
    }
    object
}

fn classes_json(classes: &[Class]) -> Value {
    classes.iter().map(class_json).collect()
}

pub(super) fn class_json(class: &Class) -> Value {
    json!({ "index": class.index, "label": class.label.as_deref(), "score": class.score })
}
