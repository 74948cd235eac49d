//! Numbers as pictures: grids of maps, projections, and heat laid over the picture that it is about.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage, imageops};

use super::Heatmap;
use crate::error::{Error, Result};
use crate::preprocess::Frame;

/// Pixels between the cells of a grid.
const GAP: u32 = 2;
/// The pixels that enlarging may make of a grid.
const MAX_ENLARGED_PIXELS: u64 = 16 << 20;
const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);
/// How much of the picture the hottest place covers.
const COVER: f32 = 0.65;
/// From cold to hot.
const HEAT: [[f32; 3]; 5] =
    [[0.0, 0.0, 143.0], [0.0, 128.0, 255.0], [128.0, 255.0, 128.0], [255.0, 191.0, 0.0], [200.0, 0.0, 0.0]];

/// The picture as PNG.
pub(super) fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let written = picture.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|error| Error::internal("the picture could not be written").with_source(error))?;
    Ok(bytes.into_inner())
}

/// Puts equally large cells into a grid of `columns`, each enlarged `scale` times, or as often as there is room for, with a gap
/// around each.
pub(super) fn grid(cells: &[RgbImage], columns: u32, scale: u32) -> RgbImage {
    let pixels = cells.iter().map(|cell| u64::from(cell.width()) * u64::from(cell.height())).sum::<u64>().max(1);
    let scale = scale.min((MAX_ENLARGED_PIXELS / pixels).isqrt() as u32).max(1);
    let (width, height) = cells.first().map_or((0, 0), |cell| (cell.width() * scale, cell.height() * scale));
    let columns = columns.clamp(1, (cells.len() as u32).max(1));
    let rows = (cells.len() as u32).div_ceil(columns);
    let (across, down) = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP);
    let mut picture = RgbImage::from_pixel(across, down, BACKGROUND);
    for (index, cell) in cells.iter().enumerate() {
        let (column, row) = (index as u32 % columns, index as u32 / columns);
        let cell = imageops::resize(cell, width, height, imageops::FilterType::Nearest);
        imageops::replace(
            &mut picture,
            &cell,
            i64::from(GAP + column * (width + GAP)),
            i64::from(GAP + row * (height + GAP)),
        );
    }
    picture
}

/// The number of columns that makes a grid of `count` cells as wide as high.
pub(super) fn square(count: usize) -> u32 {
    (count as f64).sqrt().ceil() as u32
}

/// Values of `[height, width]` as gray, black at the lowest and white at the highest; all black where they are the same.
pub(super) fn gray(values: &[f32], width: usize, height: usize) -> RgbImage {
    let (low, high) = range(values);
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let level = level(values[y as usize * width + x as usize], low, high);
        Rgb([level; 3])
    })
}

/// Values of `[3, height, width]`, in the order red, green, blue, as colours: the lowest value of all becomes 0 and the highest
/// 255.
pub(super) fn colors(values: &[f32], width: usize, height: usize) -> RgbImage {
    let (low, high) = range(values);
    planes(values, width, height, |value| level(value, low, high))
}

/// Values of `[3, height, width]` as colours: 0 becomes middle gray, and the value farthest from it 0 or 255.
pub(super) fn signed(values: &[f32], width: usize, height: usize) -> RgbImage {
    let farthest = values.iter().fold(0f32, |farthest, value| farthest.max(value.abs()));
    planes(values, width, height, |value| level(value, -farthest, farthest))
}

/// As [`signed`], but with the strongest hundredth of the values that are not 0 at 0 and 255: beside a single one all else can be
/// too faint to be seen.
pub(super) fn contrasted(values: &[f32], width: usize, height: usize) -> RgbImage {
    let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs()).filter(|&value| value > 0.0).collect();
    magnitudes.sort_unstable_by(f32::total_cmp);
    let strong = magnitudes.get(magnitudes.len() * 99 / 100).copied().unwrap_or_default();
    planes(values, width, height, |value| level(value.clamp(-strong, strong), -strong, strong))
}

fn planes(values: &[f32], width: usize, height: usize, level: impl Fn(f32) -> u8) -> RgbImage {
    let plane = width * height;
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let at = y as usize * width + x as usize;
        Rgb([0, 1, 2].map(|channel| level(values[channel * plane + at])))
    })
}

/// The lowest and the highest of `values`.
pub(super) fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

/// Where `value` lies between `low` and `high`, from 0 to 255.
fn level(value: f32, low: f32, high: f32) -> u8 {
    if high > low {
        ((f64::from(value) - f64::from(low)) / (f64::from(high) - f64::from(low)) * 255.0).round() as u8
    } else if low < 0.0 || high > 0.0 {
        0
    } else {
        // All are zero.
        128
    }
}

