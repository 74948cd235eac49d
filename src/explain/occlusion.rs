//! Occlusion: a square covers one part of the network's input after the other, and what that does to a class's probability is a map of
//! what the class depends on. Works with any model, since it runs it as it is.

use super::class::ClassScores;
use super::subject::Subject;
use super::{ExplainRequest, Explanation, Heatmap, Method};
use crate::error::{Error, Result};
use crate::postprocess::{self, Scores};
use crate::preprocess::Layout;
use crate::tensor::{DataType, Tensor};

/// The most places that the square is put to.
const MAX_PLACES: usize = 1024;
/// A sixth of the input is covered at a time where the request does not say.
const PATCHES_PER_SIDE: usize = 6;

/// Where the square is put: in the middle of each cell of an even grid, so that at the edges a part of it lies outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    size: usize,
    count: usize,
    patch: usize,
}

impl Places {
    fn range(self, index: usize) -> std::ops::Range<usize> {
        let middle = (2 * index + 1) * self.size / (2 * self.count);
        middle.saturating_sub(self.patch / 2)..(middle + self.patch.div_ceil(2)).min(self.size)
    }
}

/// The map of how much the probability of `request.class` falls when a place is covered.
///
/// The runs go through the model's queue, one small batch at a time and behind all requests.
///
/// # Errors
/// `InvalidArgument` for a square that does not fit, or too many places; the run's own.
pub(super) fn occlusion(subject: &Subject, request: &ExplainRequest) -> Result<Explanation> {
    let (height, width) = subject.graph.input_size();
    let patch = request.patch.unwrap_or((height.min(width) / PATCHES_PER_SIDE).max(1));
    let stride = request.stride.unwrap_or(patch.div_ceil(2));
    if patch > height.min(width) {
        return Err(Error::invalid(format!(
            "a square of {patch} pixels does not fit the network's input, which is {height}×{width}"
        )));
    }
    let [rows, columns] = [height, width].map(|size| Places { size, count: size.div_ceil(stride), patch });
    let count = rows.count * columns.count;
    if count > MAX_PLACES {
        let message =
            format!("a square every {stride} has {count} places, the limit is {MAX_PLACES}: enlarge the stride");
        return Err(Error::invalid(message));
    }
    let (prepared, display) = subject.prepare_with_display(&request.picture)?;
    let averaged = subject.averaged_scores(&prepared)?;
    let scores = subject.graph.interface().class_output.scores;
    let whole = subject.class_scores(prepared.row.clone())?;
    let own = ClassScores { row: postprocess::to_f32(&whole)?.into_owned(), scores };
    let class = subject.class(averaged.as_ref().unwrap_or(&own), request.class)?;
    // Squares cover what is explained: of several crops the one, whose own probability falls.
    let uncovered = probability(&whole, scores, class.index)?;

    let mut data = Vec::with_capacity(count);
    let places: Vec<_> =
        (0..count).map(|place| (rows.range(place / columns.count), columns.range(place % columns.count))).collect();
    for batch in places.chunks(subject.smallest_batch()) {
        subject.check_canceled()?;
        let mut bytes = Vec::with_capacity(batch.len() * prepared.row.bytes().len());
        for (rows, columns) in batch {
            let start = bytes.len();
            bytes.extend_from_slice(prepared.row.bytes());
            cover(subject, &mut bytes[start..], rows.clone(), columns.clone());
        }
        let mut shape = prepared.row.shape().to_vec();
        shape[0] = batch.len();
        let answers = subject.class_scores(Tensor::new(prepared.row.data_type(), shape, bytes.into())?)?;
        for row in 0..batch.len() {
            let covered = probability(&answers.rows(row, 1), scores, class.index)?;
            data.push((uncovered - covered) as f32);
        }
    }
    let heatmap = Heatmap { height: rows.count, width: columns.count, data };
    let png = display.overlaid(&heatmap)?;
    Ok(Explanation {
        method: Method::Occlusion,
        class: Some(class),
        layer: None,
        units: Vec::new(),
        heatmap,
        frame: prepared.frame,
        png,
    })
}

fn probability(row: &Tensor, scores: Scores, class: usize) -> Result<f64> {
    let probabilities = postprocess::probabilities(&postprocess::to_f32(row)?, scores)?;
    probabilities.get(class).copied().ok_or_else(|| Error::internal("the model's answer lacks the class"))
}

/// Covers a part of a row: with zeros, which most recipes make of the mean colour, or with gray where the network takes pixels.
fn cover(subject: &Subject, row: &mut [u8], rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) {
    let preprocessor = subject.graph.preprocessor();
    let (height, width) = preprocessor.input_size();
    let data_type = subject.graph.interface().input.data_type;
    let fill = if data_type == DataType::Uint8 { 128 } else { 0 };
    let pixel = row.len() / (height * width);
    let (planes, size) = match preprocessor.layout() {
        Layout::Nhwc => (1, pixel),
        Layout::Nchw => (preprocessor.row_shape()[0], data_type.size().unwrap_or(1)),
    };
    for plane in 0..planes {
        for y in rows.clone() {
            let start = (plane * height + y) * width;
            row[(start + columns.start) * size..(start + columns.end) * size].fill(fill);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_squares_lie_around_the_middles_of_even_cells() {
        let ranges = |places: Places| (0..places.count).map(|index| places.range(index)).collect::<Vec<_>>();
        assert_eq!(ranges(Places { size: 8, count: 4, patch: 2 }), [0..2, 2..4, 4..6, 6..8]);
        assert_eq!(ranges(Places { size: 8, count: 4, patch: 4 }), [0..3, 1..5, 3..7, 5..8]);
        assert_eq!(ranges(Places { size: 9, count: 3, patch: 3 }), [0..3, 3..6, 6..9]);
        assert_eq!(Places { size: 5, count: 1, patch: 5 }.range(0), 0..5);
    }
}
