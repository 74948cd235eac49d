//! The ONNX Runtime library: found, loaded once, and held for the life of the process.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use tracing::warn;

use crate::error::{Error, Result};

/// The library's file name on this platform.
pub const LIBRARY_FILE_NAME: &str =
    if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };

/// The environment variable with which, where it is set when a process starts, official builds of ONNX Runtime report nothing to their
/// makers.
pub const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// The loaded ONNX Runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: Environment,
    library: PathBuf,
}

/// ONNX Runtime allows one environment in a process and `ort` one library, so the first load decides; this is where it is
/// remembered. (A process-wide fact, hence the one static of the crate.)
static LOADED: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Finds and loads the library; a second call returns what the first one loaded.
    ///
    /// The places, in order: `library`; the environment variable `ORT_DYLIB_PATH`; beside the executable; where
    /// `cargo xtask setup` puts it (`target/onnxruntime/gpu`, then `cpu`, under the working directory or above the
    /// executable).
    ///
    /// # Errors
    /// `Unavailable` with a sentence that says where it was looked for and how to get it, or why it cannot be loaded.
    pub fn load(library: Option<&Path>) -> Result<Self> {
        let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = LOADED.get() {
            return Ok(runtime.clone());
        }
        let library = find(library)?;
        if env::var_os(NO_TELEMETRY).is_none() {
            warn!(
                "official builds of ONNX Runtime report to Microsoft when they start: set {NO_TELEMETRY}=1 before the process"
            );
        }
        let environment = ort::init_from(&library)
            .map_err(|error| {
                Error::unavailable(format!("ONNX Runtime could not be loaded from {}: {error}", library.display()))
            })?
            .with_name("convoy")
            .with_telemetry(false)
            .build()
            .map_err(|error| Error::unavailable(format!("ONNX Runtime did not start: {error}")))?;
        // ONNX Runtime writes hundreds of lines for each session; making them only to have them filtered costs load time.
        environment.set_log_level(if tracing::enabled!(target: "ort::logging", tracing::Level::INFO) {
            LogLevel::Info
        } else {
            LogLevel::Warning
        });
        let runtime = Self { environment, library };
        Ok(LOADED.get_or_init(|| runtime).clone())
    }

    /// Whether the library was built with the CUDA provider. Whether that can run on this machine, only a session shows.
    pub fn offers_cuda(&self) -> bool {
        <ort::ep::CUDA as ort::ep::ExecutionProvider>::is_available().unwrap_or(false)
    }

    /// The library's path.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// What ONNX Runtime says of its own build: the commit, which tells one version from another, and the kind of build.
    pub fn build(&self) -> &'static str {
        ort::info()
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

fn find(option: Option<&Path>) -> Result<PathBuf> {
    // A path that somebody named must be the one that is used: falling through to another library would hide a typo.
    let named = option
        .map(|path| (path.to_path_buf(), "--onnxruntime-library"))
        .or_else(|| env::var_os("ORT_DYLIB_PATH").map(|path| (path.into(), "ORT_DYLIB_PATH")));
    if let Some((path, by)) = named {
        if path.is_file() {
            return Ok(path);
        }
        return Err(Error::unavailable(format!(
            "there is no ONNX Runtime library at {}, the path that {by} names",
            path.display()
        )));
    }
    let candidates = candidates();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let places: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        Error::unavailable(format!(
            "ONNX Runtime's library was not found (looked at {}): run `cargo xtask setup`, or take {LIBRARY_FILE_NAME} out of \
             the `onnxruntime` Python wheel and name it with --onnxruntime-library or ORT_DYLIB_PATH",
            places.join(", ")
        ))
    })
}

fn candidates() -> Vec<PathBuf> {
    let executable = env::current_exe().ok();
    let mut places = Vec::new();
    places.extend(executable.as_deref().and_then(Path::parent).map(|folder| folder.join(LIBRARY_FILE_NAME)));
    // `target/release/convoy` and `target/debug/deps/test-…` both have `target` among their ancestors.
    let target = executable.as_deref().into_iter().flat_map(Path::ancestors).filter(|path| path.ends_with("target"));
    for target in target.map(Path::to_path_buf).chain([PathBuf::from("target")]) {
        for kind in ["gpu", "cpu"] {
            places.push(target.join("onnxruntime").join(kind).join(LIBRARY_FILE_NAME));
        }
    }
    places
}
