//! What is known of a model's files, and the list of checksums that may lie among them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::path::FilePath;
use crate::error::{Error, Result};
use crate::sha256;

/// The name of the file in a model's folder that says which files the model has, and the SHA-256 of each, as `sha256sum` writes it.
pub(super) const SUMS_FILE: &str = "SHA256SUMS";
/// More than a list of 4096 files takes.
pub(super) const MAX_SUMS_BYTES: u64 = 4 << 20;

/// A SHA-256, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Digest(String);

impl Digest {
    pub(super) fn of(hash: &[u8]) -> Self {
        Self(sha256::hex(hash))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| Self(text.to_ascii_lowercase()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text).ok_or_else(|| Error::invalid(format!("`{text}` is no SHA-256")))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file whose bytes are in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    pub(super) sha256: Digest,
    pub(super) bytes: u64,
}

/// The files of a model, by their path in its folder.
pub(super) type Tree = BTreeMap<FilePath, File>;

/// Reads a list as `sha256sum` writes it: digest, two spaces or a space and a star, path.
///
/// # Errors
/// `InvalidArgument` naming the line.
pub(super) fn parse_sums(text: &str) -> Result<BTreeMap<FilePath, Digest>> {
    let mut sums = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let entry = line.split_once(' ').and_then(|(digest, path)| {
            let path = path.strip_prefix([' ', '*'])?;
            let path = FilePath::of_member(path.as_bytes()).ok()??;
            Some((path, Digest::parse(digest)?))
        });
        let (path, digest) = entry
            .ok_or_else(|| Error::invalid(format!("{SUMS_FILE}: line {} is no SHA-256 and a path", number + 1)))?;
        if path.as_str() != SUMS_FILE {
            sums.insert(path, digest);
        }
    }
    if sums.is_empty() {
        return Err(Error::invalid(format!("{SUMS_FILE} names no file")));
    }
    Ok(sums)
}

/// Holds a model's files, those of an archive for instance, against the list among them: what it does not name is left out.
///
/// # Errors
/// `InvalidArgument` naming a file that is missing or another.
pub(super) fn check_sums(tree: &mut Tree, sums: &BTreeMap<FilePath, Digest>) -> Result<()> {
    for (path, digest) in sums {
        match tree.get(path) {
            Some(file) if file.sha256 == *digest => {}
            Some(_) => return Err(Error::invalid(format!("{path} is not the file that {SUMS_FILE} names"))),
            None => return Err(Error::invalid(format!("{path} is missing, which {SUMS_FILE} names"))),
        }
    }
    tree.retain(|path, _| sums.contains_key(path));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_sha256sum_writes_it() {
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let sums = parse_sums(&format!("{a}  ./1/model.onnx\n{b} *labels.txt\n\n{a}  SHA256SUMS\n")).unwrap();
        let sums: Vec<_> = sums.iter().map(|(path, digest)| (path.as_str(), digest.as_str())).collect();
        assert_eq!(sums, [("1/model.onnx", &*a), ("labels.txt", &*"b".repeat(64))]);
        for wrong in ["", "\n", &a, &format!("{a} labels.txt"), &format!("{a}  ../x"), &format!("{}  x", &a[1..])] {
            assert!(parse_sums(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse_sums(&format!("{a}  x\nnonsense")).unwrap_err().message().contains("line 2"));
    }

    #[test]
    fn a_tree_is_what_its_list_names() {
        let file = |digit: &str| File { sha256: Digest::parse(&digit.repeat(64)).unwrap(), bytes: 1 };
        let path = |text| FilePath::parse(text).unwrap();
        let whole = Tree::from([(path("1/model.onnx"), file("a")), (path("1/next.part"), file("b"))]);
        let sums = |digit: &str, name| BTreeMap::from([(path(name), Digest::parse(&digit.repeat(64)).unwrap())]);
        let mut tree = whole.clone();
        check_sums(&mut tree, &sums("a", "1/model.onnx")).unwrap();
        assert_eq!(tree.len(), 1);
        for (sums, said) in [(sums("c", "1/model.onnx"), "not the file"), (sums("a", "labels.txt"), "missing")] {
            assert!(check_sums(&mut whole.clone(), &sums).unwrap_err().message().contains(said));
        }
    }
}
