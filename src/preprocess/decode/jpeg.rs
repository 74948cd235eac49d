//! JPEG, through libjpeg-turbo's decoder in mozjpeg.
//!
//! With the accurate integer DCT and smooth chroma upsampling, which are the defaults, the pixels are Pillow's to the bit.
//!
//! libjpeg reports a fatal error by unwinding out of C, so every call into it is inside [`guarded`]; the crate must not be
//! built with `panic = "abort"`. What libjpeg calls a warning (bits that make no sense, padded over) passes as it does in
//! Pillow, with one exception: a file that ends too soon is refused, as Pillow refuses it.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use image::metadata::Orientation;
use mozjpeg::decompress::DecompressStarted;
use mozjpeg::{ColorSpace, CompInfoExt, Decompress, Marker};

use super::{Eighths, PictureLimits, Row};
use crate::error::{Error, Result};

/// The most scans of a file that has to be read whole before its first row is known. Encoders write 10 or so; a scan costs a
/// pass over the picture but hardly a byte of the file, so the number must have an end.
const MAX_SCANS: usize = 64;

/// A JPEG whose header has been read.
pub(super) struct Jpeg<'a> {
    decompress: Decompress<Source<'a>>,
    exhausted: Rc<Cell<bool>>,
    kind: Kind,
    orientation: Orientation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gray,
    Color,
    /// Four inks, stored inverted as Adobe's programs store them: Pillow takes all to be so.
    Cmyk,
}

impl<'a> Jpeg<'a> {
    pub(super) fn open(encoded: &'a [u8], limits: &PictureLimits) -> Result<Self> {
        let exhausted = Rc::new(Cell::new(false));
        let source = Source { rest: encoded, exhausted: Rc::clone(&exhausted) };
        let decompress = guarded(|| Decompress::builder().with_markers(&[Marker::APP(1)]).from_reader(source))?;
        let (width, height) = decompress.size();
        limits.check_size(width as u64, height as u64)?;

        let kind = match decompress.components().len() {
            1 => Kind::Gray,
            3 => Kind::Color,
            4 => Kind::Cmyk,
            count => return Err(Error::invalid(format!("the JPEG has {count} components, not 1, 3 or 4"))),
        };
        if let Some(scans) = buffered_scans(encoded) {
            if scans > MAX_SCANS {
                let message = format!("the JPEG has {scans} scans, the limit is {MAX_SCANS}");
                return Err(Error::too_large(message));
            }
            // 64 coefficients of two bytes a block, all of which libjpeg holds until the last scan is read.
            let blocks = |component: &mozjpeg::CompInfo| component.width_in_blocks() * component.height_in_blocks();
            let bytes: usize = decompress.components().iter().map(|component| blocks(component) * 128).sum();
            limits.check_memory(bytes as u64)?;
        }
        let orientation = decompress
            .markers()
            .find_map(|marker| Orientation::from_exif_chunk(marker.data.strip_prefix(b"Exif\0\0")?))
            .unwrap_or(Orientation::NoTransforms);
        Ok(Self { decompress, exhausted, kind, orientation })
    }

    pub(super) fn size(&self) -> (usize, usize) {
        self.decompress.size()
    }

    pub(super) fn orientation(&self) -> Orientation {
        self.orientation
    }

    pub(super) fn is_gray(&self) -> bool {
        self.kind == Kind::Gray
    }

    pub(super) fn read(self, share: Eighths, sink: impl FnMut(Row<'_>)) -> Result<()> {
        let Self { mut decompress, exhausted, kind, .. } = self;
        guarded(move || {
            if share != Eighths::ALL {
                decompress.scale(share.0);
            }
            match kind {
                Kind::Gray => read_gray(decompress.grayscale()?, sink),
                Kind::Color => read_color(decompress.to_colorspace(ColorSpace::JCS_EXT_RGBX)?, sink),
                Kind::Cmyk => read_cmyk(decompress.to_colorspace(ColorSpace::JCS_CMYK)?, sink),
            }
        })?;
        if exhausted.get() {
            return Err(Error::invalid("the JPEG is cut short: its bytes end before its picture does"));
        }
        Ok(())
    }
}

type Started<'a> = DecompressStarted<Source<'a>>;

fn read_gray(mut started: Started<'_>, mut sink: impl FnMut(Row<'_>)) -> io::Result<()> {
    let mut row = vec![[0; 1]; started.width()];
    for _ in 0..started.height() {
        started.read_scanlines_into(row.as_flattened_mut())?;
        sink(Row::Gray(&row));
    }
    Ok(())
}

