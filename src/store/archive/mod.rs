//! Models out of a tar archive or an OCI image.
//!
//! Nothing is unpacked to where an archive says: each file's bytes go into the cache under their SHA-256, and its path is an entry
//! in a map, so that a path, a link or a device can at worst be refused.

mod members;
mod oci;
#[cfg(test)]
mod tests;
mod unpacked;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use tracing::warn;

use self::members::{Kind, Member};
use self::oci::Layout;
use self::unpacked::Unpacked;
use super::cache::Cache;
use super::location::LAYOUT_FILE;
use super::path::FilePath;
use super::tree::{File, MAX_SUMS_BYTES, SUMS_FILE, Tree, check_sums, parse_sums};
use crate::error::{Error, Result};

/// Where an image has its models, as KServe's modelcars do.
const MODELS_FOLDER: &str = "models";
/// What a manifest or an index of an image may have.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// How an archive is read.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// The most bytes that it may have, unpacked.
    pub(super) max_bytes: u64,
    /// The folder of models in it; where absent, the usual one.
    pub(super) path: Option<String>,
}

/// The files of an archive or an image's layers, by their path in it.
type Files = BTreeMap<FilePath, File>;

/// The models in the archive at `path`, their files in `cache`; there may be none.
///
/// # Errors
/// `NotFound` where there is no such file, `InvalidArgument` for one that is damaged, hostile or too large, `Unavailable` where the
/// cache cannot be written.
pub(super) fn read_archive(path: &Path, options: &Options, cache: &Cache) -> Result<BTreeMap<String, Tree>> {
    let file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let packed_bytes = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    let mut unpacked = Unpacked::new(file, packed_bytes, options.max_bytes).map_err(|error| wrong(path, &error))?;
    let mut files = Files::new();
    let in_words = |error: Error| error.map_message(|said| format!("{}: {said}", path.display()));
    members::read(&mut unpacked, |member, content| take(&mut files, member, content, cache)).map_err(in_words)?;
    unpacked.expect_end().map_err(|error| wrong(path, &error))?;
    let file_named = |name: &str| files.iter().find(|(path, _)| path.as_str() == name);
    if file_named(LAYOUT_FILE).is_some() {
        let open = |name: &str| match file_named(name) {
            Some((_, file)) => fs::File::open(cache.blob(&file.sha256)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        return image(&open, options, cache).map_err(in_words);
    }
    if file_named("manifest.json").is_some() && files.keys().any(|path| path.as_str().ends_with("/layer.tar")) {
        return Err(in_words(Error::invalid(
            "it is an image of the old form: save it with Docker 25 or later, or with skopeo",
        )));
    }
    let folder = options.path.clone().unwrap_or_else(|| usual_folder(&files).to_owned());
    models(&files, &folder, cache).map_err(in_words)
}

/// The models in the OCI image layout in `folder`; else as [`read_archive`].
///
/// # Errors
/// As [`read_archive`].
pub(super) fn read_layout(folder: &Path, options: &Options, cache: &Cache) -> Result<BTreeMap<String, Tree>> {
    let open = |name: &str| fs::File::open(folder.join(name));
    image(&open, options, cache).map_err(|error| error.map_message(|said| format!("{}: {said}", folder.display())))
}

fn image(open: &oci::Open<'_>, options: &Options, cache: &Cache) -> Result<BTreeMap<String, Tree>> {
    let folder = options.path.as_deref().unwrap_or(MODELS_FOLDER);
    let files = Layout::open(open)?.files(folder, options.max_bytes, cache)?;
    models(&files, folder, cache)
}

/// Takes a member of a plain archive.
fn take(files: &mut Files, member: Member, content: &mut dyn Read, cache: &Cache) -> Result<()> {
    match member.kind {
        Kind::Folder => agree(files, &member.path, false)?,
        Kind::File if member.path.is_hidden() => {}
        Kind::File => {
            agree(files, &member.path, true)?;
            let file = store(&member.path, content, cache)?;
            files.insert(member.path, file);
        }
        Kind::HardLink(target) => {
            let file = files.get(&target).cloned().ok_or_else(|| {
                Error::invalid(format!("{} is a link to {target}, which is not in the archive before it", member.path))
            })?;
            agree(files, &member.path, true)?;
            files.insert(member.path, file);
        }
        Kind::Other(what) => {
            return Err(Error::invalid(format!(
                "{} is {what}: an archive of models has files and folders",
                member.path
            )));
        }
    }
    Ok(())
}

/// Whether a file, or a folder, at `path` can be beside what came before it. Of two files of one name the later is taken, as tar does; but a
/// file in whose place there is a folder, too, is no repository's.
///
/// # Errors
/// `InvalidArgument` naming what is both.
fn agree(files: &Files, path: &FilePath, is_file: bool) -> Result<()> {
    let file_above = path.folders().find_map(|folder| files.keys().find(|file| file.as_str() == folder));
    let both = match file_above {
        Some(file) => Some(file),
        None if is_file => files.keys().any(|other| other.below(path.as_str()).is_some()).then_some(path),
        None => files.contains_key(path).then_some(path),
    };
    match both {
        Some(path) => Err(Error::invalid(format!("{path} is both a file and a folder in it"))),
        None => Ok(()),
    }
}

/// Removes what cannot be beside a file, or a folder, at `path`: upper layers replace what is in lower ones.
fn displace(files: &mut Files, path: &FilePath, is_file: bool) {
    files.retain(|other, _| {
        let is_above = path.folders().any(|folder| folder == other.as_str());
        let is_below = is_file && other.below(path.as_str()).is_some();
        let is_it = !is_file && other == path;
        !(is_above || is_below || is_it)
    });
}

/// Puts a member's bytes into the cache.
fn store(path: &FilePath, content: &mut dyn Read, cache: &Cache) -> Result<File> {
    let mut writer = cache.writer()?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return writer.finish(),
            Ok(count) => writer.put(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::invalid(format!("{path} cannot be read: {error}"))),
        }
    }
}

