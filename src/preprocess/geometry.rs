//! Which part of a picture becomes which part of the input: sizes, crops, padding and orientation.
//!
//! Pure arithmetic. "The picture" is the upright one throughout, and `x` and `y` are its axes; only the taps know how the
//! file's rows and columns lie against them.

use std::ops::Range;

use image::metadata::Orientation;

use super::Frame;
use super::decode::{Eighths, Picture};
use super::normalize::Direction;
use super::plan::{Crops, Plan, Target};
use super::recipe::Decode;
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
    /// In torchvision's order.
    crops: Vec<Crop>,
}

/// One crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crop {
    /// Where it begins in what is kept of the resized picture.
    x: usize,
    y: usize,
    /// Whether its left and right change places.
    mirrored: bool,
}

/// One axis of the picture, in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Axis {
    /// The picture's size.
    picture: usize,
    /// What it is resized to.
    resized: usize,
    /// What of that the crop, or any of several, keeps.
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
    /// `InvalidArgument` when the recipe neither resizes nor crops and the picture has not the input's size, or when it takes
    /// several crops without resizing and the picture is smaller than they are.
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
        if plan.crops != Crops::Center && (resized_width < plan.width || resized_height < plan.height) {
            let message = format!(
                "the picture is {width}×{height}, too small for the {} crops of {}×{} that the model takes",
                plan.crops.count(),
                plan.width,
                plan.height
            );
            return Err(Error::invalid(message));
        }
        let mut x = Axis::new(width, resized_width, plan.width, mirrored_x);
        let mut y = Axis::new(height, resized_height, plan.height, mirrored_y);
        let crops = match plan.crops {
            Crops::Center => vec![Crop { x: 0, y: 0, mirrored: false }],
            Crops::Five => five_crops(&mut x, &mut y),
            Crops::Ten => {
                let five = five_crops(&mut x, &mut y);
                // torchvision mirrors the picture and crops that: each crop begins as far from the other side.
                let room = x.resized - x.input;
                let mirrored = five.iter().map(|&Crop { x, y, .. }| Crop { x: room - x, y, mirrored: true });
                five.iter().copied().chain(mirrored).collect()
            }
        };
        Ok(Self { x, y, sideways, share, crops })
    }

    /// The share of its size at which the file is to be decoded.
    pub(super) fn share(&self) -> Eighths {
        self.share
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

    /// What input number `crop` shows of line `index` of the resized file: a part of the line's pixels, the column and row of
    /// the input where its first one lies, and the way on from there. `None` where it shows nothing of that line.
    pub(super) fn cut(&self, crop: usize, index: usize) -> Option<(Range<usize>, (usize, usize), Direction)> {
        let Crop { x, y, mirrored } = self.crops[crop];
        // A line runs along one axis and lies at a place on the other.
        let (across, line, start) = if self.sideways { (&self.x, &self.y, y) } else { (&self.y, &self.x, x) };
        let place = index.checked_sub(if self.sideways { x } else { y }).filter(|&place| place < across.shown())?;
        let pixels = start..start + line.shown();
        let (column, row) = if self.sideways { (self.x.at + place, self.y.at) } else { (self.x.at, self.y.at + place) };
        let column = if mirrored { self.x.input - 1 - column } else { column };
        let direction = match (self.sideways, mirrored) {
            (true, _) => Direction::Down,
            (false, true) => Direction::Left,
            (false, false) => Direction::Right,
        };
        Some((pixels, (column, row), direction))
    }

    /// Where the input, or all crops together, lie in the picture.
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

    /// How much of the input one crop fills.
    fn shown(&self) -> usize {
        self.kept.len().min(self.input)
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
        let length = self.kept.len().max(self.input);
        ((start * scale) as f32, (length as f64 * scale) as f32)
    }
}

/// torchvision's `five_crop`: upper left, upper right, lower left, lower right, centre. Both axes come with the centre kept, and
/// keep everything afterwards.
fn five_crops(x: &mut Axis, y: &mut Axis) -> Vec<Crop> {
    let (center_x, center_y) = (x.kept.start, y.kept.start);
    let (right, bottom) = (x.resized - x.input, y.resized - y.input);
    x.kept = 0..x.resized;
    y.kept = 0..y.resized;
    let places = [(0, 0), (right, 0), (0, bottom), (right, bottom), (center_x, center_y)];
    places.map(|(x, y)| Crop { x, y, mirrored: false }).to_vec()
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
