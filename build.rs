//! Compiles the protocol buffers to Rust, in pure Rust: no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    onnx()?;
    grpc()
}

fn onnx() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // Weights are hundreds of megabytes: as `Bytes` they are shared with the file they were read from.
        .bytes([".onnx.TensorProto.raw_data"])
        .compile_fds(descriptors)?;
    Ok(())
}

fn grpc() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.open_files(["grpc_service.proto", "convoy/v1/image_classifier.proto"])?.include_imports(true);
    // What server reflection answers with.
    let path = PathBuf::from(env::var("OUT_DIR")?).join("grpc_descriptors.bin");
    fs::write(path, compiler.encode_file_descriptor_set())?;
    let mut config = prost_build::Config::new();
    // The codec knows by its name which messages nest.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_transport(false)
        // Tensors and pictures share the buffer that the message arrived in.
        .bytes(".inference")
        .bytes(".convoy.v1")
        .btree_map(".inference")
        .codec_path("crate::grpc::codec::MessageCodec")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
