//! One answer for a picture out of those for its crops.
//!
//! Class scores are averaged as probabilities (Krizhevsky et al. 2012, section 4.1) and go back into the form that the output
//! has: an output of logits gets the logarithms of the averaged probabilities, whose softmax is these probabilities again. Any
//! other output is averaged number by number.

use super::outputs::{concatenate, from_f32, to_f32};
use crate::error::Result;
use crate::postprocess;
use crate::repository::Model;
use crate::scheduler::Answer;
use crate::tensor::Tensor;

/// The answer for one picture, one row of each output, out of `answers`, which hold the rows of its crops.
///
/// # Errors
/// `Internal` when a crop's class scores are no finite numbers.
pub(super) fn average(model: &Model, mut answers: Vec<Answer>) -> Result<Answer> {
    if model.preprocessor().crops() == 1
        && let Some(answer) = answers.pop()
    {
        return Ok(answer);
    }
    let outputs = (0..model.outputs().len()).map(|index| {
        let parts: Vec<&Tensor> = answers.iter().map(|answer| &answer.outputs[index]).collect();
        average_output(model, index, &concatenate(&parts)?)
    });
    Ok(Answer {
        outputs: outputs.collect::<Result<_>>()?,
        queue: answers.iter().map(|answer| answer.queue).max().unwrap_or_default(),
        compute: answers.iter().map(|answer| answer.compute).max().unwrap_or_default(),
        batch_size: answers.iter().map(|answer| answer.batch_size).max().unwrap_or_default(),
    })
}

fn average_output(model: &Model, index: usize, crops: &Tensor) -> Result<Tensor> {
    let values = to_f32(crops)?;
    let length = values.len() / crops.shape()[0].max(1);
    let rows = values.chunks_exact(length.max(1));
    let averaged = match model.class_scores(index) {
        Some(scores) => postprocess::average(rows, scores)?,
        None => postprocess::mean(rows.map(|row| row.iter().map(|&value| f64::from(value)).collect())),
    };
    let mut shape = crops.shape().to_vec();
    shape[0] = 1;
    from_f32(crops.data_type(), shape, &averaged)
}
