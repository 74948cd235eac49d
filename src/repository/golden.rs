//! A picture whose class is known: the last check of a model before it serves.

use std::path::Path;

use super::config::{GoldenClass, GoldenConfig};
use super::layout::CONFIG_FILE;
use super::{GraphModel, Model};
use crate::error::{Error, Result};
use crate::postprocess;
use crate::preprocess::PictureLimits;
use crate::scheduler::Submission;
use crate::tensor::{DataType, Tensor};

/// Classifies the golden picture in `folder` as any picture is: decoded and prepared by the model's recipe, and run by one of
/// its instances.
///
/// # Errors
/// `InvalidArgument` naming the key when the picture cannot be read or another class comes out, and what the run fails with.
pub(super) fn check(model: &Model, graph: &GraphModel, folder: &Path, golden: &GoldenConfig) -> Result<()> {
    let config = folder.join(CONFIG_FILE);
    let wrong = |reason: String| Error::invalid(format!("{}: golden.{reason}", config.display()));
    let path = folder.join(&golden.picture);
    let picture = std::fs::read(&path).map_err(|error| wrong(format!("picture: {}: {error}", path.display())))?;
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

/// The probabilities of the classes, averaged over the picture's rows.
fn run(model: &Model, graph: &GraphModel, input: &Tensor) -> Result<Vec<f32>> {
    let rows = input.shape()[0];
    let mut sums: Vec<f32> = Vec::new();
    for start in (0..rows).step_by(graph.max_batch_size()) {
        let rows = input.rows(start, graph.max_batch_size().min(rows - start));
        let priority = model.config().batching.default_priority;
        let answer = graph.scheduler().submit(Submission { rows, priority, deadline: None })?.wait()?;
        let output = &answer.outputs[model.class_output().index];
        for row in 0..output.shape()[0] {
            let values = to_f32(&output.rows(row, 1))?;
            sums.resize(values.len(), 0.0);
            for (class, score) in postprocess::classify(&values, model.class_output().scores, values.len())? {
                sums[class] += score;
            }
        }
    }
    Ok(sums.into_iter().map(|sum| sum / rows as f32).collect())
}

fn to_f32(row: &Tensor) -> Result<Vec<f32>> {
    Ok(match row.data_type() {
        DataType::Fp16 => row.to_slice::<half::f16>()?.iter().map(|value| value.to_f32()).collect(),
        DataType::Fp64 => row.to_slice::<f64>()?.iter().map(|&value| value as f32).collect(),
        _ => row.to_slice::<f32>()?.into_owned(),
    })
}
