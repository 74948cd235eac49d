//! Rows in, resampled rows out.

use pulp::Arch;

use super::passes::{AcrossRows, AlongX};
use super::taps::Taps;

/// A two-pass resize of a stream of rows of `C` interleaved 8-bit channels: 1, or 4 of which the last is padding, since
/// pixels of four bytes are what SIMD likes.
///
/// The passes go along x and then y, or along y and then x, which is the order that a picture needs that lies on its side:
/// its columns are the rows of the picture that is meant.
pub(in crate::preprocess) struct Stream<const C: usize> {
    along_x: Taps,
    along_y: Taps,
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

impl<const C: usize> Stream<C> {
    /// A stream of rows that resamples each along x with `along_x` and across rows with `along_y`.
    pub(in crate::preprocess) fn new(along_x: Taps, along_y: Taps, x_first: bool) -> Self {
        let source = along_x.source();
        let (window_left, window_width) = if x_first { (0, along_x.len()) } else { (source.start, source.len()) };
        Self {
            x_first,
            window: vec![[0; C]; window_width * along_y.width()],
            window_width,
            window_left,
            vertical: vec![[0; C]; window_width],
            horizontal: vec![[0; C]; if x_first { 0 } else { along_x.len() }],
            along_x,
            along_y,
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
        let capacity = self.along_y.width();
        let slot = &mut self.window[y % capacity * self.window_width..][..self.window_width];
        if self.x_first {
            self.arch.dispatch(AlongX { row, left: 0, taps: &self.along_x, out: slot });
        } else {
            slot.copy_from_slice(&row[self.window_left..][..self.window_width]);
        }

        while self.rows_out < self.along_y.len() {
            let index = self.along_y.in_source_order(self.rows_out);
            let (sources, weights) = self.along_y.get(index);
            if sources.end > y + 1 {
                return;
            }
            let rows =
                sources.map(|y| self.window[y % capacity * self.window_width..][..self.window_width].as_flattened());
            self.arch.dispatch(AcrossRows { rows, weights, out: self.vertical.as_flattened_mut() });
            if self.x_first {
                emit(index, &self.vertical);
            } else {
                let out = &mut self.horizontal;
                let taps = &self.along_x;
                self.arch.dispatch(AlongX { row: &self.vertical, left: self.window_left, taps, out });
                emit(index, &self.horizontal);
            }
            self.rows_out += 1;
        }
    }
}
