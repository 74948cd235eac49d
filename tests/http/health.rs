//! `convoy health` against servers in every state.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use convoy::server::Server;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::get;
use crate::graphs::channel_means;
use crate::server::{Repository, config, within_a_minute};

/// Why the server is not healthy, or `None` when it is.
async fn health(arguments: &[&str], environment: &[(&str, &str)]) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.env_clear().arg("health").args(arguments).envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty());
    match output.status.code() {
        Some(0) => assert_eq!(error, ""),
        Some(1) => assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}"),
        code => panic!("{code:?}: {error}"),
    }
    (!output.status.success()).then_some(error)
}

async fn health_at(address: SocketAddr, arguments: &[&str]) -> Option<String> {
    health(&[&["--metrics-address", &address.to_string()], arguments].concat(), &[]).await
}

/// A server that has the same answer for everything, once.
async fn foreign(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The request is shorter than that, and comes in one piece.
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_are_missing_are_named() {
    let repository = Repository::new().with("means", &channel_means(8, None), "", "").with_broken("lost");
    let mut config = config(&repository);
    config.model_control.strict_readiness = true;
    let keys_file = repository.path().join(".keys.toml");
    std::fs::write(&keys_file, "").unwrap();
    let mut closed = config.clone();
    closed.auth.keys_file = Some(keys_file);

    let server = crate::server::start(config).await;
    let said = "these models do not serve: lost";
    let error = health_at(server.metrics_address(), &[]).await.unwrap();
    assert!(error.contains(&format!("is not ready: {said}")), "{error}");
    for path in ["/v2/health/ready", "/ping"] {
        let answer = get(&server, path).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (503, json!({"ready": false, "error": said})), "{path}");
    }
    // Where keys are asked for, the names of the models are not for everybody.
    let server = crate::server::start(closed).await;
    let answer = get(&server, "/v2/health/ready").await;
    assert!(answer.status == 503 && !answer.json()["error"].as_str().unwrap().contains("lost"), "{answer:?}");
    let error = health_at(server.metrics_address(), &[]).await.unwrap();
    assert!(error.contains(said), "{error}");
}

#[test]
fn the_log_says_once_whether_the_server_is_ready_and_when_it_becomes_so() {
    let repository = Repository::new().with("means", &channel_means(8, None), "", "").with_broken("lost");
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.args(["serve", "--log-format", "json", "--model-control-strict-readiness", "true"]);
    command.args(["--model-control-mode", "poll", "--model-control-poll-interval-ms", "40", "--model-repository"]);
    command.arg(repository.path());
    for listener in ["http", "grpc", "metrics"] {
        command.args([format!("--{listener}-address"), "127.0.0.1:0".into()]);
    }
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let events = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut events = events.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    // What is said of readiness until it has been said twice: at the start, and when the model is mended.
    let mut of_readiness = || {
        let events = events.by_ref();
        let is_of_readiness = |event: &Value| event["message"].as_str().is_some_and(|said| said.contains("ready"));
        events.find(is_of_readiness).unwrap()
    };
    let first = of_readiness();
    assert_eq!((&first["message"], &first["level"]), (&json!("not ready"), &json!("WARN")));
    assert_eq!(first["reason"], "these models do not serve: lost");
    let mended = Repository::new().with("lost", &channel_means(8, None), "", "");
    std::fs::copy(mended.path().join("lost/1/model.onnx"), repository.path().join("lost/1/model.onnx")).unwrap();
    let second = of_readiness();
    assert_eq!(second["message"], "ready: every model that is to be served does");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(events.find(|event| event["message"].as_str().is_some_and(|said| said.contains("ready"))), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_follows_the_server_from_its_start_to_its_end() {
    let repository = Repository::new();
    let mut config = config(&repository);
    config.shutdown.grace_ms = 60_000;
    config.shutdown.timeout_ms = 60_000;
    let server = Server::start(config).await.unwrap();
    let address = server.metrics_address();
    let loading = health_at(address, &[]).await.unwrap();
    assert!(loading.contains("is not ready: the server is loading its models"), "{loading}");
    assert_eq!(health_at(address, &["--live"]).await, None);
    server.load().await.unwrap();
    assert_eq!(health_at(address, &[]).await, None);

    let ending = tokio::spawn(server.shutdown());
    let ends =
        |error: Option<String>| error.is_some_and(|error| error.contains("is not ready: the server is shutting down"));
    within_a_minute(async { while !ends(health_at(address, &[]).await) {} }).await;
    assert_eq!(health_at(address, &["--live"]).await, None);
    ending.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_found_where_its_own_configuration_says() {
    let repository = Repository::new();
    let server = crate::server::start(config(&repository)).await;
    let port = server.metrics_address().port();
    let everywhere = format!("0.0.0.0:{port}");
    let file = repository.path().join("convoy.toml");
    std::fs::write(&file, format!("[metrics]\naddress = \"{everywhere}\"\n")).unwrap();
    let file = file.to_str().unwrap();

    assert_eq!(health(&["--metrics-address", &everywhere], &[]).await, None);
    assert_eq!(health(&[], &[("CONVOY_METRICS_ADDRESS", &everywhere)]).await, None);
    assert_eq!(health(&["--config", file], &[]).await, None);
    assert_eq!(health(&[], &[("CONVOY_CONFIG", file)]).await, None);
    assert_eq!(health(&["--url", &format!("http://localhost:{port}")], &[]).await, None);
    // What goes to this machine needs no proxy, whatever the environment says.
    let proxy = ("HTTP_PROXY", "http://127.0.0.1:9");
    assert_eq!(health(&[], &[("CONVOY_METRICS_ADDRESS", &everywhere), proxy]).await, None);
    // The environment goes before the file, the command line before the environment.
    let elsewhere = ("CONVOY_METRICS_ADDRESS", "127.0.0.1:0");
    assert!(health(&["--config", file], &[elsewhere]).await.unwrap().contains("--url"));
    assert_eq!(health(&["--metrics-address", &everywhere], &[elsewhere]).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_healthy_server_is_said_in_a_sentence() {
    let server = crate::server::start(config(&Repository::new())).await;
    // A listener that accepts and says nothing, as a frozen process does, and a port on which nobody listens.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let error = health_at(frozen.local_addr().unwrap(), &["--timeout-ms", "50"]).await.unwrap();
    assert!(error.contains("has not answered within 50 ms"), "{error}");
    let error = health_at(nobody, &[]).await.unwrap();
    assert!(error.contains(&format!("there is no server at http://{nobody}")), "{error}");
    let error = health_at(server.grpc_address(), &[]).await.unwrap();
    assert!(error.contains("does not speak HTTP/1.1") && error.contains("gRPC"), "{error}");
    let error = health_at(server.http_address(), &["--live"]).await;
    assert_eq!(error, None);
    // What else there is on this machine: it answers as ill as can be.
    let address = foreign("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno").await;
    let error = health_at(address, &[]).await.unwrap();
    assert!(error.contains("answers 503, and not as convoy does"), "{error}");
    let address = foreign("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let error = health_at(address, &[]).await.unwrap();
    assert!(error.contains("answers 404 Not Found: that is no convoy's metrics port"), "{error}");
    let missing = health(&["--config", "/nonexistent/convoy.toml"], &[]).await.unwrap();
    assert!(missing.contains("/nonexistent/convoy.toml"), "{missing}");
}
