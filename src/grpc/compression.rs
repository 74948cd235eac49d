//! Compressed messages on their way in, undone before tonic sees them.
//!
//! tonic would undo them too, but in a buffer as large as a stream's largest message, which it keeps for as long as the stream is
//! open and which shows nowhere: a few kilobytes on each of many streams would take all memory there is. Here every byte counts
//! against the server's bound before there is room for it.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use hyper::HeaderMap;

use super::messages::MessageBytes;
use crate::error::{Error, Result};

/// The header that names a call's encoding.
pub(super) const ENCODING: &str = "grpc-encoding";

/// What comes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// How much is decompressed at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// The encodings that are taken.
#[derive(Debug, Clone, Copy)]
enum Encoding {
    Gzip,
    Deflate,
}

/// Undoes the compression of one call's messages.
#[derive(Debug)]
pub(super) struct Decompressor {
    encoding: Encoding,
    max_message_bytes: usize,
    /// What has arrived of the next message, and perhaps of further ones.
    arrived: BytesMut,
    /// The message whose prefix has been given out.
    message: Bytes,
}

impl Decompressor {
    /// For a call with these headers; `None` where they name no encoding that is taken.
    pub(super) fn of(headers: &HeaderMap, max_message_bytes: usize) -> Option<Self> {
        let encoding = match headers.get(ENCODING)?.as_bytes() {
            b"gzip" => Encoding::Gzip,
            b"deflate" => Encoding::Deflate,
            _ => return None,
        };
        Some(Self { encoding, max_message_bytes, arrived: BytesMut::new(), message: Bytes::new() })
    }

    /// Takes what has arrived.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.arrived.extend_from_slice(data);
    }

    /// The next prefix or message, uncompressed, once it has arrived. Its size is counted into `bytes` as it grows. They come one by
    /// one because tonic makes as much room as the prefix says beside what it has: together they would take twice as much.
    ///
    /// # Errors
    /// `PayloadTooLarge` beyond the limit, `Overloaded` when there is no room for it, `InvalidArgument` when it is not what
    /// its flag says.
    pub(super) fn next(&mut self, bytes: &MessageBytes) -> Result<Option<Bytes>> {
        if !self.message.is_empty() {
            return Ok(Some(std::mem::take(&mut self.message)));
        }
        let Some((&flag, length)) = self.arrived.split_first_chunk::<PREFIX_BYTES>().map(|(prefix, _)| {
            let [flag, length @ ..] = prefix;
            (flag, u32::from_be_bytes(*length) as usize)
        }) else {
            return Ok(None);
        };
        if length > self.max_message_bytes {
            return Err(self.too_large());
        }
        if self.arrived.len() - PREFIX_BYTES < length {
            return Ok(None);
        }
        let arrived = self.arrived.split_to(PREFIX_BYTES + length).freeze();
        self.message = if flag == 1 { self.undo(&arrived[PREFIX_BYTES..], bytes)? } else { arrived };
        Ok(Some(self.message.split_to(PREFIX_BYTES)))
    }

    /// What is left when nothing more comes: part of a message, or nothing.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        Some(self.arrived.split().freeze()).filter(|rest| !rest.is_empty())
    }

    fn undo(&self, compressed: &[u8], bytes: &MessageBytes) -> Result<Bytes> {
        let mut reader: Box<dyn Read + '_> = match self.encoding {
            Encoding::Gzip => Box::new(GzDecoder::new(compressed)),
            Encoding::Deflate => Box::new(ZlibDecoder::new(compressed)),
        };
        let mut message = BytesMut::zeroed(PREFIX_BYTES);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = reader.read(&mut chunk).map_err(|error| {
                Error::invalid("a message is not compressed as grpc-encoding says").with_source(error)
            })?;
            if count == 0 {
                break;
            }
            if message.len() - PREFIX_BYTES + count > self.max_message_bytes {
                return Err(self.too_large());
            }
            bytes.grow(count)?;
            message.extend_from_slice(&chunk[..count]);
        }
        let length = u32::try_from(message.len() - PREFIX_BYTES).map_err(|_| self.too_large())?;
        (&mut message[1..PREFIX_BYTES]).put_u32(length);
        Ok(message.freeze())
    }

    fn too_large(&self) -> Error {
        Error::too_large(format!("a message has more than {} bytes", self.max_message_bytes))
    }
}
