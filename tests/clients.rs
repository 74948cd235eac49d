//! What others wrote, in Python: the real clients, unmodified, against a server in this process, OpenAPI's validator on its
//! document, and onnx's checker on exported graphs. `cargo xtask test` installs them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/graphs.rs"]
mod graphs;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "the clients bring their own pictures")]
mod server;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use convoy::repository::ModelControlMode;
use convoy::server::Server;
use convoy::triton;
use prost::Message;
use server::{PLAIN_RECIPE, Repository, config, start};

/// A model that holds a single request back for an hour, and runs two at once.
const HELD: &str = "max_batch_size = 2\n[instances]\ncount = 1\n[batching]\nmax_queue_delay_us = 3600000000\n";

/// A Triton model repository's configuration of `means`.
const PBTXT: &str = r#"
name: "pbtxt"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "input" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 8, 8 ] } ]
output [ { name: "logits" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "colours.txt" } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { max_queue_delay_microseconds: 100 default_queue_policy { max_queue_size: 64 } }
parameters { key: "convoy.preprocess.scale" value { string_value: "0.00392156862745098" } }
metric_tags { key: "tier" value: "test" }
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that has the real clients.
fn python() -> PathBuf {
    let python = root().join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: `cargo xtask test` makes it", python.display());
    python
}

/// A server as `tests/clients/common.py` describes it.
async fn serve() -> (Server, Repository) {
    let means = format!("max_batch_size = 8\n{PLAIN_RECIPE}");
    let repository = Repository::new()
        .with("means", &graphs::channel_means(8, None), &means, "red\ngreen\nblue\n")
        .with("filters", &graphs::convolutional(8, 3), PLAIN_RECIPE, "")
        .with("spare", &graphs::channel_means(8, None), "max_batch_size = 2", "")
        .with("held", &graphs::channel_means(8, None), HELD, "")
        .with("pbtxt", &graphs::channel_means(8, None), "", "");
    for (name, text) in [("config.pbtxt", PBTXT), ("colours.txt", "red\ngreen\nblue\n")] {
        std::fs::write(repository.path().join("pbtxt").join(name), text).unwrap();
    }
    let mut config = config(&repository);
    config.model_control.mode = ModelControlMode::Explicit;
    config.model_control.load = vec!["*".into()];
    config.default_model = Some("means".into());
    (start(config).await, repository)
}

/// Runs a program and returns what it printed; when it fails, all that it said is in the panic.
async fn run(program: PathBuf, arguments: Vec<String>) -> String {
    let line = format!("{} {}", program.file_name().unwrap_or_else(|| OsStr::new("")).display(), arguments.join(" "));
    let output = tokio::task::spawn_blocking(move || Command::new(program).args(arguments).output());
    let output = output.await.unwrap().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {}\n{said}\n{complained}", output.status);
    said.into_owned()
}

/// Runs the tests in `tests/clients/` of this name.
async fn run_client(name: &str) {
    let (server, repository) = serve().await;
    let file = root().join("tests/clients").join(name).display().to_string();
    let model = repository.path().join("spare/1/model.onnx").display().to_string();
    run(python(), vec![file, server.http_address().to_string(), server.grpc_address().to_string(), model]).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_over_http() {
    run_client("tritonclient_http.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_over_grpc() {
    run_client("tritonclient_grpc.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kserve_sdk() {
    run_client("kserve_sdk.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_health_and_reflection() {
    run_client("health_and_reflection.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheuss_own_parser() {
    run_client("openmetrics.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheuss_own_parser_finds_exemplars() {
    let repository = Repository::new().with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "");
    let mut config = config(&repository);
    // Nobody listens there, which does not matter: what is traced has exemplars.
    config.tracing.endpoint = Some("http://127.0.0.1:9".into());
    let server = start(config).await;
    let file = root().join("tests/clients/openmetrics.py").display().to_string();
    let addresses = [server.http_address().to_string(), server.grpc_address().to_string()];
    run(python(), [&[file], &addresses[..], &["-".into(), "traced".into()]].concat()).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openapis_own_validator() {
    run_client("openapi.py").await;
}

/// Pictures of one colour, as files, and what the examples must say of each.
fn pictures(folder: &Path) -> Vec<(String, &'static str)> {
    [([250, 20, 10], "red"), ([0, 255, 40], "green"), ([1, 2, 200], "blue")]
        .into_iter()
        .map(|(colour, label)| {
            let path = folder.join(format!("{label}.png"));
            std::fs::write(&path, server::png(colour)).unwrap();
            (path.display().to_string(), label)
        })
        .collect()
}

/// Runs an example client on [`pictures`], and checks that each line names the file and its colour first.
async fn run_example(program: PathBuf, mut arguments: Vec<String>) {
    let (server, repository) = serve().await;
    let pictures = pictures(repository.path());
    arguments.extend(["--address".into(), server.grpc_address().to_string(), "--model".into(), "means".into()]);
    arguments.extend(pictures.iter().map(|(path, _)| path.clone()));
    let said = run(program, arguments).await;
    assert_eq!(said.lines().count(), pictures.len(), "{said}");
    for (path, label) in pictures {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("{path}: "))).unwrap();
        assert!(line.starts_with(label), "{said}");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python() {
    run_example(python(), vec![root().join("examples/classify.py").display().to_string()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_rust() {
    // `cargo test` builds the examples before it runs any test, and puts them beside the tests' own folder.
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().with_file_name("examples").join("classify");
    assert!(example.exists(), "{} is missing: `cargo build --example classify` makes it", example.display());
    run_example(example, Vec::new()).await;
}

/// The lines that `tests/reference/triton_config.py` prints for the texts in `folder`, in words.
async fn read_by_protobuf(folder: &Path, json: &Path) -> Vec<Vec<String>> {
    let script = root().join("tests/reference/triton_config.py").display().to_string();
    let said = run(python(), vec![script, folder.display().to_string(), json.display().to_string()]).await;
    said.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn protobufs_own_parser_reads_the_same_configurations() {
    let folder = root().join("tests/fixtures/triton");
    let json = tempfile::tempdir().unwrap();
    let read = |name: &str| triton::parse_text(&std::fs::read_to_string(folder.join(format!("{name}.pbtxt"))).unwrap());
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "pbtxt")).collect();
    for path in &files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let config = read(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = triton::to_json(&config).to_string();
        assert_eq!(triton::parse_json(&written).unwrap(), config, "{name}");
        std::fs::write(json.path().join(format!("{name}.json")), written).unwrap();
    }
    let theirs = read_by_protobuf(&folder, json.path()).await;
    assert_eq!(theirs.len(), files.len());
    for words in theirs {
        let [name, message] = words.as_slice() else { panic!("{words:?}") };
        let bytes: Vec<u8> = message
            .as_bytes()
            .chunks_exact(2)
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(read(name).unwrap(), triton::ModelConfig::decode(bytes.as_slice()).unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobufs_own_parser_finds_mistakes_in_the_same_lines() {
    let folder = root().join("tests/fixtures/triton/broken");
    let theirs = read_by_protobuf(&folder, &folder).await;
    assert!(theirs.len() >= 10, "{theirs:?}");
    for words in theirs {
        let [name, error, line] = words.as_slice() else { panic!("{words:?}") };
        assert_eq!(error, "error", "{name}");
        let text = std::fs::read_to_string(folder.join(format!("{name}.pbtxt"))).unwrap();
        let ours = triton::parse_text(&text).unwrap_err();
        assert!(ours.starts_with(&format!("line {line}, column ")), "{name}: {ours}");
    }
}

/// Exports every architecture, one after the other, into a temporary folder.
#[tokio::test(flavor = "multi_thread")]
async fn onnxs_checker_passes_every_exported_graph() {
    let script = root().join("tests/reference/check_onnx.py").display().to_string();
    let said = run(python(), vec![script, env!("CARGO_BIN_EXE_convoy").to_owned()]).await;
    for architecture in convoy::zoo::ARCHITECTURES {
        let checked = said.lines().any(|line| line.split(' ').next() == Some(architecture.name));
        assert!(checked, "{} was not checked:\n{said}", architecture.name);
    }
}
