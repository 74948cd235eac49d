//! Models out of archives, images and a bucket, through real listeners, with the real ONNX Runtime and a real S3 server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::float_cmp, reason = "these numbers are exact")]

#[path = "../support/graphs.rs"]
#[expect(dead_code, reason = "other tests need other graphs")]
mod graphs;
#[path = "../support/http.rs"]
#[expect(dead_code, reason = "every request here has a connection of its own")]
mod http;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "what is broken here is broken in the store")]
mod server;
#[path = "../support/until.rs"]
mod until;

mod archives;
mod bucket;
mod faults;
mod process;
mod s3;

use std::fs;
use std::path::Path;
use std::time::Duration;

use convoy::config::ServerConfig;
use convoy::onnx::TensorProto;
use convoy::repository::ModelControlMode;
use convoy::server::Server;
use convoy::tensor::Tensor;
use serde_json::{Value, json};
use server::Repository;
use tempfile::TempDir;
use until::until;

/// How long what is uploaded must rest. Long enough that a test which waits for nothing to happen sees several looks.
const INTERVAL: Duration = Duration::from_millis(60);

/// The file of a model that says `bias` of a black picture: which of several models answered shows in the answer.
fn saying(bias: f32) -> Vec<u8> {
    let nodes = vec![
        graphs::node("GlobalAveragePool", &["input"], "pooled"),
        graphs::node("Flatten", &["pooled"], "means"),
        graphs::node("Add", &["means", "bias"], "logits"),
    ];
    let bias = TensorProto::new("bias", &Tensor::from_vec(vec![3], vec![bias; 3]).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::read(graphs::write(folder.path(), &graphs::model(nodes, vec![bias], &[-1, 3, 2, 2], &[-1, 3]))).unwrap()
}

/// The configuration of a server over `repository`, with a cache of its own below `cache`.
fn config(repository: &str, cache: &Path) -> ServerConfig {
    let mut config = server::config(&Repository::new());
    config.model_repository = repository.into();
    config.model_store.cache = Some(cache.to_owned());
    config.model_store.poll_interval_ms = INTERVAL.as_millis() as u64;
    config.model_control.poll_interval_ms = 20;
    config
}

fn polling(mut config: ServerConfig) -> ServerConfig {
    config.model_control.mode = ModelControlMode::Poll;
    config
}

fn explicit(mut config: ServerConfig, load: &[&str]) -> ServerConfig {
    config.model_control.mode = ModelControlMode::Explicit;
    config.model_control.load = load.iter().map(|&name| name.to_owned()).collect();
    config
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Waits until no server holds the cache. A process that has ended holds its cache no more; what has ended in this one takes a moment.
async fn cache_is_free(cache: &TempDir) {
    let folder = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let is_free = async || fs::File::open(folder.join("lock")).unwrap().try_lock().is_ok();
    until(is_free, |is_free| *is_free).await;
}

/// Loads or unloads a model, and returns the status and the error.
async fn control(server: &Server, model: &str, verb: &str) -> (u16, String) {
    let answer = http::send(server, "POST", &format!("/v2/repository/models/{model}/{verb}"), &[], "").await;
    let error = if answer.status.is_success() { String::new() } else { answer.error() };
    (answer.status.as_u16(), error)
}

/// What `model` says of a black picture; else the status.
async fn ask(server: &Server, model: &str) -> Result<f32, u16> {
    let request =
        json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 2, 2], "data": vec![0.0; 12]}]});
    let answer = http::send(server, "POST", &format!("/v2/models/{model}/infer"), &[], request.to_string()).await;
    if answer.status != 200 {
        return Err(answer.status.as_u16());
    }
    Ok(serde_json::from_value(answer.json()["outputs"][0]["data"][0].clone()).unwrap())
}

/// Whether the server is ready, or why not.
async fn readiness(server: &Server) -> Result<(), String> {
    let answer = http::get(server, "/v2/health/ready").await;
    if answer.status == 200 { Ok(()) } else { Err(answer.json()["error"].as_str().unwrap().to_owned()) }
}

/// The index's rows of `model`: state and reason.
async fn states(server: &Server, model: &str) -> Vec<(String, String)> {
    let index = http::send(server, "POST", "/v2/repository/index", &[], "").await.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = index.as_array().unwrap().iter().filter(|row| row["name"] == model);
    rows.map(|row| (text(&row["state"]), text(&row["reason"]))).collect()
}

/// The value of the metric whose name and labels begin a line.
async fn metric(server: &Server, name: &str) -> f64 {
    let page = http::send(server, "GET", "/metrics", &[], "").await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {page}"))
}

/// Waits until `model` says `what`.
async fn says(server: &Server, model: &str, what: Result<f32, u16>) {
    until(|| ask(server, model), |said| *said == what).await.ok();
}

/// Waits until the store has been looked at some times more, by which what was to happen would have.
async fn several_looks(server: &Server) {
    let looks = async || {
        metric(server, "convoy_model_store_syncs_total{outcome=\"success\"}").await
            + metric(server, "convoy_model_store_syncs_total{outcome=\"failed\"}").await
    };
    let before = looks().await;
    until(looks, |now| *now >= before + 4.0).await;
}
