//! ONNX Runtime: the process's one runtime, execution providers, and sessions that run batches.
//!
//! Only this module imports `ort`. It knows files, tensors and devices; it does not know what a picture, a queue or a request
//! is.

mod evaluation;
mod graph;
mod provider;
mod runtime;
mod session;
mod weights;

pub use evaluation::Evaluation;
pub use graph::{Graph, GraphOptimization, GraphOptions};
pub use provider::{ArenaExtendStrategy, ConvAlgorithmSearch, CudaOptions, Provider, TensorRtOptions};
pub use runtime::{LIBRARY_FILE_NAME, NO_TELEMETRY, Runtime};
pub use session::Session;

use crate::error::Error;

/// An error of ONNX Runtime's as an internal error: `message` for the client, its own text for the log.
fn failed<R>(message: impl Into<String>, error: &ort::Error<R>) -> Error {
    Error::internal(message).with_source(error.to_string())
}
