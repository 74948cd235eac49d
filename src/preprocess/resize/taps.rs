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

/// For each wanted pixel of the result, the source's pixels that it is made of and their weights: as many for each, some
/// of weight zero, since a fixed number is what compilers unroll.
#[derive(Debug)]
pub(in crate::preprocess) struct Taps {
    /// Where each result's source pixels begin.
    first: Vec<usize>,
    /// How many source pixels a result has.
    width: usize,
    /// Their weights in fixed point, `width` for each result.
    weights: Vec<i32>,
    /// Whether the source runs from the result's end to its beginning.
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
            for first in &mut taps.first {
                *first = line.input - *first - taps.width;
            }
            taps.weights.chunks_exact_mut(taps.width).for_each(<[i32]>::reverse);
            taps.mirrored = true;
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
        Self { weights: vec![1 << PRECISION_BITS; first.len()], first, width: 1, mirrored: false }
    }

    fn weighted(filter: Interpolation, line: &Line) -> Self {
        let (kernel, radius) = kernel(filter);
        let scale = (line.shown.end - line.shown.start) / line.output as f64;
        // Shrinking widens the filter by the scale, so that it covers every source pixel; growing does not narrow it.
        let widening = scale.max(1.0);
        let narrowing = 1.0 / widening;
        let support = radius * widening;
        let covered = |result: usize| {
            let center = line.shown.start + (result as f64 + 0.5) * scale;
            // `as` truncates towards zero and stops there, as Pillow's cast and clamp do.
            let first = (center - support + 0.5) as usize;
            (center, first..((center + support + 0.5) as usize).min(line.input))
        };

        let width = line.wanted.clone().map(|result| covered(result).1.len()).max().unwrap_or(0);
        let mut weights = vec![0; line.wanted.len() * width];
        let mut exact = Vec::with_capacity(width);
        let mut first = Vec::with_capacity(line.wanted.len());
        for (result, places) in line.wanted.clone().zip(weights.chunks_exact_mut(width)) {
            let (center, sources) = covered(result);
            exact.clear();
            exact.extend(sources.clone().map(|source| kernel((source as f64 - center + 0.5) * narrowing)));
            let sum: f64 = exact.iter().sum();
            // At the source's end there may be too little left for `width` pixels.
            let start = sources.start.min(line.input - width);
            for (place, weight) in places[sources.start - start..].iter_mut().zip(&exact) {
                *place = to_fixed(if sum == 0.0 { *weight } else { weight / sum });
            }
            first.push(start);
        }
        Self { first, width, weights, mirrored: false }
    }

    /// The number of results.
    pub(in crate::preprocess) fn len(&self) -> usize {
        self.first.len()
    }

    /// The number of source pixels that a result is made of.
    pub(in crate::preprocess) fn width(&self) -> usize {
        self.width
    }

    /// Where each result's source pixels begin, and the weights of all, [`Self::width`] for each.
    pub(super) fn all(&self) -> (&[usize], &[i32]) {
        (&self.first, &self.weights)
    }

    /// The source pixels of result `index`, and as many weights.
    pub(super) fn get(&self, index: usize) -> (Range<usize>, &[i32]) {
        let first = self.first[index];
        (first..first + self.width, &self.weights[index * self.width..][..self.width])
    }

    /// The `nth` result to be complete when the source is read from its beginning.
    pub(super) fn in_source_order(&self, nth: usize) -> usize {
        if self.mirrored { self.len() - 1 - nth } else { nth }
    }

    /// The source pixels that any result needs.
    pub(super) fn source(&self) -> Range<usize> {
        let [begin, end] = [0, self.len() - 1].map(|nth| self.first[self.in_source_order(nth)]);
        begin..end + self.width
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
