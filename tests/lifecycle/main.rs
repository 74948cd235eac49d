//! Models that come and go while the server serves, through real listeners and with the real ONNX Runtime.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/graphs.rs"]
mod graphs;
#[path = "../support/grpc.rs"]
#[expect(dead_code, reason = "inference over gRPC is tested elsewhere")]
mod grpc;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/memory.rs"]
mod memory;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/until.rs"]
mod until;

mod concurrency;
mod ensemble;
mod explanations;
mod explicit;
mod faults;
mod golden;
mod overrides;
mod poll;
mod process;
mod reload;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use convoy::config::ServerConfig;
use convoy::onnx::{ModelProto, TensorProto};
use convoy::repository::ModelControlMode;
use convoy::server::Server;
use convoy::tensor::Tensor;
use serde_json::{Value, json};
use server::{Repository, config};
use until::until;

/// Ends the process when what it returns is not dropped in time: a deadlock must fail, and a runtime that hangs can't fail by
/// itself.
fn watchdog() -> mpsc::Sender<()> {
    let (alive, dropped) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if dropped.recv_timeout(Duration::from_mins(3)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the test hangs");
            std::process::abort();
        }
    });
    alive
}

/// `[N, 3, 2, 2]` to the mean of each channel plus `bias`, `[N, 3]`.
fn biased_means(bias: [f32; 3]) -> ModelProto {
    let nodes = vec![
        graphs::node("GlobalAveragePool", &["input"], "pooled"),
        graphs::node("Flatten", &["pooled"], "means"),
        graphs::node("Add", &["means", "bias"], "logits"),
    ];
    let bias = TensorProto::new("bias", &Tensor::from_vec(vec![3], bias.to_vec()).unwrap()).unwrap();
    graphs::model(nodes, vec![bias], &[-1, 3, 2, 2], &[-1, 3])
}

/// A model that says `bias` of a black picture: which of several models answered shows in the answer.
fn saying(bias: f32) -> ModelProto {
    biased_means([bias; 3])
}

/// The configuration of a server whose clients say what is loaded.
fn explicit(repository: &Repository) -> ServerConfig {
    let mut config = config(repository);
    config.model_control.mode = ModelControlMode::Explicit;
    config
}

/// The same, with everything loaded at the start.
fn explicit_all(repository: &Repository) -> ServerConfig {
    let mut config = explicit(repository);
    config.model_control.load = vec!["*".into()];
    config
}

/// Writes the graph of a version, as a client would who takes care: beside it, and renamed into place.
fn put(repository: &Path, version: &str, model: &ModelProto) {
    let folder = repository.join(version);
    std::fs::create_dir_all(&folder).unwrap();
    let beside = tempfile::tempdir_in(folder.parent().unwrap().parent().unwrap()).unwrap();
    std::fs::rename(graphs::write(beside.path(), model), folder.join("model.onnx")).unwrap();
}

/// Loads or unloads a model, and returns the status and the error.
async fn control(server: &Server, model: &str, verb: &str, body: &Value) -> (u16, String) {
    control_at(server.http_address(), model, verb, body).await
}

async fn control_at(address: SocketAddr, model: &str, verb: &str, body: &Value) -> (u16, String) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = http::send_to(address, "POST", &format!("/v2/repository/models/{model}/{verb}"), &[], body).await;
    let error = if answer.status.is_success() { String::new() } else { answer.error() };
    (answer.status.as_u16(), error)
}

async fn load(server: &Server, model: &str) -> (u16, String) {
    control(server, model, "load", &Value::Null).await
}

async fn unload(server: &Server, model: &str) -> (u16, String) {
    control(server, model, "unload", &Value::Null).await
}

/// What `model` says, by its answer to a black picture; else the status.
async fn ask(server: &Server, model: &str) -> Result<f32, u16> {
    ask_at(server.http_address(), model).await
}

async fn ask_at(address: SocketAddr, model: &str) -> Result<f32, u16> {
    let request =
        json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 2, 2], "data": vec![0.0; 12]}]});
    let answer = http::send_to(address, "POST", &format!("/v2/models/{model}/infer"), &[], request.to_string()).await;
    if answer.status != 200 {
        return Err(answer.status.as_u16());
    }
    let data = answer.json()["outputs"][0]["data"].clone();
    let values: [f32; 3] = serde_json::from_value(data).unwrap();
    assert!(values.iter().all(|value| value.to_bits() == values[0].to_bits()), "{values:?}");
    Ok(values[0])
}

/// The rows of the index that belong to `model`: version, state and reason.
async fn states(server: &Server, model: &str) -> Vec<(Option<String>, String, String)> {
    let index = http::send(server, "POST", "/v2/repository/index", &[], "").await.json();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rows = index.as_array().unwrap().iter().filter(|row| row["name"] == model);
    rows.map(|row| (text(&row["version"]), text(&row["state"]).unwrap(), text(&row["reason"]).unwrap())).collect()
}

/// [`states`] in short: `"1 READY"`, or `"READY"` where there is no version.
async fn short_states(server: &Server, model: &str) -> Vec<String> {
    let states = states(server, model).await.into_iter();
    states.map(|(version, state, _)| version.map_or(state.clone(), |version| format!("{version} {state}"))).collect()
}

/// The value of the metric whose name and labels begin a line of the metrics page; `None` where there is none.
async fn metric(server: &Server, name: &str) -> Option<f64> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.metrics_address()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// How many loads of `model` ended so.
async fn loads(server: &Server, model: &str, outcome: &str) -> u64 {
    let name = format!("convoy_model_loads_total{{model=\"{model}\",outcome=\"{outcome}\"}}");
    metric(server, &name).await.unwrap_or_default() as u64
}
