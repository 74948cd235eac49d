//! A server that follows its repository's folder.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use convoy::config::ServerConfig;
use convoy::repository::ModelControlMode;

use crate::server::{Repository, config, start};
use crate::{ask, graphs, http, loads, put, saying, short_states, states, until};

fn poll(repository: &Repository, interval_ms: u64) -> ServerConfig {
    let mut config = config(repository);
    config.model_control.mode = ModelControlMode::Poll;
    config.model_control.poll_interval_ms = interval_ms;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_followed() {
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(poll(&repository, 40)).await;
    let says = async |model: &str, what: Result<f32, u16>| until(|| ask(&server, model), |said| *said == what).await;
    says("m", Ok(1.0)).await.unwrap();
    // A graph, a model, a version.
    put(repository.path(), "m/1", &saying(2.0));
    says("m", Ok(2.0)).await.unwrap();
    put(repository.path(), "n/1", &saying(3.0));
    says("n", Ok(3.0)).await.unwrap();
    put(repository.path(), "n/2", &saying(4.0));
    says("n", Ok(4.0)).await.unwrap();
    until(|| short_states(&server, "n"), |states| states == &["2 READY"]).await;
    // A configuration, there and gone.
    fs::write(repository.path().join("n/config.toml"), "versions = \"all\"").unwrap();
    until(|| short_states(&server, "n"), |states| states == &["1 READY", "2 READY"]).await;
    fs::remove_file(repository.path().join("n/config.toml")).unwrap();
    until(|| short_states(&server, "n"), |states| states == &["2 READY"]).await;
    // A version that goes, and one that breaks and is repaired.
    fs::remove_dir_all(repository.path().join("n/2")).unwrap();
    says("n", Ok(3.0)).await.unwrap();
    fs::write(repository.path().join("n/1/model.onnx"), "broken").unwrap();
    until(|| states(&server, "n"), |states| states[0].2.contains("the last load failed")).await;
    assert_eq!(ask(&server, "n").await, Ok(3.0));
    put(repository.path(), "n/1", &saying(5.0));
    says("n", Ok(5.0)).await.unwrap();
    assert_eq!(states(&server, "n").await[0].2, "");
    // The model itself.
    fs::remove_dir_all(repository.path().join("n")).unwrap();
    says("n", Err(404)).await.unwrap_err();
    assert_eq!((states(&server, "n").await, ask(&server, "m").await), (vec![], Ok(2.0)));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_unmounted_takes_no_model_with_it() {
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(poll(&repository, 40)).await;
    // What is left is another folder, the mount point.
    let elsewhere = tempfile::tempdir().unwrap();
    let volume = elsewhere.path().join("volume");
    fs::rename(repository.path(), &volume).unwrap();
    fs::create_dir(repository.path()).unwrap();
    // Many times as long as it takes for a model to be taken for removed.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    put(&volume, "m/1", &saying(2.0));
    fs::remove_dir(repository.path()).unwrap();
    fs::rename(&volume, repository.path()).unwrap();
    until(|| ask(&server, "m"), |said| *said == Ok(2.0)).await.unwrap();
    // Within the folder, the last one goes like any other.
    fs::remove_dir_all(repository.path().join("m")).unwrap();
    until(|| ask(&server, "m"), |said| *said == Err(404)).await.unwrap_err();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_written_just_now_serves_when_the_server_is_ready() {
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    // Far longer than from the writing to the start.
    let server = start(poll(&repository, 2_000)).await;
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_copy_is_loaded_once_and_whole() {
    const INTERVAL: Duration = Duration::from_millis(600);
    let folder = tempfile::tempdir().unwrap();
    let model = fs::read(graphs::write(folder.path(), &saying(2.0))).unwrap();
    // A copy that this machine itself held up for long was not slow but over, for all that anybody can see: it says nothing.
    for attempt in 0..10 {
        let repository = Repository::new().with("m", &saying(1.0), "", "");
        let server = start(poll(&repository, INTERVAL.as_millis() as u64)).await;
        until(|| ask(&server, "m"), |said| *said == Ok(1.0)).await.unwrap();
        let mut file = fs::File::create(repository.path().join("m/1/model.onnx")).unwrap();
        let mut longest = Duration::ZERO;
        // Over three settle times.
        for piece in model.chunks(model.len().div_ceil(24)) {
            let before = Instant::now();
            file.write_all(piece).unwrap();
            tokio::time::sleep(INTERVAL / 8).await;
            longest = longest.max(before.elapsed());
            assert_eq!(ask(&server, "m").await, Ok(1.0));
        }
        until(|| ask(&server, "m"), |said| *said == Ok(2.0)).await.unwrap();
        let (good, bad) = (loads(&server, "m", "success").await, loads(&server, "m", "failed").await);
        if longest < INTERVAL / 2 {
            assert_eq!((good, bad), (2, 0), "after {attempt} attempts");
            return;
        }
    }
    panic!("the machine is too busy for this test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_has_not_changed_is_kept() {
    let repository = Repository::new().with("m", &saying(1.0), "versions = \"all\"", "");
    let server = start(poll(&repository, 40)).await;
    until(|| ask(&server, "m"), |said| *said == Ok(1.0)).await.unwrap();
    let count = async || {
        let statistics = http::get(&server, "/v2/models/m/versions/1/stats").await.json();
        statistics["model_stats"][0]["inference_count"].as_u64().unwrap()
    };
    let before = count().await;
    put(repository.path(), "m/2", &saying(2.0));
    until(|| ask(&server, "m"), |said| *said == Ok(2.0)).await.unwrap();
    assert_eq!(ask(&server, "m/versions/1").await, Ok(1.0));
    // Its statistics are its own: those of a version that was loaded again begin anew.
    assert!(count().await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_goes_takes_nothing_with_it_and_is_followed_again() {
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(poll(&repository, 40)).await;
    until(|| ask(&server, "m"), |said| *said == Ok(1.0)).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let away = elsewhere.path().join("away");
    fs::rename(repository.path(), &away).unwrap();
    // Many settle times, in which nothing must happen.
    let long_after = Instant::now() + Duration::from_millis(400);
    while Instant::now() < long_after {
        assert_eq!(ask(&server, "m").await, Ok(1.0));
    }
    fs::rename(&away, repository.path()).unwrap();
    put(repository.path(), "m/1", &saying(2.0));
    until(|| ask(&server, "m"), |said| *said == Ok(2.0)).await.unwrap();
    put(repository.path(), "n/1", &saying(3.0));
    until(|| ask(&server, "n"), |said| *said == Ok(3.0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_model_that_is_broken_does_not_take_a_ready_server_out() {
    let repository = Repository::new();
    let mut config = poll(&repository, 40);
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    let ready = async || http::get(&server, "/v2/health/ready").await.status.as_u16();
    // Nothing to serve is not enough.
    assert_eq!(ready().await, 503);
    put(repository.path(), "m/1", &saying(1.0));
    until(&ready, |status| *status == 200).await;
    fs::create_dir_all(repository.path().join("n/1")).unwrap();
    fs::write(repository.path().join("n/1/model.onnx"), "broken").unwrap();
    until(|| short_states(&server, "n"), |states| states == &["1 UNAVAILABLE"]).await;
    assert_eq!(ready().await, 200);
    // Who starts with it has never been complete.
    let mut config = poll(&repository, 40);
    config.model_control.strict_readiness = true;
    let other = start(config).await;
    assert_eq!(http::get(&other, "/v2/health/ready").await.status, 503);
    put(repository.path(), "n/1", &saying(2.0));
    until(|| async { http::get(&other, "/v2/health/ready").await.status.as_u16() }, |status| *status == 200).await;
}
