//! The HTTP interface through a real listener, with the real ONNX Runtime and graphs whose answers can be worked out by hand.

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
