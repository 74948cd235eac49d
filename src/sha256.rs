//! SHA-256 of what is read, and as it is written down.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Adds all that `reader` still has to `hash`, and returns how many bytes that were.
///
/// # Errors
/// When it cannot be read.
pub fn update(hash: &mut Sha256, reader: &mut impl Read) -> io::Result<u64> {
    io::copy(reader, &mut Hasher(hash))
}

/// The hash of what is in the file at `path`.
///
/// # Errors
/// When it cannot be read.
pub fn of_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    update(&mut hash, &mut File::open(path)?)?;
    Ok(hash.finalize().into())
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

/// Writes into a hash.
struct Hasher<'a>(&'a mut Sha256);

impl Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
