//! An archive's bytes after decompression, within bounds.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// How many times its packed size an archive may have, beyond what any may have: weights hardly shrink, and what does so a
/// thousandfold is made to fill a disk.
const MAX_RATIO: u64 = 100;
const FREE_BYTES: u64 = 64 << 20;
/// What a zstd frame may have the decoder keep.
const MAX_WINDOW_BYTES: u64 = 128 << 20;
/// Two blocks of zeros end an archive, as POSIX has it. The first of them is what its reader stops at.
const BLOCK_BYTES: u64 = 512;

/// Reads what is unpacked, until there is too much of it.
pub(super) struct Unpacked<'a> {
    reader: Box<dyn Read + 'a>,
    left: u64,
    max_bytes: u64,
    /// Whether all has been read, and more was asked for.
    has_ended: bool,
}

impl<'a> Unpacked<'a> {
    /// Looks at the first bytes for how `packed` is compressed: with gzip, with zstd or not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn new(packed: impl Read + 'a, packed_bytes: u64, max_bytes: u64) -> io::Result<Self> {
        let mut packed = BufReader::with_capacity(1 << 16, packed);
        let reader: Box<dyn Read + 'a> = match packed.fill_buf()? {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Zstd::new(packed)),
            _ => Box::new(packed),
        };
        let by_ratio = packed_bytes.saturating_mul(MAX_RATIO).saturating_add(FREE_BYTES);
        let max_bytes = max_bytes.min(by_ratio);
        Ok(Self { reader, left: max_bytes, max_bytes, has_ended: false })
    }

    /// Reads what is behind the last member, and refuses an archive that was cut off between two members, which looks whole but for
    /// this: that it does not say where it ends. Only at the very end does a compressed one prove to be what was compressed.
    ///
    /// # Errors
    /// When it is cut off or damaged.
    pub(super) fn expect_end(&mut self) -> io::Result<()> {
        let mut second = Vec::new();
        if !self.has_ended {
            self.by_ref().take(BLOCK_BYTES).read_to_end(&mut second)?;
        }
        if second.len() as u64 != BLOCK_BYTES || second.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off: it has no end"));
        }
        io::copy(self, &mut io::sink())?;
        Ok(())
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count as u64 > self.left {
            return Err(io::Error::other(format!("unpacked it has more than {} bytes", self.max_bytes)));
        }
        self.left -= count as u64;
        self.has_ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

/// Frame after frame of zstd, since some tools write many.
struct Zstd<R: Read> {
    packed: BufReader<R>,
    decoder: FrameDecoder,
    is_within: bool,
}

impl<R: Read> Zstd<R> {
    fn new(packed: BufReader<R>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES);
        Self { packed, decoder, is_within: false }
    }

    /// Begins the next frame that has something in it; `false` where there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.packed) {
                Ok(()) => {
                    self.is_within = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut self.packed.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(damaged(&error)),
            }
        }
        Ok(false)
    }

    fn end(&mut self) -> io::Result<()> {
        self.is_within = false;
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(said), Some(found)) if said != found => Err(damaged(&"its checksum is another")),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.is_within || self.begin()? {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded = self.decoder.decode_blocks(&mut self.packed, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(|error| damaged(&error))?;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            self.end()?;
        }
        Ok(0)
    }
}

fn damaged(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it cannot be decompressed: {error}"))
}
