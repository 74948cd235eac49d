//! Encoded bytes to rows of pixels.
//!
//! A [`Picture`] is opened first, which reads its header and checks what that declares against the limits, and read after,
//! row by row from the top, in the file's own orientation. Nothing here knows what the pixels are for.

mod jpeg;
mod other;

use image::ImageFormat;
use image::metadata::Orientation;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How much picture is decoded. All of it is checked against what the file's header declares, before pixels are
/// allocated, and exceeding it is `PayloadTooLarge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PictureLimits {
    /// The most pixels, width times height. Default 100,000,000: above what cameras and telephones give in daily use (12
    /// to 50 million), below what a decompression bomb needs.
    pub max_pixels: u64,
    /// The most memory that decoding one picture may take, in bytes. Default 268,435,456 (256 MiB). A baseline JPEG is
    /// decoded row by row and takes next to none; a progressive one takes 3 to 6 bytes a pixel for its coefficients, and
    /// the other formats 1 to 8.
    pub max_decode_bytes: u64,
}

impl Default for PictureLimits {
    fn default() -> Self {
        Self { max_pixels: 100_000_000, max_decode_bytes: 256 << 20 }
    }
}

impl PictureLimits {
    /// No side may be longer: it is what JPEG can say, and bounds the resampler's tables for pictures of one pixel's height.
    const MAX_SIDE: u64 = 65_535;

    fn check_size(&self, width: u64, height: u64) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::invalid(format!("the picture's size is {width}×{height}: it has no pixels")));
        }
        let pixels = width.saturating_mul(height);
        if pixels > self.max_pixels {
            let limit = self.max_pixels;
            let message = format!("the picture's {width}×{height} are {pixels} pixels, the limit is {limit}");
            return Err(Error::too_large(message));
        }
        if width.max(height) > Self::MAX_SIDE {
            let message = format!("the picture is {width}×{height}, the limit is {} to a side", Self::MAX_SIDE);
            return Err(Error::too_large(message));
        }
        Ok(())
    }

    fn check_memory(&self, bytes: u64) -> Result<()> {
        if bytes > self.max_decode_bytes {
            let limit = self.max_decode_bytes;
            let message = format!("decoding the picture would take {bytes} bytes of memory, the limit is {limit}");
            return Err(Error::too_large(message));
        }
        Ok(())
    }
}

/// A share of the full size at which a JPEG can be decoded, in eighths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Eighths(pub(super) u8);

impl Eighths {
    /// The whole.
    pub(super) const ALL: Self = Self(8);
    /// What libjpeg has fast code for, smallest first.
    pub(super) const FAST: [Self; 4] = [Self(1), Self(2), Self(4), Self::ALL];

    /// The pixels of a side of `pixels` when it is decoded at this share: a part of a pixel counts as one.
    pub(super) fn of(self, pixels: usize) -> usize {
        (pixels * usize::from(self.0)).div_ceil(8)
    }
}

/// A row of pixels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row<'a> {
    /// Luma.
    Gray(&'a [[u8; 1]]),
    /// Red, green, blue, and a byte of padding.
    Color(&'a [[u8; 4]]),
}

/// A picture whose header has been read and found to be within the limits.
pub(super) struct Picture<'a>(Format<'a>);

enum Format<'a> {
    Jpeg(Box<jpeg::Jpeg<'a>>),
    Other(other::Other<'a>),
}

impl<'a> Picture<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// `UnsupportedMedia` when the bytes are no picture of a format that is decoded here, `InvalidArgument` when they are
    /// a broken one, `PayloadTooLarge` when the header declares more than `limits` allow.
    pub(super) fn open(encoded: &'a [u8], limits: &PictureLimits) -> Result<Self> {
        match image::guess_format(encoded) {
            Ok(ImageFormat::Jpeg) => Ok(Self(Format::Jpeg(Box::new(jpeg::Jpeg::open(encoded, limits)?)))),
            Ok(format) => Ok(Self(Format::Other(other::Other::open(encoded, format, limits)?))),
            Err(_) if encoded.is_empty() => Err(Error::invalid("the picture has no bytes")),
            Err(_) => Err(unsupported("the bytes are not a picture")),
        }
    }

    /// Width and height in pixels, as the file has them.
    pub(super) fn size(&self) -> (usize, usize) {
        match &self.0 {
            Format::Jpeg(picture) => picture.size(),
            Format::Other(picture) => picture.size(),
        }
    }

    /// How to turn the picture upright.
    pub(super) fn orientation(&self) -> Orientation {
        match &self.0 {
            Format::Jpeg(picture) => picture.orientation(),
            Format::Other(picture) => picture.orientation(),
        }
    }

    /// Whether its rows are [`Row::Gray`].
    pub(super) fn is_gray(&self) -> bool {
        match &self.0 {
            Format::Jpeg(picture) => picture.is_gray(),
            Format::Other(picture) => picture.is_gray(),
        }
    }

    /// Whether it can be decoded at less than its size.
    pub(super) fn is_scalable(&self) -> bool {
        matches!(self.0, Format::Jpeg(_))
    }

    /// Decodes at `share` of the size, [`Eighths::ALL`] unless it is scalable, and gives `sink` each row.
    ///
    /// # Errors
    /// `InvalidArgument` when the picture is broken or cut short.
    pub(super) fn read(self, share: Eighths, sink: impl FnMut(Row<'_>)) -> Result<()> {
        match self.0 {
            Format::Jpeg(picture) => picture.read(share, sink),
            Format::Other(picture) => picture.read(sink),
        }
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported_media(format!("{what} that is decoded here: JPEG, PNG, WebP, GIF, BMP and TIFF are"))
}
