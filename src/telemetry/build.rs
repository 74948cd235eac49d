//! What the server was built from.

use prometheus::Registry;

use super::families::gauge;

/// The build, as `/debug` and the metric `convoy_build_info` show it.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// The server's version.
    pub version: &'static str,
    /// The commit, where the environment variable `CONVOY_COMMIT` told the build.
    pub commit: Option<&'static str>,
    /// The compiler's version.
    pub rustc: &'static str,
    /// What was compiled for, `x86_64-unknown-linux-gnu` for instance.
    pub target: &'static str,
    /// What ONNX Runtime says of its own build.
    pub onnxruntime: &'static str,
}

impl BuildInfo {
    /// This build, beside the ONNX Runtime that says `onnxruntime` of itself.
    pub fn new(onnxruntime: &'static str) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("CONVOY_COMMIT").filter(|commit| !commit.is_empty()),
            rustc: env!("CONVOY_RUSTC"),
            target: env!("CONVOY_TARGET"),
            onnxruntime,
        }
    }

    /// Shows it as a metric.
    pub fn register(&self, registry: &Registry) {
        let labels = ["version", "commit", "rustc", "onnxruntime"];
        let info = gauge(registry, "convoy_build_info", "1, with what the server was built from", &labels);
        let commit = self.commit.unwrap_or("");
        info.with_label_values(&[self.version, commit, self.rustc, self.onnxruntime_commit()]).set(1);
    }

    /// The commit that ONNX Runtime was built from: all of its own description that tells one version from another.
    fn onnxruntime_commit(&self) -> &'static str {
        let commit = self.onnxruntime.split_once("git-commit-id=").map(|(_, rest)| rest);
        commit.and_then(|rest| rest.split([',', ' ']).next()).unwrap_or(self.onnxruntime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_told_apart_by_their_commit() {
        let of = |text| BuildInfo::new(text).onnxruntime_commit();
        assert_eq!(of("ORT Build Info: git-branch=HEAD, git-commit-id=0c8d5b1, build type=Release"), "0c8d5b1");
        assert_eq!(of("a build of our own"), "a build of our own");
    }
}
