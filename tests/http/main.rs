//! The HTTP interface through a real listener, with the real ONNX Runtime and graphs whose answers can be worked out by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/http.rs"]
mod client;
#[path = "../support/colors.rs"]
mod colors;
#[path = "../support/graphs.rs"]
mod graphs;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/table.rs"]
mod table;

mod architecture;
mod classify;
mod connections;
mod debug;
mod ensemble;
mod errors;
mod explain;
mod explain_crops;
mod health;
mod openapi;
mod page;
mod predict;
mod shutdown;
mod test_time;
mod v2;

use convoy::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends the head of a classify request with a body of `length` bytes, and waits until the server is reading that body.
async fn begin_classify(server: &Server, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.http_address()).await.unwrap();
    let head =
        format!("POST /v1/classify HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// What the metrics listener answers, head and all.
async fn metrics(server: &Server, path: &str) -> String {
    let mut stream = TcpStream::connect(server.metrics_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
