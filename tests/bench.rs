//! `convoy bench` in each of its ways against a real server, whose own metrics must agree on what was sent.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests need more graphs")]
#[path = "support/graphs.rs"]
mod graphs;
#[expect(dead_code, reason = "other tests need more of a server")]
#[path = "support/server.rs"]
mod server;

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use convoy::server::Server;
use server::{PLAIN_RECIPE, Repository};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SIDE: i64 = 8;

async fn start() -> (Server, Repository) {
    let recipe = format!("{PLAIN_RECIPE}resize = {SIDE}\ncrop = {SIDE}\n");
    let repository = Repository::new().with("means", &graphs::channel_means(SIDE, None), &recipe, "");
    (server::start(server::config(&repository)).await, repository)
}

async fn bench(arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.args(["bench", "--format", "json", "--warmup-s", "0"]).args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// How many requests the server has answered with success, by protocol.
async fn answered(server: &Server, protocol: &str) -> u64 {
    let mut stream = TcpStream::connect(server.metrics_address()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let counts = answer.lines().filter(|line| {
        line.starts_with("convoy_requests_total{")
            && line.contains(&format!("protocol=\"{protocol}\""))
            && line.contains("outcome=\"success\"")
    });
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_is_counted_alike_by_the_client_and_the_server() {
    let (server, repository) = start().await;
    let picture = repository.path().join("picture.png");
    std::fs::write(&picture, server::png([1, 2, 3])).unwrap();
    let picture = picture.to_str().unwrap();
    let http = format!("http://{}", server.http_address());
    let grpc = format!("grpc://{}", server.grpc_address());
    let ways: [(&str, &str, &[&str]); 8] = [
        ("http", &http, &["--image", picture]),
        ("http", &http, &["--image", picture, "--model", "means", "--timeout-ms", "60000"]),
        ("http", &http, &["--tensor", "json", "--model", "means", "--timeout-ms", "60000"]),
        ("http", &http, &["--tensor", "binary", "--model", "means"]),
        ("grpc", &grpc, &["--image", picture]),
        ("grpc", &grpc, &["--image", picture, "--model", "means", "--stream", "--timeout-ms", "60000"]),
        ("grpc", &grpc, &["--tensor", "binary", "--model", "means", "--timeout-ms", "60000"]),
        ("grpc", &grpc, &["--tensor", "binary", "--model", "means", "--stream"]),
    ];
    for (protocol, url, way) in ways {
        let before = answered(&server, protocol).await;
        let arguments = [&["--url", url, "--requests", "23", "--concurrency", "4"], way].concat();
        let output = bench(&arguments).await;
        assert!(output.status.success(), "{way:?}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["measurements"][0]["images"], 23, "{way:?}");
        assert_eq!(answered(&server, protocol).await - before, 23, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_sends_at_its_rate_and_counts_every_request_once() {
    let (server, repository) = start().await;
    let picture = repository.path().join("picture.png");
    std::fs::write(&picture, server::png([1, 2, 3])).unwrap();
    let http = format!("http://{}", server.http_address());
    let grpc = format!("grpc://{}", server.grpc_address());
    for (protocol, url) in [("http", &http), ("grpc", &grpc)] {
        let before = answered(&server, protocol).await;
        let arguments =
            ["--url", url, "--image", picture.to_str().unwrap(), "--rate", "100,200", "--duration-s", "0.5"];
        let output = bench(&arguments).await;
        assert!(output.status.success(), "{protocol}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let requests: Vec<u64> =
            report["measurements"].as_array().unwrap().iter().map(|row| row["requests"].as_u64().unwrap()).collect();
        // Poisson: 50 and 100 with standard deviations of 7 and 10; the gaps are always the same.
        assert!((30..=70).contains(&requests[0]) && (60..=140).contains(&requests[1]), "{requests:?}");
        assert_eq!(answered(&server, protocol).await - before, requests.iter().sum::<u64>(), "{protocol}");
    }
}

/// A server that answers requests with these statuses in turn.
async fn answering(statuses: &'static [u16]) -> SocketAddr {
    let turn = Arc::new(AtomicUsize::new(0));
    let answer = move || async move {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        StatusCode::from_u16(statuses[turn % statuses.len()]).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_expired_and_failed_requests_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("picture.png");
    std::fs::write(&picture, server::png([1, 2, 3])).unwrap();
    // What each row says: images, refused, expired, errors; and whether the command succeeds.
    for (statuses, counts, is_success) in [
        (&[200, 429, 503, 504][..], [2, 4, 2, 0], true),
        (&[200, 500], [4, 0, 0, 4], false),
        (&[429], [0, 8, 0, 0], false),
    ] {
        let url = format!("http://{}", answering(statuses).await);
        let arguments = ["--url", &url, "--image", picture.to_str().unwrap(), "--requests", "8", "--concurrency", "1"];
        let output = bench(&arguments).await;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let row = &report["measurements"][0];
        let found = ["images", "refused", "expired", "errors"].map(|key| row[key].as_u64().unwrap());
        assert_eq!((found, output.status.success()), (counts, is_success), "{statuses:?}");
    }
    let nobody = bench(&["--url", "http://127.0.0.1:1", "--image", picture.to_str().unwrap(), "--rate", "10"]).await;
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("there is no server at 127.0.0.1:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said_in_every_way() {
    let (server, repository) = start().await;
    let picture = repository.path().join("no-picture.png");
    std::fs::write(&picture, "no picture").unwrap();
    let picture = picture.to_str().unwrap();
    let http = format!("http://{}", server.http_address());
    let grpc = format!("grpc://{}", server.grpc_address());
    let ways: [(&[&str], &str); 8] = [
        (&["--url", &http, "--image", picture], "3 × status 415"),
        (&["--url", &grpc, "--image", picture], "3 × status 3: "),
        (&["--url", &grpc, "--image", picture, "--stream"], "3 × status 3: "),
        (&["--url", &http, "--tensor", "json", "--model", "nothing"], "there is no model called nothing"),
        (&["--url", &grpc, "--tensor", "binary", "--model", "nothing"], "there is no model called nothing"),
        (&["--url", &http, "--image", picture, "--stream"], "--stream is gRPC's"),
        (&["--url", &grpc, "--tensor", "json", "--model", "means"], "gRPC has no JSON tensors"),
        (&["--url", &http, "--tensor", "json"], "--model"),
    ];
    for (way, said) in ways {
        let output = bench(&[way, &["--requests", "3", "--concurrency", "1"]].concat()).await;
        assert!(!output.status.success(), "{way:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{way:?}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_requests_came_to_nothing_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let [picture, failures] = ["picture.png", "failures.csv"].map(|name| folder.path().join(name));
    std::fs::write(&picture, server::png([1, 2, 3])).unwrap();
    let url = format!("http://{}", answering(&[200, 503, 504, 500]).await);
    let began = unix_ms();
    let arguments = ["--url", &url, "--image", picture.to_str().unwrap(), "--rate", "100", "--duration-s", "0.5"];
    let output = bench(&[&arguments[..], &["--failures", failures.to_str().unwrap()]].concat()).await;
    let ended = unix_ms();
    let row = &serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["measurements"][0];
    let text = std::fs::read_to_string(&failures).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("due_unix_ms,took_ms,said"));
    let mut said = std::collections::BTreeMap::<_, u64>::new();
    for line in lines {
        let fields: Vec<_> = line.split(',').collect();
        assert!((began..=ended).contains(&fields[0].parse::<u128>().unwrap()), "{began} {line} {ended}");
        *said.entry(fields[2]).or_default() += 1;
    }
    let counts = [("status 503", "refused"), ("status 504", "expired"), ("status 500", "errors")];
    for (status, column) in counts {
        assert_eq!(said.get(status).copied(), row[column].as_u64(), "{status}: {text}");
        assert!(said[status] > 0, "{text}");
    }
    assert_eq!(said.len(), counts.len(), "{text}");
}

fn unix_ms() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_interrupted_reports_what_it_has_seen() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("picture.png");
    std::fs::write(&picture, server::png([1, 2, 3])).unwrap();
    let (url, turn) = counting().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.args(["bench", "--format", "json", "--warmup-s", "0", "--rate", "50", "--duration-s", "600"]);
    command.args(["--url", &url, "--image", picture.to_str().unwrap()]).stdout(std::process::Stdio::piped());
    let load = command.spawn().unwrap();
    while turn.load(Ordering::Relaxed) < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let interrupt = std::process::Command::new("kill").args(["-INT", &load.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = tokio::task::spawn_blocking(move || load.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let row = &serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["measurements"][0];
    assert_eq!(row["requests"].as_u64(), Some(turn.load(Ordering::Relaxed) as u64), "{row}");
    assert!(row["elapsed_s"].as_f64().unwrap() < 300.0, "{row}");
}

/// A server that answers every request with success, and how many it has had.
async fn counting() -> (String, Arc<AtomicUsize>) {
    let turn = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turn);
    let answer = move || async move { counted.fetch_add(1, Ordering::Relaxed).to_string() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    (url, turn)
}

/// A server that closes a connection after each answer without saying so, as one that has been idle for long.
async fn closing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                if stream.read(&mut head).await.is_ok_and(|bytes| bytes > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_closed_while_idle_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("picture.png");
    std::fs::write(&picture, server::png([1, 2, 3])).unwrap();
    let url = closing().await;
    // Far apart, so that each finds the last one's connection closed.
    let output =
        bench(&["--url", &url, "--image", picture.to_str().unwrap(), "--rate", "10", "--duration-s", "1.5"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
