//! Pillow's resampler, to the bit, over a stream of rows.
//!
//! Pillow resamples 8-bit pictures in two passes, one along x and one along y, with coefficients in fixed point of 22
//! fractional bits and a rounding to 8 bits after each pass. The same is done here, so the result is the same, but nothing
//! ever holds the whole picture: rows come in as they are decoded, and each row that is complete goes out.
//!
//! `taps` says which pixels of a line make which pixel of the result, `passes` computes lines, `stream` lines up the passes. Neither knows where rows come
//! from or what becomes of them.

mod passes;
mod stream;
mod taps;

pub(super) use stream::Stream;
pub(super) use taps::{Line, Taps};