/// Lays `heatmap` over `picture`: what is not above zero leaves it as it is. The heatmap lies in the network's input, which is
/// where `frame` says.
pub(super) fn overlay(picture: &RgbImage, heatmap: &Heatmap, frame: &Frame) -> RgbImage {
    let (_, high) = range(&heatmap.data);
    let mut overlaid = picture.clone();
    if high <= 0.0 {
        return overlaid;
    }
    // From the middles of pixels to places between the heatmap's middles, for each row and column once.
    let places = |pixels: u32, picture: u32, start: f32, length: f32, size: usize| -> Vec<Option<Place>> {
        let scale = pixels as f32 / picture as f32;
        let share = |pixel: u32| ((pixel as f32 + 0.5) / scale - start) / length;
        (0..pixels).map(|pixel| Place::new(share(pixel), size)).collect()
    };
    let columns = places(picture.width(), frame.picture_width, frame.x, frame.width, heatmap.width);
    let rows = places(picture.height(), frame.picture_height, frame.y, frame.height, heatmap.height);
    for (pixels, row) in overlaid.rows_mut().zip(rows) {
        let Some(row) = row else { continue };
        for (pixel, column) in pixels.zip(&columns) {
            let Some(column) = column else { continue };
            let heat = (heatmap.at(row, *column) / high).clamp(0.0, 1.0);
            for (channel, hot) in pixel.0.iter_mut().zip(ramp(heat)) {
                // Rounds: neither is negative.
                *channel = (f32::from(*channel) * (1.0 - COVER * heat) + hot * COVER * heat + 0.5) as u8;
            }
        }
    }
    overlaid
}

fn ramp(heat: f32) -> [f32; 3] {
    let place = heat * (HEAT.len() - 1) as f32;
    let index = (place as usize).min(HEAT.len() - 2);
    let share = place - index as f32;
    std::array::from_fn(|channel| HEAT[index][channel] * (1.0 - share) + HEAT[index + 1][channel] * share)
}

/// A place between the middles of two cells of a row or column.
#[derive(Debug, Clone, Copy)]
struct Place {
    first: usize,
    second: usize,
    /// How far it is from the first to the second.
    share: f32,
}

impl Place {
    /// The place at a share of `size` cells; none outside.
    fn new(share: f32, size: usize) -> Option<Self> {
        if !(0.0..1.0).contains(&share) {
            return None;
        }
        let place = (share * size as f32 - 0.5).clamp(0.0, (size - 1) as f32);
        let first = place as usize;
        Some(Self { first, second: (first + 1).min(size - 1), share: place - first as f32 })
    }
}

impl Heatmap {
    /// The value at a place, interpolated.
    fn at(&self, row: Place, column: Place) -> f32 {
        let across = |row: usize| {
            let cells = &self.data[row * self.width..][..self.width];
            cells[column.first] * (1.0 - column.share) + cells[column.second] * column.share
        };
        across(row.first) * (1.0 - row.share) + across(row.second) * row.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_filled_row_by_row_with_gaps() {
        let cell = |level| RgbImage::from_pixel(2, 1, Rgb([level; 3]));
        let picture = grid(&[cell(1), cell(2), cell(3)], 2, 3);
        assert_eq!(picture.dimensions(), (2 + 6 + 2 + 6 + 2, 2 + 3 + 2 + 3 + 2));
        for (place, level) in [((2, 2), 1), ((7, 4), 1), ((10, 2), 2), ((2, 7), 3), ((8, 2), 255), ((10, 7), 255)] {
            assert_eq!(picture.get_pixel(place.0, place.1).0, [level; 3], "{place:?}");
        }
    }

    #[test]
    fn many_cells_are_not_enlarged_beyond_all_bounds() {
        let cells = vec![RgbImage::new(1, 1); 1 << 18];
        let picture = grid(&cells, square(cells.len()), 48);
        assert_eq!(picture.dimensions(), (512 * 10 + 2, 512 * 10 + 2));
    }

    #[test]
    fn heat_lies_where_the_frame_is() {
        let picture = RgbImage::from_pixel(40, 20, Rgb([100; 3]));
        // The input is the right half of the picture, and its lower right quarter is hot.
        let heatmap = Heatmap { height: 2, width: 2, data: vec![-1.0, 0.0, 0.0, 2.0] };
        let frame = Frame { picture_width: 80, picture_height: 40, x: 40.0, y: 0.0, width: 40.0, height: 40.0 };
        let overlaid = overlay(&picture, &heatmap, &frame);
        assert_eq!(overlaid.get_pixel(10, 15).0, [100; 3]);
        assert_eq!(overlaid.get_pixel(21, 1).0, [100; 3]);
        let hot = overlaid.get_pixel(39, 19).0;
        assert_eq!(hot, [165, 35, 35]);
    }

    #[test]
    fn values_become_levels_between_the_lowest_and_the_highest() {
        assert_eq!(gray(&[-1.0, 0.0, 1.0, 3.0], 2, 2).into_raw(), [[0; 3], [64; 3], [128; 3], [255; 3]].concat());
        assert_eq!(signed(&[-1.0, 0.0, 2.0], 1, 1).into_raw(), [64, 128, 255]);
        assert_eq!(signed(&[0.0; 3], 1, 1).into_raw(), [128; 3]);
        let mut values = vec![1.0; 300];
        (values[0], values[299]) = (9.0, 0.0);
        assert_eq!((signed(&values, 100, 1).as_raw()[3], contrasted(&values, 100, 1).as_raw()[3]), (142, 255));
        assert_eq!(contrasted(&values, 100, 1).into_raw()[299], 128);
        assert_eq!(contrasted(&[0.0; 3], 1, 1).into_raw(), [128; 3]);
        assert_eq!(gray(&[5.0; 2], 2, 1).into_raw(), [0; 6]);
    }
}
