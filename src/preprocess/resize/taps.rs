//! The coefficients of resampling along one axis.

use std::f64::consts::PI;
use std::ops::Range;

use crate::preprocess::recipe::Interpolation;

/// Fractional bits of a coefficient: Pillow's choice. 8 bits of pixel and 2 of headroom (the negative lobes let the sum
/// of magnitudes pass 1) fill an `i32`.
pub(in crate::preprocess) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// One axis of a resize: its source, its result, and the part of the result that is wanted.
#[derive(Debug, Clone)]
pub(in crate::preprocess) struct Line {
    /// The source's pixels.
    pub(in crate::preprocess) input: usize,
    /// The part of the source that the result shows, in pixels; `0.0..input` but for a source that was decoded smaller,
    /// whose last pixel may stand for less than a whole one.
    pub(in crate::preprocess) shown: Range<f64>,
    /// The result's pixels.
    pub(in crate::preprocess) output: usize,
    /// The pixels of the result that are computed.
    pub(in crate::preprocess) wanted: Range<usize>,
}

/// For each wanted pixel of the result, the source's pixels that it is made of and their weights.
#[derive(Debug)]
pub(in crate::preprocess) struct Taps {
    /// Where each result's source pixels begin.
    first: Vec<usize>,
    /// How many there are.
    length: Vec<usize>,
    /// Their weights in fixed point, `stride` places for each result.
    weights: Vec<i32>,
    stride: usize,
    /// Whether the source runs from its end to its beginning.
    mirrored: bool,
}

impl Taps {
    /// The taps of `line` under `filter`. With `mirrored`, the source is the mirror image of what `line` describes.
    pub(in crate::preprocess) fn new(filter: Interpolation, line: &Line, mirrored: bool) -> Self {
        let mut taps = match filter {
            Interpolation::Nearest => Self::nearest(line),
            filter => Self::weighted(filter, line),
        };
        if mirrored {
            taps.mirror(line.input);
        }
        taps
    }

    /// The pixel under the centre of each result, found by Pillow's own running sum: a product would round differently.
    fn nearest(line: &Line) -> Self {
        let step = (line.shown.end - line.shown.start) / line.output as f64;
        let mut position = line.shown.start + step * 0.5;
        let mut first = Vec::with_capacity(line.wanted.len());
        for index in 0..line.wanted.end {
            if index >= line.wanted.start {
                first.push((position as usize).min(line.input - 1));
            }
            position += step;
        }
        let count = first.len();
        Self { first, length: vec![1; count], weights: vec![1 << PRECISION_BITS; count], stride: 1, mirrored: false }
    }

    fn weighted(filter: Interpolation, line: &Line) -> Self {
        let (kernel, radius) = kernel(filter);
        let scale = (line.shown.end - line.shown.start) / line.output as f64;
        // Shrinking widens the filter by the scale, so that it covers every source pixel; growing does not narrow it.
        let widening = scale.max(1.0);
        let narrowing = 1.0 / widening;
        let support = radius * widening;
        let stride = support.ceil() as usize * 2 + 1;

        let count = line.wanted.len();
        let mut taps = Self {
            first: Vec::with_capacity(count),
            length: Vec::with_capacity(count),
            weights: vec![0; count * stride],
            stride,
            mirrored: false,
        };
        let mut exact = Vec::with_capacity(stride);
        for (result, places) in line.wanted.clone().zip(taps.weights.chunks_exact_mut(stride)) {
            let center = line.shown.start + (result as f64 + 0.5) * scale;
            // `as` truncates towards zero and saturates below it, as Pillow's cast and clamp do.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(line.input);
            exact.clear();
            exact.extend((first..end).map(|source| kernel((source as f64 - center + 0.5) * narrowing)));
            let sum: f64 = exact.iter().sum();
            for (place, weight) in places.iter_mut().zip(&exact) {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                *place = to_fixed(weight);
            }
            taps.first.push(first);
            taps.length.push(end - first);
        }
        taps
    }

    fn mirror(&mut self, input: usize) {
        for ((first, length), places) in
            self.first.iter_mut().zip(&self.length).zip(self.weights.chunks_exact_mut(self.stride))
        {
            *first = input - *first - length;
            places[..*length].reverse();
        }
        self.mirrored = true;
    }

    /// The number of results.
    pub(in crate::preprocess) fn len(&self) -> usize {
        self.first.len()
    }

    /// The source pixels of result `index`, and as many weights.
    pub(in crate::preprocess) fn get(&self, index: usize) -> (Range<usize>, &[i32]) {
        let (first, length) = (self.first[index], self.length[index]);
        let start = index * self.stride;
        (first..first + length, &self.weights[start..start + length])
    }

    /// The `nth` result to be complete when the source is read from its beginning.
    pub(in crate::preprocess) fn in_source_order(&self, nth: usize) -> usize {
        if self.mirrored { self.len() - 1 - nth } else { nth }
    }

    /// The most source pixels that one result is made of.
    pub(in crate::preprocess) fn longest(&self) -> usize {
        self.length.iter().copied().max().unwrap_or(0)
    }

    /// The source pixels that any result needs.
    pub(in crate::preprocess) fn source(&self) -> Range<usize> {
        if self.len() == 0 {
            return 0..0;
        }
        let [begin, end] = [0, self.len() - 1].map(|nth| self.get(self.in_source_order(nth)).0);
        begin.start..end.end
    }
}

fn to_fixed(weight: f64) -> i32 {
    // Rounds halves away from zero, by adding and truncating.
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32
}

/// The filter's curve, and the radius beyond which it is zero.
fn kernel(filter: Interpolation) -> (fn(f64) -> f64, f64) {
    match filter {
        Interpolation::Nearest | Interpolation::Box => (square, 0.5),
        Interpolation::Bilinear => (triangle, 1.0),
        Interpolation::Hamming => (hamming, 1.0),
        Interpolation::Bicubic => (cubic, 2.0),
        Interpolation::Lanczos => (lanczos, 3.0),
    }
}

fn square(x: f64) -> f64 {
    // Half open, so that a pixel on the border of two results counts once.
    if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn hamming(x: f64) -> f64 {
    let x = x.abs();
    if x == 0.0 {
        return 1.0;
    }
    if x >= 1.0 {
        return 0.0;
    }
    let x = x * PI;
    // Pillow writes these two in single precision.
    x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}
