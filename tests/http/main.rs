//! The HTTP interface through a real listener, with the real ONNX Runtime and graphs whose answers can be worked out by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/graphs.rs"]
mod graphs;
#[path = "../support/server.rs"]
mod server;

mod architecture;
mod classify;
mod connections;
mod errors;
mod shutdown;
mod v2;
