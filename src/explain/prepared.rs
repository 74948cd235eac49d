//! Pictures on their way into the network, and what its heatmaps are laid over.

use image::{RgbImage, imageops};

use super::subject::Subject;
use super::{Heatmap, picture};
use crate::error::{Error, Result};
use crate::preprocess::{self, Color, Extent, Frame, Interpolation, Layout, Preprocessor, Recipe};
use crate::tensor::{DataType, Tensor};

/// The longer side of the picture that a heatmap is laid over is at most this.
const DISPLAY_SIDE: u32 = 800;
/// The shorter side of the network's input is at least this many pixels of it.
const LEAST_SHOWN: f64 = 16.0;
/// Where the network's input is shown alone, its longer side is at least this.
const INPUT_SIDE: u32 = 256;

/// A picture as the network gets it.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What is explained, `[1, …]`: of several crops, the one in the middle.
    pub(super) row: Tensor,
    /// Where that lies in the picture.
    pub(super) frame: Frame,
    /// All crops, `[crops, …]`, where there are several and they are wanted.
    pub(super) crops: Option<Tensor>,
}

/// What a heatmap is laid over: the whole picture, upright, or where the network's input would be a speck or a line of it, the input.
#[derive(Debug)]
pub(super) struct Display {
    picture: RgbImage,
    /// Where the network's input lies in it.
    frame: Frame,
}

impl Display {
    /// It with `heatmap` over it, as PNG.
    pub(super) fn overlaid(&self, heatmap: &Heatmap) -> Result<Vec<u8>> {
        picture::png(&picture::overlay(&self.picture, heatmap, &self.frame))
    }
}

/// Whether all crops of a picture are wanted beside the one that is explained: they say what its class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crops {
    All,
    Middle,
}

impl Subject {
    /// Makes an encoded picture the network's input: of several crops, the one in the middle.
    pub(super) fn prepare(&self, encoded: &[u8]) -> Result<Prepared> {
        self.decode(encoded, Crops::Middle, |_| Ok(None)).map(|(prepared, _)| prepared)
    }

    /// As [`Subject::prepare`], with all crops.
    pub(super) fn prepare_with_crops(&self, encoded: &[u8]) -> Result<Prepared> {
        self.decode(encoded, Crops::All, |_| Ok(None)).map(|(prepared, _)| prepared)
    }

    /// As [`Subject::prepare`], with the network's input as pixels.
    pub(super) fn prepare_with_pixels(&self, encoded: &[u8]) -> Result<(Prepared, RgbImage)> {
        let (prepared, pixels) = self.decode(encoded, Crops::Middle, |_| self.input_pixels().map(Some))?;
        Ok((prepared, pixels.ok_or_else(unlike)?))
    }

    /// As [`Subject::prepare_with_crops`], with what a heatmap is laid over.
    pub(super) fn prepare_with_display(&self, encoded: &[u8]) -> Result<(Prepared, Display)> {
        let mut is_whole = true;
        let (prepared, picture) = self.decode(encoded, Crops::All, |own| {
            let Some((width, height)) = display_size(&own.frame(encoded, &self.limits)?) else {
                is_whole = false;
                return self.input_pixels().map(Some);
            };
            let recipe = Recipe {
                resize: Extent::Size([height, width]),
                crop: Extent::NONE,
                interpolation: Interpolation::Bilinear,
                color: Some(Color::Rgb),
                layout: Some(Layout::Nhwc),
                exif_orientation: self.model.config().preprocess.exif_orientation,
                ..Recipe::default()
            };
            pixels(&recipe, height, width).map(Some)
        })?;
        let picture = picture.ok_or_else(unlike)?;
        let display = if is_whole { Display { picture, frame: prepared.frame } } else { input_alone(&picture) };
        Ok((prepared, display))
    }

