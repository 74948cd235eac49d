//! Compiles the protocol buffers to Rust, in pure Rust: no `protoc` has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    onnx()
}

fn onnx() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // Weights are hundreds of megabytes: as `Bytes` they are shared with the file they were read from.
        .bytes([".onnx.TensorProto.raw_data"])
        .compile_fds(descriptors)?;
    Ok(())
}
