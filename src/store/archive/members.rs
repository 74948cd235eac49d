//! The members of a tar archive, one after the other: what each is and where it says that it lies.
//!
//! The archive is read through the `tar` crate's raw entries, since its usual ones take names of any length into memory. So the
//! extended headers that GNU and POSIX have for long names are read here, within bounds.

use std::io::Read;

use tar::{Archive, EntryType, PaxExtensions};

use super::super::path::FilePath;
use crate::error::{Error, Result};

/// More than any model repository has, and no more than a list of them takes in memory.
pub(super) const MAX_MEMBERS: usize = 100_000;
/// What an extended header may have: several long names and some attributes.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// A member of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) path: FilePath,
    pub(super) kind: Kind,
}

/// What a member is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// Another name of the file at this path.
    HardLink(FilePath),
    /// What no model is made of, in words.
    Other(&'static str),
}

/// What extended headers say of the member behind them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: Option<u64>,
}

/// Has `take` see every member of the archive and read its content.
///
/// # Errors
/// `InvalidArgument` for what is no tar archive, and for a member that is not plain; else what `take` says.
pub(super) fn read(archive: impl Read, mut take: impl FnMut(Member, &mut dyn Read) -> Result<()>) -> Result<()> {
    let damaged = |error: std::io::Error| Error::invalid(format!("the archive cannot be read: {error}"));
    let mut archive = Archive::new(archive);
    let mut extended = Extended::default();
    let mut count = 0;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        count += 1;
        if count > MAX_MEMBERS {
            return Err(Error::invalid(format!("the archive has more than {MAX_MEMBERS} members")));
        }
        let header = entry.header().clone();
        let bytes = header.entry_size().map_err(damaged)?;
        let entry_type = header.entry_type();
        match entry_type {
            EntryType::GNULongName => extended.path = Some(name(&mut entry, bytes)?),
            EntryType::GNULongLink => extended.link = Some(name(&mut entry, bytes)?),
            EntryType::XHeader => extended.read_pax(&whole(&mut entry, bytes)?)?,
            // It is about all members, and says nothing of where they lie.
            EntryType::XGlobalHeader => {}
            _ => {
                let extended = std::mem::take(&mut extended);
                if extended.bytes.is_some_and(|other| other != bytes) {
                    // Readers disagree on which of the two counts, so that one could be shown what another does not see.
                    return Err(Error::invalid("a member of the archive has two different sizes"));
                }
                let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
                let link = extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
                let is_folder = path.ends_with(b"/");
                // The root itself, as `tar cf x.tar .` has it.
                let Some(path) = FilePath::of_member(&path)? else { continue };
                let kind = kind(entry_type, is_folder, link.as_deref(), &path)?;
                let mut content = entry.by_ref().take(bytes);
                let is_file = kind == Kind::File;
                take(Member { path, kind }, &mut content)?;
                if is_file && content.limit() > 0 && entry.read(&mut [0]).map_err(damaged)? == 0 {
                    return Err(Error::invalid("the archive is cut off within a file"));
                }
            }
        }
    }
    Ok(())
}

fn kind(entry_type: EntryType, is_folder: bool, link: Option<&[u8]>, path: &FilePath) -> Result<Kind> {
    Ok(match entry_type {
        // As archives were before there was a type for folders.
        EntryType::Regular if is_folder => Kind::Folder,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Link => {
            let target = FilePath::of_member(link.unwrap_or_default())?;
            Kind::HardLink(target.ok_or_else(|| Error::invalid(format!("{path} is a link to nothing")))?)
        }
        EntryType::Symlink => Kind::Other("a symbolic link"),
        EntryType::Char | EntryType::Block => Kind::Other("a device"),
        EntryType::Fifo => Kind::Other("a named pipe"),
        EntryType::GNUSparse => Kind::Other("a file with holes"),
        _ => Kind::Other("something of an unknown kind"),
    })
}

impl Extended {
    fn read_pax(&mut self, text: &[u8]) -> Result<()> {
        for extension in PaxExtensions::new(text) {
            let extension = extension.map_err(|_| Error::invalid("an extended header of the archive is damaged"))?;
            match extension.key_bytes() {
                b"path" => self.path = Some(extension.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(extension.value_bytes().to_vec()),
                b"size" => {
                    let bytes = extension.value().ok().and_then(|value| value.parse().ok());
                    self.bytes = Some(bytes.ok_or_else(|| Error::invalid("a member of the archive has no size"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(Error::invalid("the archive has a file with holes, which is not taken"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A name that is a member of its own, up to the zero that ends it.
fn name(entry: &mut impl Read, bytes: u64) -> Result<Vec<u8>> {
    let mut name = whole(entry, bytes)?;
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    Ok(name)
}

fn whole(entry: &mut impl Read, bytes: u64) -> Result<Vec<u8>> {
    if bytes > MAX_HEADER_BYTES {
        return Err(Error::invalid(format!("an extended header of the archive has {bytes} bytes")));
    }
    let mut content = Vec::new();
    let read = entry.take(bytes).read_to_end(&mut content);
    match read {
        Ok(count) if count as u64 == bytes => Ok(content),
        Ok(_) => Err(Error::invalid("the archive is cut off within a header")),
        Err(error) => Err(Error::invalid(format!("the archive cannot be read: {error}"))),
    }
}
