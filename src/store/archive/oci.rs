//! An OCI image layout: index, manifest and layers, each held against its digest, and the files that the layers come to.
//!
//! The specification is opencontainers/image-spec: `image-layout.md`, `layer.md`.

use std::fs::File;
use std::io::{self, BufReader, Read};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::super::cache::Cache;
use super::super::location::LAYOUT_FILE;
use super::super::path::FilePath;
use super::super::tree::Digest;
use super::members::{self, Kind, Member};
use super::unpacked::Unpacked;
use super::{Files, MAX_DOCUMENT_BYTES, displace, store};
use crate::error::{Error, Result};

/// Before the name of a file of lower layers that is not in the image any more.
const WHITEOUT: &str = ".wh.";
/// Stands for all that lower layers have in its folder.
const OPAQUE: &str = ".wh..wh..opq";
/// Indexes of indexes there are, and no more.
const MAX_DEPTH: usize = 3;
const MAX_LAYERS: usize = 256;

/// Opens a file of the layout by its path in it.
pub(super) type Open<'a> = dyn Fn(&str) -> io::Result<File> + 'a;

/// An image layout with one image for this machine.
pub(super) struct Layout<'a> {
    open: &'a Open<'a>,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl<'a> Layout<'a> {
    /// Reads the layout's documents.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no layout, has other bytes than a digest says, or no image or several for this machine.
    pub(super) fn open(open: &'a Open<'a>) -> Result<Self> {
        let read = |name: &str| {
            let file = open(name).map_err(|error| Error::invalid(format!("{name} cannot be read: {error}")))?;
            bounded(name, file, MAX_DOCUMENT_BYTES)
        };
        read(LAYOUT_FILE)?;
        let index: Index = parse("index.json", &read("index.json")?)?;
        let layout = Self { open, layers: Vec::new() };
        let mut images = Vec::new();
        layout.images(index, 0, &mut images)?;
        let image = match images.as_slice() {
            [image] => image,
            [] => {
                let (os, architecture) = (this_machine().os, this_machine().architecture);
                return Err(Error::invalid(format!("there is no image for {os}/{architecture} in index.json")));
            }
            several => {
                return Err(Error::invalid(format!("there are {} images in index.json: keep one", several.len())));
            }
        };
        let manifest: Manifest = layout.document(image)?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(Error::invalid(format!("the image has more than {MAX_LAYERS} layers")));
        }
        Ok(Self { open, layers: manifest.layers })
    }

    /// Collects the manifests of the images that run on this machine.
    fn images(&self, index: Index, depth: usize, images: &mut Vec<Descriptor>) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::invalid(format!("the image's indexes are nested more than {MAX_DEPTH} deep")));
        }
        // Attestations stand among the images as such of an unknown platform.
        let fits = |descriptor: &Descriptor| descriptor.platform.as_ref().is_none_or(|other| *other == this_machine());
        for descriptor in index.manifests.into_iter().filter(fits) {
            if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
                self.images(self.document(&descriptor)?, depth + 1, images)?;
            } else if !images.iter().any(|image| image.digest == descriptor.digest) {
                images.push(descriptor);
            }
        }
        Ok(())
    }

    fn document<T: for<'de> Deserialize<'de>>(&self, descriptor: &Descriptor) -> Result<T> {
        let (digest, blob) = self.blob(descriptor)?;
        let bytes = bounded(&descriptor.digest, blob, MAX_DOCUMENT_BYTES)?;
        expect(descriptor, &digest, &Digest::of(&Sha256::digest(&bytes)), bytes.len() as u64)?;
        parse(&descriptor.digest, &bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<(Digest, File)> {
        let digest = descriptor.digest.strip_prefix("sha256:").and_then(Digest::parse);
        let digest = digest.ok_or_else(|| {
            Error::invalid(format!("the digest `{}` is no SHA-256", descriptor.digest.escape_debug()))
        })?;
        let blob = (self.open)(&format!("blobs/sha256/{digest}"));
        let blob = blob.map_err(|error| Error::invalid(format!("the blob {digest} cannot be read: {error}")))?;
        Ok((digest, blob))
    }

    /// The files that the layers have in `folder`, after what upper ones take away from lower ones.
    ///
    /// # Errors
    /// `InvalidArgument` for a layer with other bytes than its digest says, one that is no archive, and files that are not plain.
    pub(super) fn files(&self, folder: &str, max_bytes: u64, cache: &Cache) -> Result<Files> {
        let mut files = Files::new();
        let mut left = max_bytes;
        for descriptor in &self.layers {
            let layer = self.layer(descriptor, &files, folder, left, cache)?;
            left = left.saturating_sub(layer.files.values().map(|file| file.bytes).sum());
            layer.put_onto(&mut files);
        }
        Ok(files)
    }

    fn layer(
        &self,
        descriptor: &Descriptor,
        lower: &Files,
        folder: &str,
        max_bytes: u64,
        cache: &Cache,
    ) -> Result<Layer> {
        if !descriptor.media_type.contains("tar") {
            let media_type = descriptor.media_type.escape_debug();
            return Err(Error::invalid(format!(
                "a layer is `{media_type}`: models come in layers that are tar archives"
            )));
        }
        let (digest, blob) = self.blob(descriptor)?;
        let mut blob = Hashed { reader: BufReader::new(blob), hash: Sha256::new(), bytes: 0 };
        let mut layer = Layer::default();
        let wrong = |error: io::Error| Error::invalid(format!("the layer {digest}: {error}"));
        let read = Unpacked::new(&mut blob, descriptor.size, max_bytes).map_err(wrong).and_then(|unpacked| {
            members::read(unpacked, |member, content| layer.take(member, content, lower, folder, cache))
        });
        // The digest is that of all bytes, of those behind the archive's end too. Where it is another, that is what is wrong.
        io::copy(&mut blob, &mut io::sink()).map_err(wrong)?;
        expect(descriptor, &digest, &Digest::of(&blob.hash.finalize()), blob.bytes)?;
        read.map_err(|error| error.map_message(|said| format!("the layer {digest}: {said}")))?;
        Ok(layer)
    }
}

/// What a layer does to those below it.
#[derive(Default)]
struct Layer {
    files: Files,
    folders: Vec<FilePath>,
    /// Paths that go, with all below them.
    gone: Vec<FilePath>,
    /// Folders of which only this layer's files stay.
    emptied: Vec<String>,
}

impl Layer {
    fn take(
        &mut self,
        member: Member,
        content: &mut dyn Read,
        lower: &Files,
        folder: &str,
        cache: &Cache,
    ) -> Result<()> {
        let (parent, name) = member.path.split_last();
        if name == OPAQUE {
            self.emptied.push(parent.to_owned());
            return Ok(());
        }
        if let Some(name) = name.strip_prefix(WHITEOUT) {
            let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
            self.gone.push(FilePath::parse(&path)?);
            return Ok(());
        }
        let is_above = folder == member.path.as_str() || folder.starts_with(&format!("{}/", member.path));
        if is_above && !matches!(member.kind, Kind::Folder) {
            return Err(Error::invalid(format!("{} is no folder, and models lie in /{folder}", member.path)));
        }
        let Some(below) = member.path.below(folder) else { return Ok(()) };
        match member.kind {
            Kind::Folder => {
                displace(&mut self.files, &member.path, false);
                self.folders.push(member.path);
            }
            Kind::File if below.is_hidden() => {}
            Kind::File => {
                let file = store(&member.path, content, cache)?;
                displace(&mut self.files, &member.path, true);
                self.files.insert(member.path, file);
            }
            Kind::HardLink(target) => {
                let file = self.files.get(&target).or_else(|| lower.get(&target)).cloned().ok_or_else(|| {
                    Error::invalid(format!("{} is a link to {target}, which is not among the models", member.path))
                })?;
                displace(&mut self.files, &member.path, true);
                self.files.insert(member.path, file);
            }
            Kind::Other(what) => {
                return Err(Error::invalid(format!("{} is {what}: models have files and folders", member.path)));
            }
        }
        Ok(())
    }

    fn put_onto(self, files: &mut Files) {
        let goes = |path: &FilePath| {
            self.gone.iter().any(|gone| path == gone || path.below(gone.as_str()).is_some())
                || self.emptied.iter().any(|folder| path.below(folder).is_some())
        };
        files.retain(|path, _| !goes(path));
        for folder in &self.folders {
            displace(files, folder, false);
        }
        for (path, file) in self.files {
            displace(files, &path, true);
            files.insert(path, file);
        }
    }
}

/// Hashes what is read.
struct Hashed<R> {
    reader: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

fn expect(descriptor: &Descriptor, digest: &Digest, found: &Digest, bytes: u64) -> Result<()> {
    if found != digest || bytes != descriptor.size {
        return Err(Error::invalid(format!(
            "the blob {digest} is another: it has {bytes} bytes of {} and the SHA-256 {found}",
            descriptor.size
        )));
    }
    Ok(())
}

fn bounded(name: &str, file: File, max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = file.take(max_bytes + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::invalid(format!("{name} cannot be read: {error}")))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::invalid(format!("{name} has more than {max_bytes} bytes")));
    }
    Ok(bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("{name} is no document of an image: {error}")))
}

/// As Go calls it, and with it the specification. Images for Linux run wherever this does, since nothing in them is executed.
fn this_machine() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { os: "linux".to_owned(), architecture: architecture.to_owned() }
}
