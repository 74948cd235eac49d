//! What happens below the requests: limits on connections, and clients that stand still or leave.

use std::time::Duration;

use bytes::Bytes;
use convoy::server::Server;
use http_body_util::Full;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::begin_classify;
use crate::client::{Connection, get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, start, within_a_minute};

fn repository() -> Repository {
    Repository::new().with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "")
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_connection_is_kept_for_further_requests() {
    let repository = repository();
    let server = start(config(&repository)).await;
    let mut connection = Connection::open(&server).await;
    for path in ["/v2", "/nowhere", "/v2/health/live"] {
        let request = Request::get(path).header("host", "test").body(Full::new(Bytes::new())).unwrap();
        connection.send(request).await;
    }
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_a_place() {
    let repository = repository();
    let mut config = config(&repository);
    config.http.max_connections = Some(1);
    let server = start(config).await;
    let mut first = Connection::open(&server).await;
    let request = || Request::get("/v2").header("host", "test").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(first.send(request()).await.status, 200);
    let mut second = Connection::open(&server).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), second.send(request())).await.is_err());
    drop(first);
    assert_eq!(get(&server, "/v2").await.status, 200);
}

#[tokio::test]
async fn a_head_or_a_body_that_stands_still_is_given_up() {
    let repository = repository();
    let mut config = config(&repository);
    config.http.idle_timeout_ms = 100;
    config.http.body_timeout_ms = 100;
    let server = start(config).await;

    for head in ["", "GET /v2 HTTP/1.1\r\nhost: te"] {
        let mut stream = connect(&server).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    let mut stream = begin_classify(&server, 10).await;
    stream.write_all(b"half").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.ends_with(r#"{"error":"the body stood still for 100 ms"}"#), "{answer}");
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let repository = repository();
    let mut config = config(&repository);
    config.http.body_deadline_ms = 200;
    let server = start(config).await;
    let stream = begin_classify(&server, 1 << 20).await;
    let (mut answers, mut body) = stream.into_split();
    let trickle = async {
        loop {
            // It fails once the server has closed.
            if body.write_all(b".").await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut answer = String::new();
    let read = async {
        answers.read_to_string(&mut answer).await.unwrap();
    };
    tokio::select! {
        () = trickle => {}
        () = within_a_minute(read) => {}
    }
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.ends_with(r#"{"error":"the body took longer than 200 ms"}"#), "{answer}");
}

#[tokio::test]
async fn bodies_that_do_not_fit_into_memory_are_refused_at_once_and_those_that_left_make_room() {
    let repository = repository();
    let mut config = config(&repository);
    config.http.max_body_bytes = 1000;
    config.grpc.max_message_bytes = 1000;
    config.limits.max_inflight_bytes = 1000;
    let server = start(config).await;
    let post = async |bytes: usize| {
        let answer = send(&server, "POST", "/v1/classify", &[], vec![b'.'; bytes]).await;
        (answer.status.as_u16(), answer.headers.get("retry-after").cloned())
    };
    // What is said to come takes nothing yet.
    let mut first = begin_classify(&server, 1000).await;
    assert_eq!(post(600).await.0, 415);
    first.write_all(&[b'.'; 500]).await.unwrap();
    let refused = async {
        loop {
            let (status, retry_after) = post(501).await;
            if status == 429 {
                return retry_after;
            }
        }
    };
    assert_eq!(within_a_minute(refused).await.unwrap(), "1");
    assert_eq!(post(500).await.0, 415);
    drop(first);
    let room = async { while post(1000).await.0 != 415 {} };
    within_a_minute(room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_while_it_sends_gets_its_answer() {
    const BODY_BYTES: usize = 8 << 20;
    let repository = repository();
    let mut config = config(&repository);
    config.http.max_body_bytes = 1000;
    let server = start(config).await;
    let mut stream = connect(&server).await;
    let head = format!("POST /v1/classify HTTP/1.1\r\nhost: test\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // More than the kernel holds between the two.
    stream.write_all(&vec![0; BODY_BYTES]).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let repository = repository();
    let server = start(config(&repository)).await;
    let mut stream = begin_classify(&server, 10).await;
    stream.write_all(b"half").await.unwrap();
    drop(stream);
    let counted = async {
        loop {
            let mut stream = TcpStream::connect(server.metrics_address()).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
            // The server sees either the body break off or the connection close, whichever is first.
            let left = |line: &str| line.contains("/v1/classify") && (line.contains("499") || line.contains("400"));
            if read_all(&mut stream).await.lines().any(left) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within_a_minute(counted).await;
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.http_address()).await.unwrap()
}
