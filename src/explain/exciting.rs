//! The pictures of a set that excite a unit most, each beside what of it does: figure 2 of Zeiler and Fergus 2013.

use std::ops::Range;

use bytes::Bytes;
use image::{RgbImage, imageops};

use super::prepared::Prepared;
use super::projection::{Peak, graphs, peak_of, peaks, project, shown};
use super::subject::{Subject, lock};
use super::{Exciting, ExcitingPicture, ExcitingRequest, picture};
use crate::error::{Error, Result};

/// The rows and columns that a cutting is shown with.
const CELL: u32 = 128;

/// A picture that is among the most exciting ones so far.
struct Found {
    index: usize,
    /// What it is called in an error.
    name: String,
    peak: Peak,
    prepared: Prepared,
    /// The network's input.
    pixels: RgbImage,
}

/// The `request.count` of `pictures` in which the unit is strongest, and above zero: others don't excite it. Each comes with what it is
/// called in an error.
///
/// # Errors
/// `InvalidArgument` when there is no picture or no such unit; a picture's own, which says what it is called. Where broken ones are left
/// out, only that of the first, and where there is no other.
pub(super) fn exciting(
    subject: &Subject,
    request: &ExcitingRequest,
    encoded: impl Iterator<Item = (String, Result<Bytes>)>,
) -> Result<Exciting> {
    if request.count == 0 {
        return Err(Error::invalid("count must be at least 1"));
    }
    let graphs = graphs(subject, request.rule, Some(&request.layer))?;
    let mut graphs = lock(&graphs);
    // The strongest first, of equals the earlier.
    let mut found: Vec<Found> = Vec::new();
    let (mut count, mut broken) = (0, Vec::new());
    for (index, (name, encoded)) in encoded.enumerate() {
        subject.check_canceled()?;
        let in_picture = |error| in_picture(&name, error);
        let (prepared, pixels) = match encoded.and_then(|encoded| subject.prepare_with_pixels(&encoded)) {
            Ok(picture) => picture,
            Err(error) if request.leaves_out_broken => {
                broken.push(in_picture(error));
                continue;
            }
            Err(error) => return Err(in_picture(error)),
        };
        count += 1;
        let values = graphs.forward(&prepared.row)?;
        let peak = peak_of(&peaks(&values, &graphs)?, request.unit, &graphs.layer)?;
        peak.check_finite(&graphs.layer).map_err(in_picture)?;
        if peak.activation > 0.0 {
            let at = found.partition_point(|other| other.peak.strength >= peak.strength);
            found.insert(at, Found { index, name, peak, prepared, pixels });
            found.truncate(request.count);
        }
    }
    if count == 0 {
        return Err(broken.into_iter().next().unwrap_or_else(|| Error::invalid("at least one picture must be given")));
    }
    let mut pictures = Vec::new();
    let mut cells = Vec::new();
    for Found { index, name, peak, prepared, pixels } in found {
        subject.check_canceled()?;
        // Run once more: the values of several pictures would take too much memory.
        let values = graphs.forward(&prepared.row)?;
        let unit =
            project(subject, &mut graphs, &values, peak, request.rule).map_err(|error| in_picture(&name, error))?;
        let seen = seen(subject, &unit.projection);
        let cut = |whole: &RgbImage| {
            let [x, y] = [&seen.0, &seen.1].map(|range| (range.start, range.end - range.start));
            let part = imageops::crop_imm(whole, x.0, y.0, x.1, y.1).to_image();
            imageops::resize(&part, CELL, CELL, imageops::FilterType::CatmullRom)
        };
        cells.push(cut(&pixels));
        cells.push(cut(&shown(subject, &unit.projection, picture::contrasted)));
        pictures.push(ExcitingPicture { index, unit, frame: prepared.frame });
    }
    // Pairs stay together: the number of columns is even.
    let columns = 2 * picture::square(pictures.len().div_ceil(2));
    let png = if cells.is_empty() { None } else { Some(picture::png(&picture::grid(&cells, columns, 1))?) };
    Ok(Exciting { layer: graphs.layer.clone(), pictures, left_out: broken.iter().map(Error::chain).collect(), png })
}

/// Says in an error which picture it is about.
fn in_picture(name: &str, error: Error) -> Error {
    error.map_message(|message| format!("{name}: {message}"))
}

/// The columns and rows of the input that the unit sees: the smallest square, or what is in the input of it, around all that came back.
fn seen(subject: &Subject, projection: &[f32]) -> (Range<u32>, Range<u32>) {
    let (height, width) = subject.graph.input_size();
    square_around(projection, width, height)
}

fn square_around(projection: &[f32], width: usize, height: usize) -> (Range<u32>, Range<u32>) {
    let places = projection.iter().enumerate().filter(|(_, value)| **value != 0.0);
    let (mut x, mut y) = (width..0, height..0);
    for (place, _) in places {
        let (row, column) = (place % (width * height) / width, place % width);
        x = x.start.min(column)..x.end.max(column + 1);
        y = y.start.min(row)..y.end.max(row + 1);
    }
    if x.is_empty() || y.is_empty() {
        return (0..width as u32, 0..height as u32);
    }
    let side = x.len().max(y.len());
    let widen = |range: Range<usize>, size: usize| {
        let side = side.min(size);
        let start = (range.start + range.end).saturating_sub(side) / 2;
        let start = start.min(size - side);
        start as u32..(start + side) as u32
    };
    (widen(x, width), widen(y, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_a_square_around_all_that_came_back() {
        let mut projection = vec![0.0; 3 * 8 * 10];
        assert_eq!(square_around(&projection, 10, 8), (0..10, 0..8));
        projection[2 * 80 + 3 * 10 + 4] = 1.0;
        assert_eq!(square_around(&projection, 10, 8), (4..5, 3..4));
        projection[3 * 10 + 8] = -1.0;
        assert_eq!(square_around(&projection, 10, 8), (4..9, 1..6));
        projection[0] = 1.0;
        assert_eq!(square_around(&projection, 10, 8), (0..9, 0..8));
    }
}
