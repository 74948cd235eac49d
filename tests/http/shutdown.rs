//! How the server ends: in this process, and as the binary under signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream as BlockingStream;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::begin_classify;
use crate::client::Connection;
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start, within_a_minute};

fn repository() -> Repository {
    Repository::new().with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "")
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_idle_connections_are_closed() {
    let repository = repository();
    let server = start(config(&repository)).await;
    let mut idle = Connection::open(&server).await;
    idle.send(Request::get("/v2").header("host", "test").body(Full::new(Bytes::new())).unwrap()).await;

    let address = server.http_address();
    let picture = png([10, 20, 30]);
    let mut in_flight = begin_classify(&server, picture.len()).await;
    in_flight.write_all(&picture[..20]).await.unwrap();

    // A connection that has not said anything yet must not hold the end up either.
    let mut silent = TcpStream::connect(address).await.unwrap();

    let shutdown = tokio::spawn(server.shutdown());
    within_a_minute(closed(&mut idle)).await;
    assert_eq!(within_a_minute(silent.read(&mut [0])).await.unwrap(), 0);
    assert!(!shutdown.is_finished());
    // No further connection is taken.
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    in_flight.write_all(&picture[20..]).await.unwrap();
    let mut answer = String::new();
    within_a_minute(in_flight.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    within_a_minute(shutdown).await.unwrap();
}

#[tokio::test]
async fn a_head_that_never_becomes_a_request_does_not_hold_up_the_end() {
    let repository = repository();
    let mut config = config(&repository);
    config.http.idle_timeout_ms = 600_000;
    config.shutdown.timeout_ms = 600_000;
    let server = start(config).await;
    let mut trickling = TcpStream::connect(server.http_address()).await.unwrap();
    trickling.write_all(b"POST /v1/cla").await.unwrap();
    // Once a later connection has its answer, that head has most likely been read.
    let request = Request::get("/v2").header("host", "test").body(Full::new(Bytes::new())).unwrap();
    Connection::open(&server).await.send(request).await;
    within_a_minute(server.shutdown()).await;
    assert_eq!(within_a_minute(trickling.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_that_never_comes_to_an_end_is_cut_off() {
    let repository = repository();
    let mut config = config(&repository);
    config.shutdown.timeout_ms = 200;
    let server = start(config).await;
    let mut in_flight = begin_classify(&server, 100).await;
    server.shutdown().await;
    let mut answer = Vec::new();
    // Closed or reset: either way there is no answer.
    let _ = in_flight.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
}

/// Completes when the server has closed the connection.
async fn closed(connection: &mut Connection) {
    while connection.0.ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// The binary, serving.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Process {
    fn start(repository: &Repository, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_convoy"))
            .args([
                "serve",
                "--http-address",
                "127.0.0.1:0",
                "--grpc-address",
                "127.0.0.1:0",
                "--metrics-address",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ])
            .arg("--model-repository")
            .arg(repository.path())
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut process = Self { child, log, address: String::new() };
        let event = process.wait_for("HTTP listens");
        event["address"].as_str().unwrap().clone_into(&mut process.address);
        process.wait_for("ready");
        process
    }

    /// The first log event from here on that says `message`.
    fn wait_for(&mut self, message: &str) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "the log ends before `{message}`");
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
            if event["message"] == message {
                return event;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn end(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        status
    }

    fn get(&self, path: &str) -> String {
        let mut stream = BlockingStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn on_a_signal_readiness_goes_first_and_the_exit_code_is_0() {
    let repository = repository();
    for signal in ["-TERM", "-INT"] {
        let mut process = Process::start(&repository, &["--shutdown-grace-ms", "1000"]);
        assert!(process.get("/v2/health/ready").starts_with("HTTP/1.1 200"));
        process.signal(signal);
        process.wait_for("draining");
        // During the grace, requests are still taken, but the load balancer is told to send none.
        assert!(process.get("/v2/health/ready").starts_with("HTTP/1.1 503"));
        assert!(process.get("/v2/health/live").starts_with("HTTP/1.1 200"));
        process.wait_for("stopped");
        assert_eq!(process.end().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let repository = repository();
    let mut process =
        Process::start(&repository, &["--shutdown-grace-ms", "600000", "--shutdown-timeout-ms", "600000"]);
    process.signal("-TERM");
    process.wait_for("draining");
    process.signal("-TERM");
    assert_eq!(process.end().code(), Some(1));
}

/// Runs `convoy serve` to its end, which must be a failure, and returns its exit code and what it said.
fn failure(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_convoy"))
        .arg("serve")
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_keeps_the_server_from_starting_is_said_in_a_sentence() {
    let repository = repository();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = failure(&["--http-address", &address], &[]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("the HTTP address {address} cannot be used: another process listens there")),
        "{said}"
    );

    let file = repository.path().join("convoy.toml");
    std::fs::write(&file, "[http]\nadress = \"127.0.0.1:0\"\n").unwrap();
    let path = file.to_str().unwrap();
    for (arguments, environment) in [(vec!["--config", path], vec![]), (vec![], vec![("CONVOY_CONFIG", path)])] {
        let (code, said) = failure(&arguments, &environment);
        assert_eq!(code, Some(1));
        assert!(said.contains("convoy.toml: line 2: unknown field `adress`"), "{said}");
    }

    let free = ["--http-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"];
    let (code, said) = failure(&[&free[..], &["--model-repository", "/nonexistent"]].concat(), &[]);
    assert_eq!((code, said.contains("/nonexistent")), (Some(1), true), "{said}");
    let (code, said) = failure(&["--no-such-option"], &[]);
    assert_eq!((code, said.contains("--no-such-option")), (Some(2), true), "{said}");
    let (code, said) = failure(&[], &[("CONVOY_HTTP_MAX_BODY_BYTES", "many")]);
    let named = "invalid value 'many' for '--http-max-body-bytes <BYTES> [env: CONVOY_HTTP_MAX_BODY_BYTES]'";
    assert_eq!((code, said.contains(named)), (Some(2), true), "{said}");
    let (code, said) = failure(&["--http-max-body-bytes=few"], &[("CONVOY_HTTP_MAX_BODY_BYTES", "many")]);
    assert_eq!((code, said.contains("'few' for '--http-max-body-bytes <BYTES>'")), (Some(2), true), "{said}");
    // What is empty is as good as not there.
    let empty = ["CONVOY_AUTH_KEYS_FILE", "CONVOY_HTTP_MAX_BODY_BYTES", "CONVOY_CONFIG", "AIP_HTTP_PORT"];
    let empty: Vec<_> = empty.into_iter().map(|name| (name, "")).collect();
    let (code, said) = failure(&["--http-address", &address], &empty);
    assert_eq!((code, said.contains("another process listens there")), (Some(1), true), "{said}");
}

#[test]
fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
    let repository = repository();
    let file = repository.path().join("convoy.toml");
    std::fs::write(&file, "[http]\nmax_body_bytes = 0\nmax_json_depth = 0\n[shutdown]\ngrace_ms = 2\ntimeout_ms = 1\n")
        .unwrap();
    let file = file.to_str().unwrap();
    // The file's own values are refused one by one, in the order in which they are checked.
    let (_, said) = failure(&["--config", file], &[]);
    assert!(said.contains("http.max_body_bytes"), "{said}");
    let (_, said) = failure(&["--config", file], &[("CONVOY_HTTP_MAX_BODY_BYTES", "1")]);
    assert!(said.contains("http.max_json_depth"), "{said}");
    let environment = [("CONVOY_HTTP_MAX_BODY_BYTES", "1"), ("CONVOY_HTTP_MAX_JSON_DEPTH", "0")];
    let (_, said) = failure(&["--config", file, "--http-max-json-depth", "1"], &environment);
    assert!(said.contains("shutdown.timeout_ms"), "{said}");
}
