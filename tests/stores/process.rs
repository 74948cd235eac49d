//! The binary: credentials come from the environment, which a test's own process cannot change.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::s3::{ACCESS_KEY, SECRET_KEY, Storage};
use crate::{folder, saying};

/// Starts `convoy serve` on the bucket with these credentials, and returns the first event of its log that says that it is ready,
/// or why it cannot be.
async fn serve(storage: &Storage, access_key: &str, secret_key: &str) -> String {
    let cache = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.args(["serve", "--log-format", "json", "--model-repository", "s3://models", "--model-store-cache"]);
    command.arg(cache.path()).args(["--model-store-poll-interval-ms", "1"]);
    for listener in ["http", "grpc", "metrics"] {
        command.args([format!("--{listener}-address"), "127.0.0.1:0".into()]);
    }
    command.env("AWS_ENDPOINT_URL", format!("http://{}", storage.address)).env("AWS_REGION", "eu-central-1");
    command.env("AWS_ACCESS_KEY_ID", access_key).env("AWS_SECRET_ACCESS_KEY", secret_key);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let said = tokio::task::spawn_blocking(move || {
        let of_interest = |line: &String| {
            let event = serde_json::from_str::<Value>(line).map(|event| event["message"].clone());
            event.is_err() || event.is_ok_and(|message| message == "ready")
        };
        log.lines().map(Result::unwrap).find(of_interest).unwrap_or_default()
    });
    let said = said.await.unwrap();
    // An error says that it has ended by itself.
    drop(child.kill());
    drop(child.wait());
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_the_environment_and_wrong_ones_are_said_so() {
    let storage = Storage::start_with_keys().await;
    storage.put("m/1/model.onnx", &saying(1.0));
    let ready = serve(&storage, ACCESS_KEY, SECRET_KEY).await;
    assert_eq!(serde_json::from_str::<Value>(&ready).unwrap()["models"], 1, "{ready}");
    let wrong_secret = serve(&storage, ACCESS_KEY, "wrong").await;
    assert!(wrong_secret.contains("AWS_SECRET_ACCESS_KEY"), "{wrong_secret}");
    let wrong_key = serve(&storage, "unknown", SECRET_KEY).await;
    assert!(wrong_key.contains("denies access to the bucket models"), "{wrong_key}");
}
