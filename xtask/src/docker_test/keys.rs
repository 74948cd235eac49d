//! The API key without which the replicas answer nobody, in a folder that they see as `/etc/convoy`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A key, and the folder with the file that has its hash.
pub(super) struct Keys {
    pub(super) key: String,
    pub(super) folder: PathBuf,
}

impl Keys {
    /// The file as the replicas see it.
    pub(super) const FILE: &str = "/etc/convoy/keys.toml";

    /// Makes a key, and the file by `convoy hash-key`, in a folder of its own inside `folder`.
    ///
    /// # Errors
    /// When a file cannot be written, or the program fails.
    pub(super) fn make(convoy: &Path, folder: &Path) -> Result<Self> {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let mut key = String::new();
        for byte in random {
            write!(key, "{byte:02x}")?;
        }
        let mut hash = Command::new(convoy);
        hash.args(["hash-key", "--right", "infer"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut hash = hash.spawn().context("`convoy hash-key` could not be started")?;
        hash.stdin.take().context("it has no input")?.write_all(key.as_bytes())?;
        let output = hash.wait_with_output()?;
        ensure!(output.status.success(), "`convoy hash-key` failed ({})", output.status);
        let folder = folder.join("files");
        fs::create_dir_all(&folder)?;
        let file = folder.join("keys.toml");
        fs::write(&file, output.stdout)?;
        // The replicas' user is another.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        Ok(Self { key, folder })
    }
}
