//! The gRPC interface through a real listener, with the real ONNX Runtime and graphs whose answers can be worked out by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/grpc.rs"]
mod client;
#[path = "../support/graphs.rs"]
mod graphs;
#[path = "../support/server.rs"]
mod server;

mod bad_input;
mod classify;
mod connections;
mod deadlines;
mod ensemble;
mod health;
mod infer;
mod limits;
mod raw;
mod shutdown;
mod stream;

use std::time::Duration;

use bytes::Bytes;
use convoy::config::ServerConfig;
use convoy::grpc::proto::inference::ModelInferResponse;
use convoy::server::Server;
use server::{PLAIN_RECIPE, Repository, config, start, within_a_minute};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A picture of 2×2 pixels as a tensor `[1, 3, 2, 2]`, and its channel means.
const TENSOR: [f32; 12] = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 1.0, -1.0, -1.0, 1.0, 1.0];
const MEANS: [f32; 3] = [2.5, 0.25, 0.0];

/// A model that holds a single request back for an hour, and runs two at once.
const HELD: &str = "max_batch_size = 2\n[instances]\ncount = 1\n[batching]\nmax_queue_delay_us = 3600000000\n";

/// A server with the models `means`, `fixed`, `held` and `broken`.
async fn server() -> (Server, Repository) {
    let repository = repository();
    (start(unhurried(&repository)).await, repository)
}

/// The configuration of a server that is never ended by its shutdown's timeout: what holds it up, holds up the test.
fn unhurried(repository: &Repository) -> ServerConfig {
    let mut config = config(repository);
    config.shutdown.timeout_ms = 3_600_000;
    config
}

fn repository() -> Repository {
    Repository::new()
        .with(
            "means",
            &graphs::channel_means(2, None),
            &format!("max_batch_size = 8\n{PLAIN_RECIPE}"),
            "red\ngreen\nblue\n",
        )
        .with("fixed", &graphs::channel_means(2, Some(1)), "", "")
        .with("held", &graphs::channel_means(2, None), HELD, "")
        .with_broken("broken")
}

fn floats(bytes: &Bytes) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// Checks that `answer` holds the channel means of [`TENSOR`] and nothing else.
fn assert_means(answer: &ModelInferResponse) {
    assert_eq!(answer.outputs.len(), 1, "{answer:?}");
    let output = &answer.outputs[0];
    assert_eq!((&*output.name, &*output.datatype, &*output.shape), ("logits", "FP32", &[1, 3][..]));
    assert!(output.contents.is_none());
    assert_eq!(answer.raw_output_contents.len(), 1);
    assert_eq!(floats(&answer.raw_output_contents[0]), MEANS);
}

/// The value of the metric whose name and labels begin a line of the metrics page; 0 where there is none.
async fn metric(server: &Server, name: &str) -> f64 {
    let mut stream = TcpStream::connect(server.metrics_address()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_default()
}

/// Waits until the metric has the value.
async fn until(server: &Server, name: &str, value: f64) {
    within_a_minute(async {
        while (metric(server, name).await - value).abs() > 0.1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The rows of `model` that are admitted and not yet answered.
fn in_flight(model: &str) -> String {
    format!("convoy_in_flight{{model=\"{model}\",version=\"1\"}}")
}

/// The requests of `model` that ended in a certain way.
fn requests(model: &str, outcome: &str) -> String {
    format!("convoy_requests_total{{model=\"{model}\",outcome=\"{outcome}\",protocol=\"grpc\",version=\"1\"}}")
}
