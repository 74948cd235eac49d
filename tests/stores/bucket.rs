//! Models in a bucket: served, followed, and loaded by API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use convoy::server::Server;
use sha2::{Digest, Sha256};

use crate::s3::Storage;
use crate::server::{PLAIN_RECIPE, Repository, png, start};
use crate::{
    ask, cache_is_free, config, control, explicit, folder, graphs, http, metric, polling, readiness, saying, says,
    several_looks, states, until,
};

const MODEL: &str = "m/1/model.onnx";

/// A list of checksums as `sha256sum` writes it.
fn sums(files: &[(&str, &[u8])]) -> Vec<u8> {
    let line = |(path, bytes): &(&str, &[u8])| format!("{}  {path}\n", convoy::sha256::hex(&Sha256::digest(bytes)));
    files.iter().map(line).collect::<String>().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_answers_as_the_folder_that_was_copied_into_it() {
    let repository =
        Repository::new().with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "red\ngreen\nblue\n");
    let storage = Storage::start().await;
    for file in ["means/1/model.onnx", "means/config.toml", "means/labels.txt"] {
        storage.put(&format!("a/prefix/{file}"), &std::fs::read(repository.path().join(file)).unwrap());
    }
    storage.put("a/prefix/readme.txt", b"no model");
    storage.put("a/other/m/1/model.onnx", b"not below the prefix");
    let cache = folder();
    let stored = start(storage.serves(config("s3://models/a/prefix", cache.path()))).await;
    let plain = start(crate::server::config(&repository)).await;
    let classify = async |server: &Server| {
        let path = "/v1/models/means/classify";
        let answer = http::send(server, "POST", path, &[("content-type", "image/png")], png([200, 30, 90])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["predictions"].clone()
    };
    let predictions = classify(&stored).await;
    assert_eq!(predictions, classify(&plain).await);
    assert_eq!(predictions[0]["classes"][0]["label"], "red");
    let bytes: u64 = ["means/1/model.onnx", "means/config.toml", "means/labels.txt"]
        .map(|file| std::fs::metadata(repository.path().join(file)).unwrap().len())
        .iter()
        .sum();
    assert_eq!(metric(&stored, "convoy_model_store_fetched_bytes_total").await, bytes as f64);
    assert_eq!(metric(&stored, "convoy_model_store_up").await, 1.0);
    assert!(metric(&stored, "convoy_model_store_last_success_timestamp_seconds").await > 1.7e9);
    stored.shutdown().await;
    plain.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_bucket_is_followed() {
    let storage = Storage::start().await;
    storage.put(MODEL, &saying(1.0));
    let cache = folder();
    let server = start(storage.serves(polling(config("s3://models", cache.path())))).await;
    says(&server, "m", Ok(1.0)).await;
    storage.put("m/2/model.onnx", &saying(2.0));
    says(&server, "m", Ok(2.0)).await;
    storage.put("n/1/model.onnx", &saying(3.0));
    says(&server, "n", Ok(3.0)).await;
    // A version that stays is kept, with its statistics; and nothing is fetched twice.
    storage.put("m/config.toml", b"versions = \"all\"");
    says(&server, "m/versions/1", Ok(1.0)).await;
    let count = async || {
        let statistics = http::get(&server, "/v2/models/m/versions/1/stats").await.json();
        statistics["model_stats"][0]["inference_count"].as_u64().unwrap()
    };
    let before = count().await;
    storage.put("m/2/model.onnx", &saying(4.0));
    says(&server, "m", Ok(4.0)).await;
    assert!(count().await >= before && before > 0);
    assert_eq!(storage.conduct(|conduct| conduct.fetched.iter().filter(|key| *key == MODEL).count()), 1);
    storage.remove("n");
    says(&server, "n", Err(404)).await;
    assert_eq!((ask(&server, "m").await, states(&server, "n").await), (Ok(4.0), vec![]));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_emptied_takes_no_model_with_it() {
    let storage = Storage::start().await;
    storage.put(MODEL, &saying(1.0));
    storage.put("n/1/model.onnx", &saying(2.0));
    let cache = folder();
    let mut config = storage.serves(polling(config("s3://models", cache.path())));
    config.model_control.strict_readiness = true;
    let server = start(config.clone()).await;
    let refused = async |server: &Server| metric(server, "convoy_model_store_refused_models").await;
    assert_eq!((ask(&server, "m").await, ask(&server, "n").await, refused(&server).await), (Ok(1.0), Ok(2.0), 0.0));
    storage.conduct(|conduct| conduct.is_emptied = true);
    until(|| refused(&server), |refused| *refused == 2.0).await;
    several_looks(&server).await;
    assert_eq!((ask(&server, "m").await, ask(&server, "n").await), (Ok(1.0), Ok(2.0)));
    assert_eq!((readiness(&server).await, metric(&server, "convoy_model_store_up").await), (Ok(()), 1.0));
    // One of two is an ordinary removal, be it that the other comes back.
    storage.remove("n");
    storage.conduct(|conduct| conduct.is_emptied = false);
    says(&server, "n", Err(404)).await;
    assert_eq!((ask(&server, "m").await, refused(&server).await), (Ok(1.0), 0.0));
    server.shutdown().await;

    // Nor does one that was emptied while no server looked, as long as there is the cache.
    cache_is_free(&cache).await;
    storage.conduct(|conduct| conduct.is_emptied = true);
    let server = start(config).await;
    assert_eq!((ask(&server, "m").await, refused(&server).await, readiness(&server).await), (Ok(1.0), 1.0, Ok(())));
    storage.remove("m");
    storage.put("n/1/model.onnx", &saying(3.0));
    storage.conduct(|conduct| conduct.is_emptied = false);
    says(&server, "n", Ok(3.0)).await;
    says(&server, "m", Err(404)).await;
    assert_eq!(refused(&server).await, 0.0);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_taken_when_its_list_of_checksums_says_that_it_is_whole() {
    let storage = Storage::start().await;
    let (one, two) = (saying(1.0), saying(2.0));
    storage.put(MODEL, &one);
    storage.put("m/SHA256SUMS", &sums(&[("1/model.onnx", &one)]));
    let cache = folder();
    let server = start(storage.serves(polling(config("s3://models", cache.path())))).await;
    says(&server, "m", Ok(1.0)).await;
    // Half of an upload: it may rest for as long as it likes.
    storage.put(MODEL, &two);
    several_looks(&server).await;
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    until(|| states(&server, "m"), |states| states[0].1.contains("1/model.onnx is not the file that SHA256SUMS names"))
        .await;
    storage.put("m/labels.txt", b"a\nb\nc\n");
    storage.put("m/SHA256SUMS", &sums(&[("1/model.onnx", &two), ("labels.txt", b"a\nb\nc\n")]));
    says(&server, "m", Ok(2.0)).await;
    until(|| states(&server, "m"), |states| states[0].1.is_empty()).await;
    assert_eq!(metric(&server, "convoy_model_store_refused_models").await, 0.0);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_without_a_list_is_taken_once_and_when_it_rests() {
    const SLOW: std::time::Duration = std::time::Duration::from_millis(500);
    for attempt in 0..10 {
        let storage = Storage::start().await;
        storage.put(MODEL, &saying(1.0));
        let cache = folder();
        let mut config = storage.serves(polling(config("s3://models", cache.path())));
        config.model_store.poll_interval_ms = SLOW.as_millis() as u64;
        let server = start(config).await;
        says(&server, "m", Ok(1.0)).await;
        // Objects that come one after the other, over three settle times.
        let mut longest = std::time::Duration::ZERO;
        for number in 0..12 {
            let before = std::time::Instant::now();
            storage.put(MODEL, &saying(2.0 + number as f32));
            tokio::time::sleep(SLOW / 4).await;
            longest = longest.max(before.elapsed());
            if longest < SLOW / 2 {
                assert_eq!(ask(&server, "m").await, Ok(1.0));
            }
        }
        says(&server, "m", Ok(13.0)).await;
        // An upload that this machine itself held up was over, for all that anybody could see: it says nothing.
        if longest < SLOW / 2 {
            return;
        }
        assert!(attempt < 9, "the machine is too busy for this test");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_load_what_the_bucket_has_at_that_moment() {
    let storage = Storage::start().await;
    storage.put(MODEL, &saying(1.0));
    storage.put("n/1/model.onnx", &saying(2.0));
    let cache = folder();
    let server = start(storage.serves(explicit(config("s3://models", cache.path()), &["m"]))).await;
    assert_eq!((ask(&server, "m").await, ask(&server, "n").await), (Ok(1.0), Err(404)));
    assert_eq!(states(&server, "n").await, [("UNAVAILABLE".into(), "not loaded".into())]);
    assert_eq!(storage.conduct(|conduct| conduct.fetched.clone()), [MODEL], "only what is loaded is fetched");
    assert_eq!(control(&server, "n", "load").await, (200, String::new()));
    assert_eq!(ask(&server, "n").await, Ok(2.0));
    storage.put(MODEL, &saying(3.0));
    assert_eq!(control(&server, "m", "load").await, (200, String::new()));
    assert_eq!(ask(&server, "m").await, Ok(3.0));
    let (status, error) = control(&server, "o", "load").await;
    assert!(status == 404 && error.contains("no model o in s3://models/"), "{status} {error}");
    for outside in ["..%2fm", ".m", "m%2f1"] {
        assert_eq!(control(&server, outside, "load").await.0, 404, "{outside}");
    }
    // Whoever asks for the newest is told when it cannot be had, and what serves goes on.
    storage.conduct(|conduct| conduct.is_away = true);
    let (status, error) = control(&server, "m", "load").await;
    assert!(status == 503 && error.contains("cannot be reached or does not answer"), "{status} {error}");
    assert_eq!(ask(&server, "m").await, Ok(3.0));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_loses_no_request() {
    let storage = Storage::start().await;
    storage.put(MODEL, &saying(0.0));
    let cache = folder();
    let server = Arc::new(start(storage.serves(polling(config("s3://models", cache.path())))).await);
    says(&server, "m", Ok(0.0)).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (server, is_over) = (Arc::clone(&server), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut said = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    said.push(ask(&server, "m").await.expect("a request failed"));
                }
                said
            })
        })
        .collect();
    for version in 1..=5 {
        storage.put(MODEL, &saying(version as f32));
        says(&server, "m", Ok(version as f32)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        let said = client.await.unwrap();
        assert!(
            said.is_sorted() && said.last() == Some(&5.0),
            "each answer is of a version no older than the last: {said:?}"
        );
    }
}
