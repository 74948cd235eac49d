//! Pixels to the elements of a tensor.

use half::f16;

use super::plan::Plan;
use super::recipe::{Color, Layout};

/// Where the pixels go: one row of a batch, `[C, H, W]` or `[H, W, C]`, in the model's element type.
#[derive(Debug)]
pub enum RowMut<'a> {
    /// FP32.
    F32(&'a mut [f32]),
    /// FP16: each value is rounded from the FP32 one.
    F16(&'a mut [f16]),
    /// UINT8: the pixels as they are.
    U8(&'a mut [u8]),
}

/// What each of the 256 values of a pixel becomes, for each channel of the tensor.
#[derive(Debug)]
pub(super) struct Table<T>(Vec<[T; 256]>);

impl Table<f32> {
    /// `((x * scale) - mean) / std`, each operation rounded to f32 by itself, so that the values are torchvision's.
    pub(super) fn new(plan: &Plan) -> Self {
        let channel = |(&mean, &std): (&f32, &f32)| {
            std::array::from_fn(|value| {
                // In f64 the product with 1/255 is close enough to the quotient by 255 to round to the same f32.
                let scaled = (value as f64 * plan.scale) as f32;
                (scaled - mean) / std
            })
        };
        Self(plan.mean.iter().zip(&plan.std).map(channel).collect())
    }

    pub(super) fn map<U>(&self, convert: impl Fn(f32) -> U) -> Table<U> {
        Table(self.0.iter().map(|values| values.map(&convert)).collect())
    }
}

impl Table<u8> {
    pub(super) fn identity(channels: usize) -> Self {
        Self(vec![std::array::from_fn(|value| value as u8); channels])
    }
}

/// Which way a line of pixels goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Right,
    Left,
    Down,
}

/// A tensor's row, and how pixels are put into it.
pub(super) struct Canvas<'a, T> {
    pub(super) table: &'a Table<T>,
    pub(super) elements: &'a mut [T],
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) layout: Layout,
    pub(super) color: Color,
}

impl<T: Copy> Canvas<'_, T> {
    /// Fills it with black pixels.
    pub(super) fn fill_black(&mut self) {
        let channels = self.table.0.len();
        let plane = self.height * self.width;
        for (channel, values) in self.table.0.iter().enumerate() {
            match self.layout {
                Layout::Nchw => self.elements[channel * plane..][..plane].fill(values[0]),
                Layout::Nhwc => {
                    self.elements.iter_mut().skip(channel).step_by(channels).for_each(|element| *element = values[0]);
                }
            }
        }
    }

    /// Puts a line of pixels at (`x`, `y`) and on in `direction`.
    pub(super) fn put<const C: usize>(&mut self, pixels: &[[u8; C]], (x, y): (usize, usize), direction: Direction) {
        let channels = self.table.0.len();
        let (pixel_stride, channel_stride) = match self.layout {
            Layout::Nchw => (1, self.height * self.width),
            Layout::Nhwc => (channels, 1),
        };
        let step = if direction == Direction::Down { self.width * pixel_stride } else { pixel_stride };
        let x = if direction == Direction::Left { x + 1 - pixels.len() } else { x };
        let start = (y * self.width + x) * pixel_stride;
        for (channel, values) in self.table.0.iter().enumerate() {
            // A gray picture has the same value for every channel.
            let component = match self.color {
                _ if C == 1 => 0,
                Color::Bgr => 2 - channel,
                Color::Rgb | Color::Gray => channel,
            };
            let elements = &mut self.elements[start + channel * channel_stride..];
            if direction == Direction::Left {
                for (element, pixel) in elements.iter_mut().step_by(step).zip(pixels.iter().rev()) {
                    *element = values[usize::from(pixel[component])];
                }
            } else if step == 1 {
                for (element, pixel) in elements.iter_mut().zip(pixels) {
                    *element = values[usize::from(pixel[component])];
                }
            } else {
                for (element, pixel) in elements.iter_mut().step_by(step).zip(pixels) {
                    *element = values[usize::from(pixel[component])];
                }
            }
        }
    }
}
