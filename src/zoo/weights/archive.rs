//! The zip archives of `torch.save`: entries stored as they are, aligned, with ZIP64 fields in large files.
//!
//! Only what PyTorch writes is read: no compression, no encryption, one file. An entry is a slice of the archive.
//! The format is PKWARE's APPNOTE 6.3.10; section numbers below are its own.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::{Error, Result};

/// How every archive begins: the signature of its first local header (4.3.7).
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

const DIRECTORY_HEADER: &[u8] = b"PK\x01\x02";
const DIRECTORY_END: &[u8] = b"PK\x05\x06";
const DIRECTORY_END_64: &[u8] = b"PK\x06\x06";
const DIRECTORY_END_64_LOCATOR: &[u8] = b"PK\x06\x07";

/// The end record without its comment (4.3.16), which has at most [`u16::MAX`] bytes.
const DIRECTORY_END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;

/// In a 16-bit or 32-bit field: the value is in the ZIP64 record.
const IN_ZIP64_16: u64 = 0xffff;
const IN_ZIP64_32: u64 = 0xffff_ffff;

/// An archive's entries by name.
#[derive(Debug)]
pub(super) struct Archive {
    bytes: Bytes,
    entries: BTreeMap<String, Entry>,
    /// What entries that are not read yet can have at most. Entries that share their bytes would make a small file cost the time
    /// of a large one.
    unread: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    method: u16,
    crc32: u32,
    size: u64,
    compressed_size: u64,
    header_offset: u64,
}

impl Archive {
    /// Reads the central directory of the archive `bytes`.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none, or it is damaged.
    pub(super) fn open(bytes: &Bytes) -> Result<Self> {
        let (count, mut position) = find_directory(bytes)?;
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let (name, entry, next) = read_directory_header(bytes, position)?;
            entries.insert(name, entry);
            position = next;
        }
        Ok(Self { bytes: bytes.clone(), entries, unread: bytes.len() as u64 })
    }

    /// The names of all entries.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The content of the entry `name`, `None` where there is no such entry. To be called once for each.
    ///
    /// # Errors
    /// `InvalidArgument` when it is compressed, lies outside the archive or in another entry, or its checksum is wrong.
    pub(super) fn file(&mut self, name: &str) -> Result<Option<Bytes>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if entry.method != 0 || entry.size != entry.compressed_size {
            return Err(Error::invalid(format!("the archive's entry {name} is compressed, which PyTorch never does")));
        }
        self.unread = self
            .unread
            .checked_sub(entry.size)
            .ok_or_else(|| Error::invalid(format!("the archive's entry {name} lies in other entries")))?;
        // The local header (4.3.7) repeats the name, and its extra field differs from the directory's.
        let header = record(&self.bytes, entry.header_offset, MAGIC, 30)?;
        let start = entry.header_offset + 30 + u64::from(u16_at(header, 26)) + u64::from(u16_at(header, 28));
        let content = range(&self.bytes, start, entry.size)
            .ok_or_else(|| Error::invalid(format!("the archive ends inside its entry {name}")))?;
        if crc32fast::hash(content) != entry.crc32 {
            return Err(Error::invalid(format!("the archive's entry {name} is damaged: its checksum is wrong")));
        }
        Ok(Some(self.bytes.slice_ref(content)))
    }
}

/// The number of entries, and where the first one's header is.
fn find_directory(bytes: &[u8]) -> Result<(u64, u64)> {
    let earliest = bytes.len().saturating_sub(DIRECTORY_END_BYTES + usize::from(u16::MAX));
    let position = (earliest..=bytes.len().saturating_sub(DIRECTORY_END_BYTES))
        .rev()
        .find(|&position| bytes[position..].starts_with(DIRECTORY_END))
        .ok_or_else(|| Error::invalid("the archive is cut off: its directory is missing"))?;
    let end = record(bytes, position as u64, DIRECTORY_END, DIRECTORY_END_BYTES as u64)?;
    let (count, offset) = (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 16)));
    if count != IN_ZIP64_16 && offset != IN_ZIP64_32 {
        return Ok((count, offset));
    }
    let locator = position
        .checked_sub(LOCATOR_BYTES)
        .ok_or_else(|| Error::invalid("the archive's directory has no place for its ZIP64 locator"))?;
    let locator = record(bytes, locator as u64, DIRECTORY_END_64_LOCATOR, LOCATOR_BYTES as u64)?;
    let end = record(bytes, u64_at(locator, 8), DIRECTORY_END_64, 56)?;
    Ok((u64_at(end, 32), u64_at(end, 48)))
}

/// One header of the central directory (4.3.12), and where the next one is.
fn read_directory_header(bytes: &[u8], position: u64) -> Result<(String, Entry, u64)> {
    let header = record(bytes, position, DIRECTORY_HEADER, 46)?;
    let [name_bytes, extra_bytes, comment_bytes] = [28, 30, 32].map(|offset| u64::from(u16_at(header, offset)));
    let damaged = || Error::invalid("the archive's directory is cut off");
    let name = range(bytes, position + 46, name_bytes).ok_or_else(damaged)?;
    let extra = range(bytes, position + 46 + name_bytes, extra_bytes).ok_or_else(damaged)?;
    let mut entry = Entry {
        method: u16_at(header, 10),
        crc32: u32_at(header, 16),
        compressed_size: u32_at(header, 20).into(),
        size: u32_at(header, 24).into(),
        header_offset: u32_at(header, 42).into(),
    };
    // The ZIP64 field (4.5.3) holds, in this order, only those values that did not fit.
    let mut wide = zip64_field(extra).as_chunks::<8>().0.iter();
    for field in [&mut entry.size, &mut entry.compressed_size, &mut entry.header_offset] {
        if *field == IN_ZIP64_32 {
            *field = wide.next().map(|&value| u64::from_le_bytes(value)).ok_or_else(damaged)?;
        }
    }
    let name = String::from_utf8_lossy(name).into_owned();
    Ok((name, entry, position + 46 + name_bytes + extra_bytes + comment_bytes))
}

/// The content of the extra field with the ZIP64 id 1, empty where there is none.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while extra.len() >= 4 {
        let (id, size) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(content) = extra.get(4..4 + size) else { break };
        if id == 1 {
            return content;
        }
        extra = &extra[4 + size..];
    }
    &[]
}

/// `size` bytes at `position`, which begin with `signature`.
fn record<'a>(bytes: &'a [u8], position: u64, signature: &[u8], size: u64) -> Result<&'a [u8]> {
    range(bytes, position, size)
        .filter(|record| record.starts_with(signature))
        .ok_or_else(|| Error::invalid(format!("the archive is damaged: there is no header at byte {position}")))
}

fn range(bytes: &[u8], start: u64, size: u64) -> Option<&[u8]> {
    let end = usize::try_from(start.checked_add(size)?).ok()?;
    bytes.get(usize::try_from(start).ok()?..end)
}

// The records that these read from are as long as their format says.
fn u16_at(record: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([record[offset], record[offset + 1]])
}

fn u32_at(record: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(record, offset)) | u32::from(u16_at(record, offset + 2)) << 16
}

fn u64_at(record: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(record, offset)) | u64::from(u32_at(record, offset + 4)) << 32
}
