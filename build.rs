//! Compiles the protocol buffers to Rust, in pure Rust: no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    build_info()?;
    onnx()?;
    model_config()?;
    grpc()
}

/// What the server says of its own build. The commit is `CONVOY_COMMIT`'s alone: asking git would have the crate compiled anew
/// after every commit.
fn build_info() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=CONVOY_COMMIT");
    let version = Command::new(env::var("RUSTC")?).arg("--version").output()?.stdout;
    println!("cargo:rustc-env=CONVOY_RUSTC={}", String::from_utf8(version)?.trim());
    println!("cargo:rustc-env=CONVOY_TARGET={}", env::var("TARGET")?);
    Ok(())
}

fn onnx() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // Weights are hundreds of megabytes: as `Bytes` they are shared with the file they were read from.
        .bytes([".onnx.TensorProto.raw_data"])
        .compile_fds(descriptors)?;
    Ok(())
}

/// Triton's model configuration is a file format too, so it stands below the protocol that also sends it.
fn model_config() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.open_file("model_config.proto")?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("model_config");
    fs::create_dir_all(&out)?;
    // What its text and JSON forms are read and written by.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let mut config = prost_build::Config::new();
    config.out_dir(&out).btree_map(["."]).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn grpc() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.open_files(["grpc_service.proto", "convoy/v1/image_classifier.proto"])?.include_imports(true);
    // What server reflection answers with.
    let path = PathBuf::from(env::var("OUT_DIR")?).join("grpc_descriptors.bin");
    fs::write(path, compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    let mut config = prost_build::Config::new();
    // The codec knows by its name which messages nest.
    config.enable_type_names();
    let mut builder = tonic_prost_build::configure()
        .build_transport(false)
        // Tensors and pictures share the buffer that the message arrived in.
        .bytes(".inference")
        .bytes(".convoy.v1")
        .btree_map(".inference")
        .codec_path("crate::grpc::codec::MessageCodec");
    for file in descriptors.file.iter().filter(|file| file.name() == "model_config.proto") {
        let messages = file.message_type.iter().filter_map(|message| message.name.as_deref());
        let enumerations = file.enum_type.iter().filter_map(|enumeration| enumeration.name.as_deref());
        for name in messages.chain(enumerations) {
            builder = builder.extern_path(format!(".inference.{name}"), format!("crate::triton::proto::{name}"));
        }
    }
    builder.compile_fds_with_config(descriptors, config)?;
    Ok(())
}