    /// Decodes a picture once, for the network and for what `beside` says to the preprocessor of what is explained.
    fn decode(
        &self,
        encoded: &[u8],
        crops: Crops,
        beside: impl FnOnce(&Preprocessor) -> Result<Option<Preprocessor>>,
    ) -> Result<(Prepared, Option<RgbImage>)> {
        let own = &**self.graph.preprocessor();
        let middle = if own.crops() == 1 { None } else { Some(self.middle_crop()?) };
        let all = middle.as_ref().map(|_| own).filter(|_| crops == Crops::All);
        let explained = middle.as_ref().unwrap_or(own);
        let beside = beside(explained)?;
        let wanted: Vec<_> = [Some(explained), all, beside.as_ref()].into_iter().flatten().collect();
        let mut tensors = preprocess::tensors(encoded, &self.limits, &wanted)?.into_iter();
        let (row, frame) = tensors.next().ok_or_else(unlike)?;
        let crops = all.map(|_| tensors.next().ok_or_else(unlike)).transpose()?.map(|(crops, _)| crops);
        let picture = tensors.next().map(|(pixels, _)| rgb(&pixels)).transpose()?;
        Ok((Prepared { row, frame, crops }, picture))
    }

    /// What makes a picture the network's input where the recipe takes several crops.
    fn middle_crop(&self) -> Result<Preprocessor> {
        let recipe = Recipe { crops: 1, ..self.model.config().preprocess.clone() };
        let shape = self.graph.preprocessor().row_shape().map(|size| size as i64);
        preprocessor(&recipe, &shape, self.graph.interface().input.data_type)
    }

    /// What makes a picture the pixels of the network's input.
    fn input_pixels(&self) -> Result<Preprocessor> {
        let (height, width) = self.graph.input_size();
        let recipe = Recipe {
            crops: 1,
            color: Some(Color::Rgb),
            layout: Some(Layout::Nhwc),
            scale: None,
            mean: None,
            std: None,
            ..self.model.config().preprocess.clone()
        };
        pixels(&recipe, height as u32, width as u32)
    }
}

/// The width and height that a picture is shown with; none where that would leave next to nothing of the network's input to be seen: of a
/// long and narrow picture, or of a small crop of a large one.
fn display_size(frame: &Frame) -> Option<(u32, u32)> {
    let (width, height) = (frame.picture_width, frame.picture_height);
    let scale = (f64::from(DISPLAY_SIDE) / f64::from(width.max(height))).min(1.0);
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let shown = f64::from(frame.width.min(frame.height)) * scale;
    // A picture that is hardly larger than that itself is shown whole.
    let least = LEAST_SHOWN.min(f64::from(width.max(height)) / 2.0);
    (shown >= least).then(|| (side(width), side(height)))
}

/// The network's input by itself, each pixel enlarged to a square where it is small.
fn input_alone(input: &RgbImage) -> Display {
    let times = INPUT_SIDE.div_ceil(input.width().max(input.height()).max(1));
    let (picture_width, picture_height) = (times * input.width(), times * input.height());
    let picture = imageops::resize(input, picture_width, picture_height, imageops::FilterType::Nearest);
    let (width, height) = (picture_width as f32, picture_height as f32);
    Display { picture, frame: Frame { picture_width, picture_height, x: 0.0, y: 0.0, width, height } }
}

fn preprocessor(recipe: &Recipe, shape: &[i64], data_type: DataType) -> Result<Preprocessor> {
    Preprocessor::new(recipe, shape, data_type).map_err(|error| {
        Error::internal("the picture cannot be prepared for an explanation").with_source(error.to_string())
    })
}

/// What gives a picture's pixels as `recipe` has them.
fn pixels(recipe: &Recipe, height: u32, width: u32) -> Result<Preprocessor> {
    preprocessor(recipe, &[i64::from(height), i64::from(width), 3], DataType::Uint8)
}

fn unlike() -> Error {
    Error::internal("a picture became something else than was asked for")
}

/// A tensor `[1, height, width, 3]` of pixels.
fn rgb(tensor: &Tensor) -> Result<RgbImage> {
    let &[1, height, width, 3] = tensor.shape() else { return Err(unlike()) };
    RgbImage::from_raw(width as u32, height as u32, tensor.bytes().to_vec()).ok_or_else(unlike)
}
