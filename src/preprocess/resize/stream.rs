//! Rows in, resampled rows out.

use pulp::Arch;

use super::taps::{PRECISION_BITS, Taps};

/// A half, so that the shift after a sum rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// A two-pass resize of a stream of rows of `C` interleaved 8-bit channels: 1, or 4 of which the last is padding, since
/// pixels of four bytes are what SIMD likes.
///
/// The passes go along x and then y, or along y and then x, which is the order that a picture needs that lies on its side:
/// its columns are the rows of the picture that is meant.
pub(in crate::preprocess) struct Stream<'a, const C: usize> {
    along_x: &'a Taps,
    along_y: &'a Taps,
    x_first: bool,
    /// The rows that the next results of the vertical pass are made of: row y lies at `y % capacity`.
    window: Vec<[u8; C]>,
    window_width: usize,
    /// The first source column that the window holds.
    window_left: usize,
    /// One row out of the vertical pass, and one out of a horizontal pass that follows it.
    vertical: Vec<[u8; C]>,
    horizontal: Vec<[u8; C]>,
    /// Rows that came in, and results of the vertical pass that went out.
    rows_in: usize,
    rows_out: usize,
    arch: Arch,
}

impl<'a, const C: usize> Stream<'a, C> {
    /// A stream of rows that resamples each along x with `along_x` and across rows with `along_y`.
    pub(in crate::preprocess) fn new(along_x: &'a Taps, along_y: &'a Taps, x_first: bool) -> Self {
        let source = along_x.source();
        let (window_left, window_width) = if x_first { (0, along_x.len()) } else { (source.start, source.len()) };
        Self {
            along_x,
            along_y,
            x_first,
            window: vec![[0; C]; window_width * along_y.longest()],
            window_width,
            window_left,
            vertical: vec![[0; C]; window_width],
            horizontal: vec![[0; C]; if x_first { 0 } else { along_x.len() }],
            rows_in: 0,
            rows_out: 0,
            arch: Arch::new(),
        }
    }

    /// Takes the next row of the source, and gives `emit` each row of the result that is complete with it: the index
    /// among the wanted results of `along_y`, and the pixels.
    pub(in crate::preprocess) fn push(&mut self, row: &[[u8; C]], mut emit: impl FnMut(usize, &[[u8; C]])) {
        let y = self.rows_in;
        self.rows_in += 1;
        if self.rows_out == self.along_y.len() {
            return;
        }
        let (needed, _) = self.along_y.get(self.along_y.in_source_order(self.rows_out));
        if y < needed.start {
            return;
        }
        let capacity = self.window.len() / self.window_width;
        let slot = &mut self.window[y % capacity * self.window_width..][..self.window_width];
        if self.x_first {
            self.arch.dispatch(|| horizontal_pass(row, self.along_x, 0, slot));
        } else {
            slot.copy_from_slice(&row[self.window_left..][..self.window_width]);
        }

        while self.rows_out < self.along_y.len() {
            let index = self.along_y.in_source_order(self.rows_out);
            let (sources, weights) = self.along_y.get(index);
            if sources.end > y + 1 {
                return;
            }
            let rows = sources.map(|y| &self.window[y % capacity * self.window_width..][..self.window_width]);
            self.arch.dispatch(|| vertical_pass(&rows, weights, self.vertical.as_flattened_mut()));
            if self.x_first {
                emit(index, &self.vertical);
            } else {
                self.arch.dispatch(|| {
                    horizontal_pass(&self.vertical, self.along_x, self.window_left, &mut self.horizontal);
                });
                emit(index, &self.horizontal);
            }
            self.rows_out += 1;
        }
    }
}

/// One row along x. `row` begins at the source's column `left`.
#[expect(clippy::inline_always, reason = "only code inlined into the dispatched closure is compiled for its features")]
#[inline(always)]
fn horizontal_pass<const C: usize>(row: &[[u8; C]], taps: &Taps, left: usize, out: &mut [[u8; C]]) {
    for (index, out) in out.iter_mut().enumerate() {
        let (sources, weights) = taps.get(index);
        let mut sums = [HALF; C];
        for (pixel, &weight) in row[sources.start - left..sources.end - left].iter().zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(value) * weight;
            }
        }
        *out = sums.map(clip);
    }
}

/// One result of the vertical pass: the weighted sum of `rows`, byte by byte.
#[expect(clippy::inline_always, reason = "only code inlined into the dispatched closure is compiled for its features")]
#[inline(always)]
fn vertical_pass<'r, const C: usize>(
    rows: &(impl Iterator<Item = &'r [[u8; C]]> + Clone),
    weights: &[i32],
    out: &mut [u8],
) {
    /// As many sums as vector registers hold beside the pixels.
    const BLOCK: usize = 64;
    let mut blocks = out.chunks_exact_mut(BLOCK);
    let mut start = 0;
    for block in &mut blocks {
        let mut sums = [HALF; BLOCK];
        for (row, &weight) in rows.clone().zip(weights) {
            let values = &row.as_flattened()[start..start + BLOCK];
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += i32::from(value) * weight;
            }
        }
        for (out, sum) in block.iter_mut().zip(sums) {
            *out = clip(sum);
        }
        start += BLOCK;
    }
    for out in blocks.into_remainder() {
        let mut sum = HALF;
        for (row, &weight) in rows.clone().zip(weights) {
            sum += i32::from(row.as_flattened()[start]) * weight;
        }
        *out = clip(sum);
        start += 1;
    }
}

#[expect(clippy::inline_always, reason = "only code inlined into the dispatched closure is compiled for its features")]
#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