/// The folder of models in a plain archive: `models`, where everything lies in models below that, else the root.
fn usual_folder(files: &Files) -> &'static str {
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    // A file beside the version folders is that of a model which is called so.
    let is_in_a_model = |path: &FilePath| {
        path.below(MODELS_FOLDER).is_some_and(|path| path.split_first().is_some_and(|(name, _)| !is_number(name)))
    };
    if !files.is_empty() && files.keys().all(is_in_a_model) { MODELS_FOLDER } else { "" }
}

/// The models among `files`, each checked against the list of checksums that it may have.
fn models(files: &Files, folder: &str, cache: &Cache) -> Result<BTreeMap<String, Tree>> {
    let mut models: BTreeMap<String, Tree> = BTreeMap::new();
    for (path, file) in files.iter().filter_map(|(path, file)| Some((path.below(folder)?, file))) {
        if let Some((model, path)) = path.split_first()
            && !path.is_hidden()
            && !model.starts_with('.')
        {
            models.entry(model.to_owned()).or_default().insert(path, file.clone());
        }
    }
    for (name, tree) in &mut models {
        let sums = tree.iter().find(|(path, _)| path.as_str() == SUMS_FILE).map(|(_, file)| file.clone());
        if let Some(sums) = sums {
            let before = tree.len();
            let in_words = |error: Error| error.map_message(|said| format!("the model {name}: {said}"));
            let sums = read_sums(&sums, cache).and_then(|text| parse_sums(&text)).map_err(in_words)?;
            check_sums(tree, &sums).map_err(in_words)?;
            if tree.len() + 1 < before {
                warn!(
                    model = name,
                    "{SUMS_FILE} does not name all files in the model's folder: the others are left out"
                );
            }
        }
    }
    Ok(models)
}

/// The text of a list of checksums that is in the cache.
///
/// # Errors
/// `InvalidArgument` where it is too long or not UTF-8.
pub(super) fn read_sums(file: &File, cache: &Cache) -> Result<String> {
    if file.bytes > MAX_SUMS_BYTES {
        return Err(Error::invalid(format!("{SUMS_FILE} has {} bytes, more than {MAX_SUMS_BYTES}", file.bytes)));
    }
    fs::read_to_string(cache.blob(&file.sha256))
        .map_err(|error| Error::invalid(format!("{SUMS_FILE} cannot be read: {error}")))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::not_found(format!("the model repository {} cannot be read: {error}", path.display()))
}

fn wrong(path: &Path, error: &io::Error) -> Error {
    Error::invalid(format!("{}: {error}", path.display()))
}
