//! convoy: an inference server for convolutional image classifiers.
//!
//! Imports between the modules point down only; `docs/ARCHITECTURE.md` has the diagram and `tests/imports.rs` checks it.

pub mod auth;
pub mod cache_folder;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
pub mod explain;
pub mod grpc;
pub mod http;
pub mod inference;
pub mod net;
pub mod onnx;
pub mod postprocess;
pub mod preprocess;
pub mod reload;
pub mod repository;
pub mod response_cache;
pub mod scheduler;
mod serde_words;
pub mod server;
pub mod sha256;
pub mod store;
pub mod telemetry;
pub mod tensor;
pub mod toml_file;
pub mod triton;
pub mod zoo;
