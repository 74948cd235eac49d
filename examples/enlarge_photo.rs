//! Enlarges a JPEG for benchmarks, which need pictures of given sizes and no photograph is in the tree:
//! `cargo run --release --example enlarge_photo -- IN.jpg OUT.jpg WIDTH HEIGHT`.
//!
//! The photograph is interpolated and given a grain of seeded noise, so that the file has about as many bytes per pixel as a
//! camera's; the result is the same for the same input everywhere.

use std::error::Error;
use std::io::Cursor;

/// About what cameras write.
const QUALITY: f32 = 90.0;
/// The grain's amplitude, in values of 0 to 255.
const GRAIN: f32 = 12.0;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, width, height] = arguments.as_slice() else {
        return Err("usage: enlarge_photo IN.jpg OUT.jpg WIDTH HEIGHT".into());
    };
    let (width, height): (usize, usize) = (width.parse()?, height.parse()?);

    let file = std::fs::read(input)?;
    let mut photo = mozjpeg::Decompress::new_mem(&file)?.rgb()?;
    let (from_width, from_height) = (photo.width(), photo.height());
    let pixels: Vec<[u8; 3]> = photo.read_scanlines()?;

    let mut noise = Noise(1);
    let mut enlarged = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let (left, right, across) = neighbours(x, width, from_width);
            let (top, bottom, down) = neighbours(y, height, from_height);
            let grain = noise.next() * GRAIN;
            for channel in [0, 1, 2] {
                let at = |x: usize, y: usize| f32::from(pixels[y * from_width + x][channel]);
                let upper = at(left, top) * (1.0 - across) + at(right, top) * across;
                let lower = at(left, bottom) * (1.0 - across) + at(right, bottom) * across;
                let value = upper * (1.0 - down) + lower * down + grain;
                enlarged.push(value.round().clamp(0.0, 255.0) as u8);
            }
        }
    }

    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    compress.set_fastest_defaults();
    compress.set_size(width, height);
    compress.set_quality(QUALITY);
    let mut writer = compress.start_compress(Cursor::new(Vec::new()))?;
    writer.write_scanlines(&enlarged)?;
    std::fs::write(output, writer.finish()?.into_inner())?;
    Ok(())
}

/// The two source coordinates that `x` of `to` lies between, and how far it is from the first to the second.
fn neighbours(x: usize, to: usize, from: usize) -> (usize, usize, f32) {
    let position = x as f32 * (from - 1) as f32 / (to - 1).max(1) as f32;
    let first = position as usize;
    (first, (first + 1).min(from - 1), position.fract())
}

/// A xorshift generator: benchmarks need the same grain everywhere, not good randomness.
struct Noise(u32);

impl Noise {
    /// The next value, from -0.5 to 0.5.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as f32 / u32::MAX as f32 - 0.5
    }
}
