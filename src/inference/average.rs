//! One answer for a picture out of several: those for its crops, and those of an ensemble's members.
//!
//! The class scores of crops are averaged as probabilities (Krizhevsky et al. 2012, section 4.1) and go back into the form that the
//! output has: an output of logits gets the logarithms of the averaged probabilities, whose softmax is these probabilities again.
//! Any other output is averaged number by number.

use std::time::Duration;

use super::outputs::concatenate;
use super::request::Part;
use crate::error::{Error, Result};
use crate::postprocess::{self, Scores, from_f32, to_f32};
use crate::repository::{GraphModel, Model};
use crate::scheduler::Answer;
use crate::tensor::Tensor;

/// A graph's answer for one picture, one row of each output, out of `answers`, which hold the rows of its crops.
///
/// # Errors
/// `Internal` when a crop's class scores are no finite numbers.
pub(super) fn over_crops(graph: &GraphModel, mut answers: Vec<Answer>) -> Result<Answer> {
    if graph.preprocessor().crops() == 1
        && let Some(answer) = answers.pop()
    {
        return Ok(answer);
    }
    let outputs = (0..graph.interface().outputs.len()).map(|index| {
        let parts: Vec<&Tensor> = answers.iter().map(|answer| &answer.outputs[index]).collect();
        output_over_crops(graph.interface().class_scores(index), &concatenate(&parts)?)
    });
    let outputs = outputs.collect::<Result<_>>()?;
    Ok(joined(outputs, &answers))
}

fn output_over_crops(scores: Option<Scores>, crops: &Tensor) -> Result<Tensor> {
    let values = to_f32(crops)?;
    let length = values.len() / crops.shape()[0].max(1);
    let rows = values.chunks_exact(length.max(1));
    let averaged = match scores {
        Some(scores) => postprocess::average(rows, scores)?,
        None => postprocess::mean(rows.map(|row| (1.0, row.iter().map(|&value| f64::from(value)).collect()))),
    };
    let mut shape = crops.shape().to_vec();
    shape[0] = 1;
    from_f32(crops.data_type(), shape, &averaged)
}

/// A model's answer for one picture: its graph's, or the weighted average of the class scores of an ensemble's members.
///
/// # Errors
/// `Internal` when a member's class scores are no finite numbers, or not as many as another's.
pub(super) fn over_members(model: &Model, mut answers: Vec<(&Part, Answer)>) -> Result<Answer> {
    if !model.is_ensemble()
        && let Some((_, answer)) = answers.pop()
    {
        return Ok(answer);
    }
    let mut rows = Vec::with_capacity(answers.len());
    for (part, answer) in &answers {
        let output = part.graph().interface().class_output;
        let row = to_f32(&answer.outputs[output.index])?;
        let row = match model.class_output().scores {
            Scores::Probabilities => postprocess::probabilities(&row, output.scores)?,
            Scores::Logits => postprocess::logits(&row, output.scores)?,
        };
        if model.class_count().is_some_and(|count| count != row.len()) {
            return Err(Error::internal("a member's answer has not the classes that its graph says"));
        }
        rows.push((part.weight(), row));
    }
    let averaged = postprocess::mean(rows.into_iter());
    let outputs = vec![Tensor::from_vec(vec![1, averaged.len()], averaged)?];
    let answers: Vec<Answer> = answers.into_iter().map(|(_, answer)| answer).collect();
    Ok(joined(outputs, &answers))
}

/// An answer with these outputs that took as long as the longest of `answers`.
fn joined(outputs: Vec<Tensor>, answers: &[Answer]) -> Answer {
    let longest = |time: fn(&Answer) -> Duration| answers.iter().map(time).max().unwrap_or_default();
    Answer {
        outputs,
        queue: longest(|answer| answer.queue),
        compute: longest(|answer| answer.compute),
        batch_size: answers.iter().map(|answer| answer.batch_size).max().unwrap_or_default(),
    }
}
