//! Encoded pictures to a model's input: decode, turn upright, resize, crop, normalise.
//!
//! With the exact recipe the result equals Pillow's and torchvision's to the bit. Everything runs over a stream of rows, from
//! the decoder through both passes of the resampler into the tensor, so the memory that a picture takes hardly depends on
//! its size, and only what the crop keeps is computed.
//!
//! This module knows pictures and tensors; it must not know of requests, sockets or models.

mod decode;
mod geometry;
mod normalize;
mod plan;
mod recipe;
mod render;
mod resize;

use half::f16;

pub use decode::PictureLimits;
pub use normalize::RowMut;
pub use recipe::{Color, Decode, Extent, ExtentWord, Interpolation, Layout, Recipe, RecipeError};
pub use render::tensors;

use crate::error::{Error, Result};
use crate::tensor::{DataType, Tensor};
use decode::Picture;
use geometry::Geometry;
use normalize::Table;
use plan::Plan;
use render::{Elements, Render, Rendering};

/// A recipe that fits a model's input, ready to run: share it between threads.
#[derive(Debug)]
pub struct Preprocessor {
    plan: Plan,
    table: Tables,
}

/// The pixel table in the model's element type.
#[derive(Debug)]
enum Tables {
    F32(Table<f32>),
    F16(Table<f16>),
    U8(Table<u8>),
}

/// Where the network's input, or that of all crops together, lies in the picture.
///
/// All in pixels of the picture after it was turned upright. Where the crop is larger than the resized picture, the input
/// reaches beyond the picture: `x` or `y` is negative then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// The picture's width.
    pub picture_width: u32,
    /// The picture's height.
    pub picture_height: u32,
    /// The left edge of the input.
    pub x: f32,
    /// The top edge of the input.
    pub y: f32,
    /// The width of the input.
    pub width: f32,
    /// The height of the input.
    pub height: f32,
}

/// Two are equal when they make the same tensor of any picture.
impl PartialEq for Preprocessor {
    fn eq(&self, other: &Self) -> bool {
        // The table follows from the plan and the element type.
        self.plan == other.plan && std::mem::discriminant(&self.table) == std::mem::discriminant(&other.table)
    }
}

impl Preprocessor {
    /// Checks `recipe` against a model's input: its shape without the batch dimension, `[3, H, W]`, `[H, W, 3]` or with 1
    /// channel, -1 where it is open, and its element type.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn new(recipe: &Recipe, shape: &[i64], data_type: DataType) -> Result<Self, RecipeError> {
        let plan = Plan::new(recipe, shape, data_type)?;
        let table = match data_type {
            DataType::Uint8 => Tables::U8(Table::identity(plan.channels())),
            DataType::Fp16 => Tables::F16(Table::new(&plan).map(f16::from_f32)),
            _ => Tables::F32(Table::new(&plan)),
        };
        Ok(Self { plan, table })
    }

    /// The shape of one crop's tensor: `[C, H, W]` or `[H, W, C]`.
    pub fn row_shape(&self) -> [usize; 3] {
        let Plan { height, width, .. } = self.plan;
        match self.plan.layout {
            Layout::Nchw => [self.plan.channels(), height, width],
            Layout::Nhwc => [height, width, self.plan.channels()],
        }
    }

    /// How many rows a picture becomes: one for each crop that the recipe takes.
    pub fn crops(&self) -> usize {
        self.plan.crops.count()
    }

    /// The channels of the tensor and their order.
    pub fn color(&self) -> Color {
        self.plan.color
    }

    /// The order of the tensor's dimensions.
    pub fn layout(&self) -> Layout {
        self.plan.layout
    }

    /// Height and width of the network's input.
    pub fn input_size(&self) -> (usize, usize) {
        (self.plan.height, self.plan.width)
    }

    /// Turns one encoded picture into a row for each crop: a tensor of the model's element type, shape `[crops, …]` with
    /// [`Self::row_shape`] behind. With several crops they come in the order of torchvision's `five_crop` and `ten_crop`. Blocks,
    /// as [`Self::run`] does.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn tensor(&self, encoded: &[u8], limits: &PictureLimits) -> Result<Tensor> {
        let mut elements = self.elements();
        self.run(encoded, limits, elements.row())?;
        self.collect(elements)
    }

    /// Turns one encoded picture into `row`, which holds exactly the elements of [`Self::row_shape`], once for each crop.
    ///
    /// Blocks for as long as decoding takes: a millisecond for a small photograph, tens for a large one.
    ///
    /// # Errors
    /// `UnsupportedMedia` for bytes that are no picture, `InvalidArgument` for a broken picture (`row` may be half written
    /// then), `PayloadTooLarge` for one over `limits`, `Internal` when `row` is not what the model takes.
    pub fn run(&self, encoded: &[u8], limits: &PictureLimits, row: RowMut<'_>) -> Result<Frame> {
        let picture = Picture::open(encoded, limits)?;
        let mut rendering = self.rendering(&picture, row)?;
        picture.read(rendering.share(), |row| rendering.push(row))?;
        Ok(rendering.frame())
    }

    /// Where the network's input lies in an encoded picture. Reads no more of it than its header.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn frame(&self, encoded: &[u8], limits: &PictureLimits) -> Result<Frame> {
        Ok(Geometry::new(&self.plan, &Picture::open(encoded, limits)?)?.frame())
    }

    fn rendering<'a>(&'a self, picture: &Picture<'_>, row: RowMut<'a>) -> Result<Box<dyn Render + 'a>> {
        let plan = &self.plan;
        Ok(match (&self.table, row) {
            (Tables::F32(table), RowMut::F32(row)) => Box::new(Rendering::new(plan, table, picture, row)?),
            (Tables::F16(table), RowMut::F16(row)) => Box::new(Rendering::new(plan, table, picture, row)?),
            (Tables::U8(table), RowMut::U8(row)) => Box::new(Rendering::new(plan, table, picture, row)?),
            _ => return Err(Error::internal("the row's element type is not the model's")),
        })
    }

    /// Room for what a picture becomes.
    fn elements(&self) -> Elements {
        let length = self.crops() * self.row_shape().iter().product::<usize>();
        match &self.table {
            Tables::F32(_) => Elements::F32(vec![0.0; length]),
            Tables::F16(_) => Elements::F16(vec![f16::ZERO; length]),
            Tables::U8(_) => Elements::U8(vec![0; length]),
        }
    }

    /// What a picture became.
    fn collect(&self, elements: Elements) -> Result<Tensor> {
        let [a, b, c] = self.row_shape();
        elements.into_tensor(vec![self.crops(), a, b, c])
    }
}
