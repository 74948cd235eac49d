//! A picture whose class is known: the last check of a model before it serves.

use std::path::Path;

use super::beside;
use super::config::{GoldenClass, GoldenConfig, ModelConfig};
use super::{GraphModel, Model};
use crate::error::{Error, Result};
use crate::postprocess;
use crate::preprocess::PictureLimits;
use crate::scheduler::Submission;
use crate::telemetry::Trace;
use crate::tensor::Tensor;

/// Classifies the golden picture in `folder` as any picture is: decoded and prepared by the model's recipe, and run by one of
/// its instances.
///
/// # Errors
/// `InvalidArgument` naming the key when the picture cannot be read or another class comes out, and what the run fails with.
pub(super) fn check(
    model: &Model,
    graph: &GraphModel,
    folder: &Path,
    config: &ModelConfig,
    golden: &GoldenConfig,
) -> Result<()> {
    let wrong = |reason: String| Error::invalid(format!("{}: golden.{reason}", config.place(folder)));
    let path = folder.join(&golden.picture);
    let picture = beside::read(&path).map_err(|error| wrong(format!("picture: {}: {error}", path.display())))?;
    let input = graph
        .preprocessor()
        .tensor(&picture, &PictureLimits::default())
        .map_err(|error| wrong(format!("picture: {}: {}", path.display(), error.message())))?;

    let probabilities = run(model, graph, &input)?;
    let (best, score) = probabilities
        .iter()
        .copied()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .ok_or_else(|| wrong("class: the model's answer has no classes".to_owned()))?;
    let expected = match &golden.class {
        GoldenClass::Index(index) => *index,
        GoldenClass::Label(label) => {
            let index = model.labels().iter().position(|other| **other == **label);
            index.ok_or_else(|| wrong(format!("class: no label is `{label}`")))?
        }
    };
    if best != expected {
        return Err(wrong(format!(
            "class: the picture is of class {expected}, but the model says {best} (with {score:.4}, and {:.4} for {expected})",
            probabilities.get(expected).copied().unwrap_or_default()
        )));
    }
    if score < golden.min_score {
        return Err(wrong(format!("min_score: class {best} came out with {score:.4}, under {}", golden.min_score)));
    }
    Ok(())
}

/// The probabilities of the classes, averaged over the picture's crops.
fn run(model: &Model, graph: &GraphModel, input: &Tensor) -> Result<Vec<f32>> {
    let (crops, largest) = (input.shape()[0], graph.max_batch_size());
    let output = model.class_output();
    let mut probabilities = Vec::with_capacity(crops);
    for start in (0..crops).step_by(largest) {
        let rows = input.rows(start, largest.min(crops - start));
        let priority = model.config().batching.default_priority;
        let answer =
            graph.scheduler().submit(Submission { rows, priority, deadline: None, trace: Trace::default() })?.wait()?;
        let rows = &answer.outputs[output.index];
        for row in 0..rows.shape()[0] {
            let values = rows.rows(row, 1);
            probabilities.push((1.0, postprocess::probabilities(&postprocess::to_f32(&values)?, output.scores)?));
        }
    }
    Ok(postprocess::mean(probabilities.into_iter()))
}