fn read_color(mut started: Started<'_>, mut sink: impl FnMut(Row<'_>)) -> io::Result<()> {
    let mut row = vec![[0; 4]; started.width()];
    for _ in 0..started.height() {
        started.read_scanlines_into(row.as_flattened_mut())?;
        sink(Row::Color(&row));
    }
    Ok(())
}

fn read_cmyk(started: Started<'_>, mut sink: impl FnMut(Row<'_>)) -> io::Result<()> {
    let mut rgb = Vec::with_capacity(started.width());
    read_color(started, |row| {
        if let Row::Color(inverted) = row {
            rgb.clear();
            rgb.extend(
                inverted.iter().map(|&[c, m, y, k]| [c, m, y].map(|ink| cover(k, ink))).map(|[r, g, b]| [r, g, b, 0]),
            );
            sink(Row::Color(&rgb));
        }
    })
}

/// What is left of the paper's light under an ink and black, both inverted: Pillow's rounding of `k * ink / 255`.
fn cover(black: u8, ink: u8) -> u8 {
    let product = u32::from(black) * u32::from(255 - ink) + 128;
    let darkened = ((product >> 8) + product) >> 8;
    black.saturating_sub(darkened as u8)
}

/// The bytes, and whether more of them were asked for than there are.
///
/// libjpeg makes up an end-of-image marker at the end of its input and goes on with gray; only its source can tell.
struct Source<'a> {
    rest: &'a [u8],
    exhausted: Rc<Cell<bool>>,
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.rest.read(into)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.exhausted.set(true);
        }
        Ok(self.rest)
    }

    fn consume(&mut self, count: usize) {
        self.rest.consume(count);
    }
}

/// Runs `work`, which calls into libjpeg, and makes its unwinding an error. Any other panic goes on.
fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> Result<T> {
    // What `work` touches is gone with it, or is only looked at once it has succeeded.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| Error::invalid("the JPEG is broken").with_source(error)),
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => match message.strip_prefix("libjpeg fatal error: ") {
                Some(reason) => Err(Error::invalid(format!("the JPEG is broken: {reason}"))),
                None => resume_unwind(message),
            },
            Err(panic) => resume_unwind(panic),
        },
    }
}

/// The number of scans, if libjpeg has to hold the whole picture's coefficients to decode it: when it is progressive, or
/// its first scan lacks a component.
///
/// libjpeg's safe interface does not tell, so the markers are walked here by its own rules, up to the end of the image:
/// what telephones append to a picture is none of it.
fn buffered_scans(encoded: &[u8]) -> Option<usize> {
    let mut rest = encoded.get(2..)?;
    let (mut buffered, mut components, mut scans) = (false, 0, 0);
    while let Some((marker, segment)) = next_segment(&mut rest) {
        match marker {
            0xC0 | 0xC1 => components = segment.get(5).copied().unwrap_or(0),
            0xC2 => buffered = true,
            0xDA => {
                scans += 1;
                buffered |= segment.first().is_some_and(|&of_scan| of_scan < components);
                if !buffered {
                    return None;
                }
            }
            0xD9 => break,
            _ => {}
        }
    }
    buffered.then_some(scans)
}

/// The next marker and what belongs to it, skipping coded data and whatever else is none.
fn next_segment<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let start = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xFF))?;
    let (marker, after) = (rest[start + 1], &rest[start + 2..]);
    // TEM, RSTn, SOI and EOI stand alone; every other marker is followed by a length that counts its own two bytes.
    if matches!(marker, 0x01 | 0xD0..=0xD9) {
        *rest = after;
        return Some((marker, &[]));
    }
    let length = usize::from(u16::from_be_bytes(after.first_chunk().copied()?));
    let (segment, after) = after.split_at_checked(length.max(2))?;
    *rest = after;
    Some((marker, &segment[2..]))
}
