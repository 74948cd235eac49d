//! Which part of a picture becomes which part of the input: sizes, crops, padding and orientation.
//!
//! Pure arithmetic. "The picture" is the upright one throughout, and `x` and `y` are its axes; only the taps know how the
//! file's rows and columns lie against them.

use std::ops::Range;

use image::metadata::Orientation;

use super::Frame;
use super::decode::{Eighths, Picture};
use super::recipe::{Decode, Plan, Target};
use super::resize::{Line, Taps};
use crate::error::{Error, Result};

/// How one picture is turned, resized and cropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    x: Axis,
    y: Axis,
    /// Whether the picture's rows are the file's columns.
    sideways: bool,
    /// The share of its size at which the file is decoded.
    share: Eighths,
}

/// One axis of the picture, in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Axis {
    /// The picture's size.
    picture: usize,
    /// What it is resized to.
    resized: usize,
    /// What of that the crop keeps.
    kept: Range<usize>,
    /// Where the kept part begins in the input.
    at: usize,
    /// The input's size.
    input: usize,
    /// Whether the file runs the other way.
    mirrored: bool,
}

impl Geometry {
    /// # Errors
    /// `InvalidArgument` when the recipe neither resizes nor crops and the picture has not the input's size.
    pub(super) fn new(plan: &Plan, picture: &Picture<'_>) -> Result<Self> {
        let orientation = if plan.exif_orientation { picture.orientation() } else { Orientation::NoTransforms };
        let (sideways, mirrored_x, mirrored_y) = turns(orientation);
        let (file_width, file_height) = picture.size();
        let (width, height) = if sideways { (file_height, file_width) } else { (file_width, file_height) };

        let (resized_width, resized_height) = resized(plan.target, width, height);
        if !plan.crop && (resized_width, resized_height) != (plan.width, plan.height) {
            let (takes_width, takes_height) = (plan.width, plan.height);
            let message =
                format!("the picture is {width}×{height}, and the model takes exactly {takes_width}×{takes_height}");
            return Err(Error::invalid(message));
        }
        let share = if plan.decode == Decode::Fast && picture.is_scalable() {
            share((width, height), (resized_width, resized_height))
        } else {
            Eighths::ALL
        };
        Ok(Self {
            x: Axis::new(width, resized_width, plan.width, mirrored_x),
            y: Axis::new(height, resized_height, plan.height, mirrored_y),
            sideways,
            share,
        })
    }

    /// The share of its size at which the file is to be decoded.
    pub(super) fn share(&self) -> Eighths {
        self.share
    }

    /// Whether the file's rows run down the picture, so that its lines of pixels do.
    pub(super) fn is_sideways(&self) -> bool {
        self.sideways
    }

    /// Whether parts of the input lie outside the picture.
    pub(super) fn is_padded(&self) -> bool {
        [&self.x, &self.y].iter().any(|axis| axis.kept.len() < axis.input)
    }

    /// Whether the pass along the file's rows is the first of the two, which the rounding between them shows.
    ///
    /// Pillow goes along x first, unless the height shrinks by more than twice of what the width does, in pixels; before
    /// version 13 it always did.
    pub(super) fn rows_first(&self) -> bool {
        let [x, y] = [&self.x, &self.y].map(|axis| self.share.of(axis.picture) as i64 - axis.resized as i64);
        let x_first = y <= 0 || y <= 2 * x;
        x_first != self.sideways
    }

    /// The taps along the file's rows, and those across them.
    pub(super) fn taps(&self, plan: &Plan) -> (Taps, Taps) {
        let [x, y] = [&self.x, &self.y].map(|axis| axis.taps(plan, self.share));
        if self.sideways { (y, x) } else { (x, y) }
    }

    /// The input's column and row where the first pixel of line `index` of the resized file lies.
    pub(super) fn place(&self, index: usize) -> (usize, usize) {
        if self.sideways { (self.x.at + index, self.y.at) } else { (self.x.at, self.y.at + index) }
    }

    /// Where the input lies in the picture.
    pub(super) fn frame(&self) -> Frame {
        let [(x, width), (y, height)] = [self.x.frame(), self.y.frame()];
        Frame { picture_width: self.x.picture as u32, picture_height: self.y.picture as u32, x, y, width, height }
    }
}

impl Axis {
    /// The centre crop of `resized` pixels to `input`, torchvision's: halves round to even, and where the picture is the
    /// smaller it is padded, the odd pixel after it.
    fn new(picture: usize, resized: usize, input: usize, mirrored: bool) -> Self {
        let (kept, at) = if resized < input {
            (0..resized, (input - resized) / 2)
        } else {
            let twice = resized - input;
            let start = if twice % 4 == 3 { twice / 2 + 1 } else { twice / 2 };
            (start..start + input, 0)
        };
        Self { picture, resized, kept, at, input, mirrored }
    }

    fn taps(&self, plan: &Plan, share: Eighths) -> Taps {
        let input = share.of(self.picture);
        // A last pixel that stands for less than a whole one lies at the far end, which mirroring makes the near one.
        let exact = self.picture as f64 * f64::from(share.0) / 8.0;
        let shown = if self.mirrored { input as f64 - exact..input as f64 } else { 0.0..exact };
        let line = Line { input, shown, output: self.resized, wanted: self.kept.clone() };
        Taps::new(plan.interpolation, &line, self.mirrored)
    }

    fn frame(&self) -> (f32, f32) {
        let scale = self.picture as f64 / self.resized as f64;
        let start = self.kept.start as f64 - self.at as f64;
        ((start * scale) as f32, (self.input as f64 * scale) as f32)
    }
}

/// Whether rows and columns change places, and whether the upright picture's x and y then run against the file's.
fn turns(orientation: Orientation) -> (bool, bool, bool) {
    match orientation {
        Orientation::NoTransforms => (false, false, false),
        Orientation::FlipHorizontal => (false, true, false),
        Orientation::Rotate180 => (false, true, true),
        Orientation::FlipVertical => (false, false, true),
        Orientation::Rotate90FlipH => (true, false, false),
        Orientation::Rotate90 => (true, true, false),
        Orientation::Rotate270FlipH => (true, true, true),
        Orientation::Rotate270 => (true, false, true),
    }
}

/// Width and height after resizing. The longer side is cut to a whole pixel, as torchvision's `int()` cuts it.
fn resized(target: Target, width: usize, height: usize) -> (usize, usize) {
    match target {
        Target::Keep => (width, height),
        Target::Exact(height, width) => (width, height),
        Target::ShorterSide(side) if width <= height => (side, side * height / width),
        Target::ShorterSide(side) => (side * width / height, side),
    }
}

/// The smallest share at which both sides stay at least twice what they are resized to, so that the resampler still has
/// something to smooth and aliasing stays out.
fn share(picture: (usize, usize), resized: (usize, usize)) -> Eighths {
    let enough = |share: &Eighths| {
        let decoded = |side: usize| side * usize::from(share.0);
        decoded(picture.0) >= 16 * resized.0 && decoded(picture.1) >= 16 * resized.1
    };
    Eighths::FAST.into_iter().find(enough).unwrap_or(Eighths::ALL)
}
