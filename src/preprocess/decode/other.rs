//! PNG, WebP, GIF, BMP and TIFF, through the `image` crate.
//!
//! Alpha is dropped without compositing, as Pillow's `convert("RGB")` does, and 16-bit samples give their high byte. For
//! 16-bit gray Pillow instead clips everything above 255 to white, which no one wants: here it looks as it would in colour.
//! Where a GIF's first frame leaves part of its screen empty, that is black; in Pillow it has the background's colour.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::{PictureLimits, Row, unsupported};
use crate::error::{Error, Result};

/// A picture whose header has been read.
pub(super) struct Other<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    name: &'static str,
    max_bytes: u64,
    samples: Samples,
    orientation: Orientation,
}

/// How the samples of a pixel lie in the decoder's buffer.
#[derive(Debug, Clone, Copy)]
struct Samples {
    channels: usize,
    bytes: usize,
}

impl<'a> Other<'a> {
    pub(super) fn open(encoded: &'a [u8], format: ImageFormat, limits: &PictureLimits) -> Result<Self> {
        let name = match format {
            ImageFormat::Png => "PNG",
            ImageFormat::WebP => "WebP",
            ImageFormat::Gif => "GIF",
            ImageFormat::Bmp => "BMP",
            ImageFormat::Tiff => "TIFF",
            other => return Err(unsupported(&format!("the bytes are a picture of the format {other:?}, not one"))),
        };
        if format == ImageFormat::WebP {
            check_chunks(encoded)?;
        }
        let mut reader = ImageReader::with_format(Cursor::new(encoded), format);
        let mut decoder_limits = Limits::no_limits();
        decoder_limits.max_alloc = Some(limits.max_decode_bytes);
        reader.limits(decoder_limits);
        let mut decoder = reader.into_decoder().map_err(|error| refused(name, limits.max_decode_bytes, error))?;

        let (width, height) = decoder.dimensions();
        limits.check_size(width.into(), height.into())?;
        // The WebP decoder may hold four bytes a pixel beside the buffer it is given, the TIFF decoder the whole again.
        let beside = match format {
            ImageFormat::WebP => u64::from(width) * u64::from(height) * 4,
            ImageFormat::Tiff => decoder.total_bytes(),
            _ => 0,
        };
        limits.check_memory(decoder.total_bytes().saturating_add(beside))?;

        let color_type = decoder.color_type();
        let samples = match color_type {
            ColorType::L8 => Samples { channels: 1, bytes: 1 },
            ColorType::La8 => Samples { channels: 2, bytes: 1 },
            ColorType::Rgb8 => Samples { channels: 3, bytes: 1 },
            ColorType::Rgba8 => Samples { channels: 4, bytes: 1 },
            ColorType::L16 => Samples { channels: 1, bytes: 2 },
            ColorType::La16 => Samples { channels: 2, bytes: 2 },
            ColorType::Rgb16 => Samples { channels: 3, bytes: 2 },
            ColorType::Rgba16 => Samples { channels: 4, bytes: 2 },
            other => return Err(unsupported(&format!("the {name} holds {other:?} pixels, it is no picture"))),
        };
        // A picture is worth more than its note on how it was held.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let max_bytes = limits.max_decode_bytes;
        Ok(Self { decoder: Box::new(decoder), name, max_bytes, samples, orientation })
    }

    pub(super) fn size(&self) -> (usize, usize) {
        let (width, height) = self.decoder.dimensions();
        (width as usize, height as usize)
    }

    pub(super) fn orientation(&self) -> Orientation {
        self.orientation
    }

    pub(super) fn is_gray(&self) -> bool {
        self.samples.channels < 3
    }

    pub(super) fn read(self, mut sink: impl FnMut(Row<'_>)) -> Result<()> {
        let (width, _) = self.size();
        let Self { decoder, name, max_bytes, samples, .. } = self;
        let mut buffer = vec![0; decoder.total_bytes() as usize];
        decoder.read_image_boxed(&mut buffer).map_err(|error| refused(name, max_bytes, error))?;

        let Samples { channels, bytes } = samples;
        let high = if cfg!(target_endian = "little") { bytes - 1 } else { 0 };
        let rows = buffer.chunks_exact(width * channels * bytes);
        if channels < 3 {
            let mut gray = Vec::with_capacity(width);
            for row in rows {
                gray.clear();
                gray.extend(row.chunks_exact(channels * bytes).map(|pixel| [pixel[high]]));
                sink(Row::Gray(&gray));
            }
        } else {
            let mut color = Vec::with_capacity(width);
            for row in rows {
                color.clear();
                let pixels = row.chunks_exact(channels * bytes);
                color.extend(pixels.map(|pixel| [pixel[high], pixel[bytes + high], pixel[2 * bytes + high], 0]));
                sink(Row::Color(&color));
            }
        }
        Ok(())
    }
}

/// Refuses a WebP file one of whose chunks claims more bytes than the file has, which the decoder would allocate.
fn check_chunks(encoded: &[u8]) -> Result<()> {
    let mut rest = encoded.get(12..).unwrap_or_default();
    while let Some((header, data)) = rest.split_at_checked(8) {
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if size > data.len() {
            return Err(Error::invalid("the WebP is cut short: a chunk claims more bytes than there are"));
        }
        rest = data.get(size + size % 2..).unwrap_or_default();
    }
    Ok(())
}

fn refused(name: &str, max_bytes: u64, error: ImageError) -> Error {
    let refusal = match &error {
        ImageError::Limits(_) => {
            Error::too_large(format!("decoding the {name} would take more memory than the limit of {max_bytes} bytes"))
        }
        ImageError::Unsupported(_) => {
            Error::unsupported_media(format!("the {name} is of a kind that is not decoded here"))
        }
        _ => Error::invalid(format!("the {name} is broken or cut short")),
    };
    refusal.with_source(error)
}
