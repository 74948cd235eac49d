//! Decoded rows to tensors: what one recipe does with each row of a picture, and one decoding for several recipes.

use half::f16;

use super::decode::{Eighths, Picture, PictureLimits, Row};
use super::geometry::Geometry;
use super::normalize::{Canvas, RowMut, Table};
use super::plan::Plan;
use super::recipe::Color;
use super::resize::Stream;
use super::{Frame, Preprocessor};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What takes the rows of a picture, whatever its element type is.
pub(super) trait Render {
    /// The share of its size at which the picture is to be decoded.
    fn share(&self) -> Eighths;

    /// Takes the next row.
    fn push(&mut self, row: Row<'_>);

    /// Where the input lies in the picture.
    fn frame(&self) -> Frame;
}

/// A picture on its way through one recipe.
pub(super) struct Rendering<'a, T> {
    geometry: Geometry,
    canvases: Vec<Canvas<'a, T>>,
    resampler: Resampler,
}

enum Resampler {
    /// With room for the luma of a row.
    Gray(Stream<1>, Vec<[u8; 1]>),
    Color(Stream<4>),
}

impl<'a, T: Copy> Rendering<'a, T> {
    /// `elements` has room for every crop.
    ///
    /// # Errors
    /// `Internal` when it has not, and as [`Geometry::new`].
    pub(super) fn new(plan: &Plan, table: &'a Table<T>, picture: &Picture<'_>, elements: &'a mut [T]) -> Result<Self> {
        let &Plan { height, width, layout, color, .. } = plan;
        let row_length = height * width * plan.channels();
        let length = plan.crops.count() * row_length;
        if elements.len() != length {
            let message = format!("{length} elements were to be filled, not {}", elements.len());
            return Err(Error::internal(message));
        }
        let canvas = |elements| Canvas { table, elements, height, width, layout, color };
        let mut canvases: Vec<_> = elements.chunks_exact_mut(row_length).map(canvas).collect();
        let geometry = Geometry::new(plan, picture)?;
        if geometry.is_padded() {
            canvases.iter_mut().for_each(Canvas::fill_black);
        }
        let (along_rows, across_rows) = geometry.taps(plan);
        let rows_first = geometry.rows_first();
        let resampler = if picture.is_gray() || color == Color::Gray {
            Resampler::Gray(Stream::new(along_rows, across_rows, rows_first), Vec::new())
        } else {
            Resampler::Color(Stream::new(along_rows, across_rows, rows_first))
        };
        Ok(Self { geometry, canvases, resampler })
    }
}

impl<T: Copy> Render for Rendering<'_, T> {
    fn share(&self) -> Eighths {
        self.geometry.share()
    }

    fn push(&mut self, row: Row<'_>) {
        let Self { geometry, canvases, resampler } = self;
        match (resampler, row) {
            (Resampler::Gray(stream, _), Row::Gray(pixels)) => {
                stream.push(pixels, |index, line| put(canvases, geometry, index, line));
            }
            (Resampler::Gray(stream, lumas), Row::Color(pixels)) => {
                lumas.clear();
                lumas.extend(pixels.iter().map(|&pixel| [luma(pixel)]));
                stream.push(lumas, |index, line| put(canvases, geometry, index, line));
            }
            (Resampler::Color(stream), Row::Color(pixels)) => {
                stream.push(pixels, |index, line| put(canvases, geometry, index, line));
            }
            // A picture says before that its rows are gray.
            (Resampler::Color(_), Row::Gray(_)) => {}
        }
    }

    fn frame(&self) -> Frame {
        self.geometry.frame()
    }
}

