//! Models whose configuration says `"auto"`: tuned when they are first loaded, out of the cache afterwards.
//!
//! What is fastest here depends on the machine, so nothing is expected of a measured choice but that it is one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/graphs.rs"]
mod graphs;
#[expect(dead_code, reason = "other tests need more of a client")]
#[path = "support/http.rs"]
mod http;
#[expect(dead_code, reason = "other tests need more of a server")]
#[path = "support/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use convoy::config::ServerConfig;
use convoy::repository::ModelControlMode;
use convoy::server::Server;
use serde_json::{Value, json};
use server::Repository;

const SIDE: i64 = 8;
/// Everything is open, and little time is spent on it.
const AUTO: &str = "max_batch_size = \"auto\"\n[instances]\ncount = \"auto\"\nintra_op_threads = \"auto\"\n\
                    [tuning]\nbudget_ms = 60\n";

fn repository(config: &str) -> Repository {
    Repository::new().with("m", &graphs::convolutional(SIDE, 4), config, "")
}

fn config(repository: &Repository, cache: &Path) -> ServerConfig {
    let mut config = server::config(repository);
    config.tuning.cache = Some(cache.to_owned());
    config
}

/// The largest batch and the number of instances that clients are told.
async fn served(server: &Server) -> (u64, u64) {
    let config = http::get(server, "/v2/models/m/config").await.json();
    (config["max_batch_size"].as_u64().unwrap(), config["instance_group"][0]["count"].as_u64().unwrap())
}

/// The one file in the cache.
fn cached(cache: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_tuned_once_and_the_cache_decides_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("tuning");
    let repository = repository(AUTO);
    let first = server::start(config(&repository, &cache)).await;
    let path = cached(&cache);
    let entry = read(&path);
    let choice = |entry: &Value| {
        let choice = &entry["choice"];
        (choice["max_batch_size"].as_u64().unwrap(), choice["instances"].as_u64().unwrap())
    };
    assert_eq!(served(&first).await, choice(&entry));
    assert!(entry["measurements"].as_array().unwrap().iter().any(|it| it["max_batch_size"] == 1), "{entry}");
    first.shutdown().await;

    // The grid ends at 8: a server that has 16 has it from the cache.
    let mut planted = entry.clone();
    planted["choice"] = json!({ "max_batch_size": 16, "intra_op_threads": 1, "instances": 1 });
    std::fs::write(&path, planted.to_string()).unwrap();
    let second = server::start(config(&repository, &cache)).await;
    assert_eq!(served(&second).await, (16, 1));
    second.shutdown().await;

    // A damaged one is measured and written again.
    std::fs::write(&path, &planted.to_string()[..40]).unwrap();
    let third = server::start(config(&repository, &cache)).await;
    assert_eq!(served(&third).await, choice(&read(&cached(&cache))));
    third.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_stand_and_overrides_may_say_auto() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository("max_batch_size = 3");
    let mut config = config(&repository, folder.path());
    config.model_control.mode = ModelControlMode::Explicit;
    config.model_control.load = vec!["m".to_owned()];
    let server = server::start(config).await;
    assert_eq!(served(&server).await.0, 3);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was auto");

    let overriding = json!({
        "max_batch_size": "auto", "instances": { "count": 3, "intra_op_threads": 1 }, "tuning": { "budget_ms": 60 },
    });
    let body = json!({ "parameters": { "config": overriding.to_string() } }).to_string();
    let headers = [("content-type", "application/json")];
    let answer = http::send(&server, "POST", "/v2/repository/models/m/load", &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (batch, instances) = served(&server).await;
    assert_eq!(instances, 3);
    let entry = read(&cached(folder.path()));
    assert_eq!(entry["choice"]["max_batch_size"], batch);
    for measured in entry["measurements"].as_array().unwrap() {
        assert_eq!((&measured["instances"], &measured["intra_op_threads"]), (&json!(3), &json!(1)));
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_does_not_wait_for_what_is_tuned() {
    let folder = tempfile::tempdir().unwrap();
    // An hour, and half a minute for a single look.
    let repository = repository(&AUTO.replace("budget_ms = 60", "budget_ms = 3600000"));
    let mut config = config(&repository, folder.path());
    config.model_control.mode = ModelControlMode::Explicit;
    let server = server::start(config).await;
    let address = server.http_address();
    let load = tokio::spawn(async move {
        http::send_to(address, "POST", "/v2/repository/models/m/load", &[], "").await.status.as_u16()
    });
    while !http::send(&server, "POST", "/v2/repository/index", &[], "").await.json().to_string().contains("measured") {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.shutdown().await;
    assert_eq!(load.await.unwrap(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_batch_and_a_cache_that_cannot_be_are_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let repository = Repository::new().with("m", &graphs::channel_means(SIDE, Some(2)), AUTO, "");
    let server = server::start(config(&repository, &file)).await;
    let index = http::send(&server, "POST", "/v2/repository/index", &[], "").await.json();
    assert_eq!(index[0]["state"], "READY", "{index}");
    server.shutdown().await;
}

fn tune(repository: &Repository, cache: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.arg("tune").args(arguments).arg("--cache").arg(cache);
    command.arg("--model-repository").arg(repository.path()).output().unwrap()
}

#[test]
fn the_command_prints_what_it_chose_and_what_it_measured() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository(AUTO).with("e", &graphs::channel_means(SIDE, None), "members = [\"m\"]", "");
    let output = tune(&repository, folder.path(), &["--json", "--full"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The ensemble is none of them.
    assert_eq!(reports.as_array().unwrap().len(), 1, "{reports}");
    let report = &reports[0];
    assert_eq!((&report["model_name"], &report["model_version"]), (&json!("m"), &json!(1)));
    assert_eq!((&report["provider"], &report["is_cached"]), (&json!("cpu"), &json!(false)));
    assert_eq!(report["choice"], read(&cached(folder.path()))["choice"]);
    let sweep = &report["full_sweep"];
    assert!(sweep["measurements"].as_array().unwrap().len() > report["measurements"].as_array().unwrap().len() / 2);
    assert!(sweep["choice_of_best"].as_f64().unwrap() > 0.0, "{sweep}");

    let again: Value = serde_json::from_slice(&tune(&repository, folder.path(), &["--json", "m"]).stdout).unwrap();
    assert_eq!((&again[0]["is_cached"], &again[0]["choice"]), (&json!(true), &report["choice"]));
    let fresh: Value =
        serde_json::from_slice(&tune(&repository, folder.path(), &["--json", "--fresh"]).stdout).unwrap();
    assert_eq!(fresh[0]["is_cached"], false);

    let text = String::from_utf8(tune(&repository, folder.path(), &["m"]).stdout).unwrap();
    assert!(text.contains("chosen") && text.contains("[instances]\ncount = "), "{text}");
}

#[test]
fn what_cannot_be_tuned_is_said_and_keeps_no_other_from_being() {
    let folder = tempfile::tempdir().unwrap();
    let settled = "max_batch_size = 1\n[instances]\ncount = 1\nintra_op_threads = 1\n";
    let repository = repository(AUTO)
        .with("e", &graphs::channel_means(SIDE, None), "members = [\"m\"]", "")
        .with("settled", &graphs::channel_means(SIDE, None), settled, "")
        .with_broken("broken");
    let output = tune(&repository, folder.path(), &["--json", "e", "settled", "broken", "nowhere", "../m", "m"]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    for said in ["e is an ensemble", "settled: ", "broken: ", "no model nowhere", "no model ../m"] {
        assert!(stderr.contains(said), "{said} in {stderr}");
    }
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reports[0]["model_name"], "m");
}
