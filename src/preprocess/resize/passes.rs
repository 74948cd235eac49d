//! The loops that take the time, written so that compilers make vector instructions of them.
//!
//! The binary runs on any x86-64, but a multiplication of 32-bit lanes, which these loops consist of, came with SSE4.1.
//! [`pulp::Arch::dispatch`] therefore has two versions of each pass compiled, one with AVX2, and picks when it runs.

#![expect(clippy::inline_always, reason = "only what is inlined into `with_simd` is compiled for its instructions")]

use pulp::{Simd, WithSimd};

use super::taps::{PRECISION_BITS, Taps};

/// A half, so that the shift after a sum rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The pass along x, for one row.
pub(super) struct AlongX<'a, const C: usize> {
    pub(super) row: &'a [[u8; C]],
    /// The source's column that the row begins with.
    pub(super) left: usize,
    pub(super) taps: &'a Taps,
    pub(super) out: &'a mut [[u8; C]],
}

impl<const C: usize> WithSimd for AlongX<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // Shrinking by up to 2.5 with the bilinear filter takes 2 to 6 taps: a loop over them would cost more than they do.
        match self.taps.width() {
            1 => self.unrolled::<1>(),
            2 => self.unrolled::<2>(),
            3 => self.unrolled::<3>(),
            4 => self.unrolled::<4>(),
            5 => self.unrolled::<5>(),
            6 => self.unrolled::<6>(),
            _ => self.looped(),
        }
    }
}

impl<const C: usize> AlongX<'_, C> {
    #[inline(always)]
    fn unrolled<const WIDTH: usize>(self) {
        let (first, weights) = self.taps.all();
        let (weights, _) = weights.as_chunks::<WIDTH>();
        for ((out, &first), weights) in self.out.iter_mut().zip(first).zip(weights) {
            let mut sums = [HALF; C];
            add_weighted(&mut sums, &self.row[first - self.left..][..WIDTH], weights);
            clip(&sums, out);
        }
    }

    #[inline(always)]
    fn looped(self) {
        let width = self.taps.width();
        let (first, weights) = self.taps.all();
        for ((out, &first), weights) in self.out.iter_mut().zip(first).zip(weights.chunks_exact(width)) {
            let mut sums = [HALF; C];
            let (pixels, last_pixels) = self.row[first - self.left..][..width].as_chunks::<4>();
            let (weights, last_weights) = weights.as_chunks::<4>();
            for (pixels, weights) in pixels.iter().zip(weights) {
                add_weighted(&mut sums, pixels, weights);
            }
            add_weighted(&mut sums, last_pixels, last_weights);
            clip(&sums, out);
        }
    }
}

#[inline(always)]
fn add_weighted<const C: usize>(sums: &mut [i32; C], pixels: &[[u8; C]], weights: &[i32]) {
    for (pixel, &weight) in pixels.iter().zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += i32::from(value) * weight;
        }
    }
}

/// One result of the pass along y: the weighted sum of rows, byte by byte.
pub(super) struct AcrossRows<'a, R> {
    pub(super) rows: R,
    pub(super) weights: &'a [i32],
    pub(super) out: &'a mut [u8],
}

impl<'r, R: Iterator<Item = &'r [u8]> + Clone> WithSimd for AcrossRows<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        /// As many sums as the vector registers hold beside the pixels.
        const BLOCK: usize = 64;
        let (blocks, rest) = self.out.as_chunks_mut::<BLOCK>();
        let mut start = 0;
        for block in blocks {
            let mut sums = [HALF; BLOCK];
            for (row, &weight) in self.rows.clone().zip(self.weights) {
                for (sum, &value) in sums.iter_mut().zip(&row[start..][..BLOCK]) {
                    *sum += i32::from(value) * weight;
                }
            }
            clip(&sums, block);
            start += BLOCK;
        }
        for (index, out) in rest.iter_mut().enumerate() {
            let mut sum = [HALF];
            for (row, &weight) in self.rows.clone().zip(self.weights) {
                sum[0] += i32::from(row[start + index]) * weight;
            }
            clip(&sum, std::array::from_mut(out));
        }
    }
}

#[inline(always)]
fn clip<const N: usize>(sums: &[i32; N], out: &mut [u8; N]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (sum >> PRECISION_BITS).clamp(0, 255) as u8;
    }
}