/// Puts line `index` of the resized file into the input of every crop that shows some of it.
fn put<T: Copy, const C: usize>(canvases: &mut [Canvas<'_, T>], geometry: &Geometry, index: usize, line: &[[u8; C]]) {
    for (crop, canvas) in canvases.iter_mut().enumerate() {
        if let Some((pixels, place, direction)) = geometry.cut(crop, index) {
            canvas.put(&line[pixels], place, direction);
        }
    }
}

/// ITU-R 601 luma in 16 fractional bits, Pillow's `convert("L")`.
fn luma([red, green, blue, _]: [u8; 4]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// What a picture becomes, in the model's element type.
pub(super) enum Elements {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U8(Vec<u8>),
}

impl Elements {
    pub(super) fn row(&mut self) -> RowMut<'_> {
        match self {
            Self::F32(elements) => RowMut::F32(elements),
            Self::F16(elements) => RowMut::F16(elements),
            Self::U8(elements) => RowMut::U8(elements),
        }
    }

    pub(super) fn into_tensor(self, shape: Vec<usize>) -> Result<Tensor> {
        match self {
            Self::F32(elements) => Tensor::from_vec(shape, elements),
            Self::F16(elements) => Tensor::from_vec(shape, elements),
            Self::U8(elements) => Tensor::from_vec(shape, elements),
        }
    }
}

/// Turns one encoded picture into what each of `preprocessors` makes of it, and says where that lies in the picture.
///
/// The picture is decoded once for all that take it at the same size, as all exact recipes do. Blocks as [`Preprocessor::run`] does.
///
/// # Errors
/// As [`Preprocessor::run`].
pub fn tensors(
    encoded: &[u8],
    limits: &PictureLimits,
    preprocessors: &[&Preprocessor],
) -> Result<Vec<(Tensor, Frame)>> {
    let picture = Picture::open(encoded, limits)?;
    let mut elements: Vec<_> = preprocessors.iter().map(|preprocessor| preprocessor.elements()).collect();
    let mut renderings = Vec::with_capacity(preprocessors.len());
    for (preprocessor, elements) in preprocessors.iter().zip(&mut elements) {
        renderings.push(preprocessor.rendering(&picture, elements.row())?);
    }
    let shares = distinct(renderings.iter().map(|rendering| rendering.share()));
    let mut opened = Some(picture);
    for share in shares {
        let picture = opened.take().map_or_else(|| Picture::open(encoded, limits), Ok)?;
        let mut takers: Vec<_> = renderings.iter_mut().filter(|rendering| rendering.share() == share).collect();
        picture.read(share, |row| takers.iter_mut().for_each(|taker| taker.push(row)))?;
    }
    let frames: Vec<_> = renderings.iter().map(|rendering| rendering.frame()).collect();
    drop(renderings);
    let rows = preprocessors.iter().zip(elements).zip(frames);
    rows.map(|((preprocessor, elements), frame)| Ok((preprocessor.collect(elements)?, frame))).collect()
}

/// The sizes at which a picture must be decoded, each once.
fn distinct(shares: impl Iterator<Item = Eighths>) -> Vec<Eighths> {
    let mut distinct = Vec::new();
    for share in shares {
        if !distinct.contains(&share) {
            distinct.push(share);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{Decode, Extent, Recipe};
    use crate::tensor::DataType;

    fn shares(recipes: &[Recipe]) -> Vec<Eighths> {
        let encoded = include_bytes!("../../tests/fixtures/preprocess/large.jpg");
        let picture = Picture::open(encoded, &PictureLimits::default()).unwrap();
        let share = |recipe: &Recipe| {
            let plan = Plan::new(recipe, &[3, 16, 16], DataType::Uint8).unwrap();
            Geometry::new(&plan, &picture).unwrap().share()
        };
        distinct(recipes.iter().map(share))
    }

    #[test]
    fn exact_recipes_share_one_decoding() {
        let small = Recipe { resize: Extent::Size([16, 16]), ..Recipe::default() };
        let large = Recipe { resize: Extent::Size([300, 300]), ..Recipe::default() };
        assert_eq!(shares(&[small.clone(), large.clone()]), [Eighths::ALL]);
        let fast = Recipe { decode: Decode::Fast, ..small };
        assert_eq!(shares(&[large, fast.clone(), fast]).len(), 2);
    }
}
