//! A bucket that is away, wrong or not to be had.

use std::net::TcpListener;

use convoy::config::ServerConfig;
use convoy::server::Server;

use crate::s3::Storage;
use crate::server::start;
use crate::{
    ask, cache_is_free, config, folder, http, metric, polling, readiness, saying, says, several_looks, states, until,
};

const MODEL: &str = "m/1/model.onnx";

/// Why a server with this configuration does not start.
async fn failure(config: ServerConfig) -> String {
    let server = Server::start(config).await.unwrap();
    let failure = server.load().await.unwrap_err().chain();
    server.shutdown().await;
    failure
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_what_serves_is_untouched() {
    let storage = Storage::start().await;
    storage.put(MODEL, &saying(1.0));
    let cache = folder();
    let server = start(storage.serves(polling(config("s3://models", cache.path())))).await;
    says(&server, "m", Ok(1.0)).await;
    storage.conduct(|conduct| conduct.corrupts = Some("2/model.onnx".into()));
    storage.put("m/2/model.onnx", &saying(2.0));
    until(|| states(&server, "m"), |states| states[0].1.contains("m/2/model.onnx is damaged: its MD5 is")).await;
    assert_eq!((ask(&server, "m").await, states(&server, "m").await[0].0.as_str()), (Ok(1.0), "READY"));
    assert_eq!(metric(&server, "convoy_model_store_refused_models").await, 1.0);
    let fetches =
        || storage.conduct(|conduct| conduct.fetched.iter().filter(|key| key.ends_with("2/model.onnx")).count());
    let before = fetches();
    several_looks(&server).await;
    assert_eq!(fetches(), before, "what is wrong is not fetched again and again");
    storage.conduct(|conduct| conduct.corrupts = None);
    // Taken back, it is as it was, and nothing is wrong any more.
    storage.remove("m/2");
    until(|| states(&server, "m"), |states| states[0].1.is_empty()).await;
    storage.put("m/2/model.onnx", &saying(3.0));
    says(&server, "m", Ok(3.0)).await;
    assert_eq!(metric(&server, "convoy_model_store_refused_models").await, 0.0);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_readiness_waits_for_what_is_wrong_in_a_bucket_to_be_mended() {
    let (storage, cache) = (Storage::start().await, folder());
    let mut config = storage.serves(polling(config("s3://models", cache.path())));
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    assert_eq!(readiness(&server).await, Err("there is no model to serve".to_owned()));
    storage.put(MODEL, &saying(1.0));
    until(|| readiness(&server), Result::is_ok).await.unwrap();
    server.shutdown().await;

    storage.put("n/1/model.onnx", b"no graph");
    let cache = folder();
    let mut config = storage.serves(polling(crate::config("s3://models", cache.path())));
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    assert_eq!(readiness(&server).await, Err("these models do not serve: n".to_owned()));
    storage.put("n/1/model.onnx", &saying(2.0));
    until(|| readiness(&server), Result::is_ok).await.unwrap();
    assert_eq!((ask(&server, "m").await, ask(&server, "n").await), (Ok(1.0), Ok(2.0)));
    // Why what serves is not the newest is with the model itself, too.
    storage.put("n/1/model.onnx", b"no graph again");
    let reason =
        async || http::get(&server, "/v1/models/n").await.json()["reason"].as_str().unwrap_or_default().to_owned();
    // While it is being loaded again it says that.
    until(reason, |reason| reason.contains("the last load failed")).await;
    assert_eq!((ask(&server, "n").await, readiness(&server).await), (Ok(2.0), Ok(())));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_takes_nothing_with_it() {
    let storage = Storage::start().await;
    storage.put(MODEL, &saying(1.0));
    let cache = folder();
    let server = start(storage.serves(polling(config("s3://models", cache.path())))).await;
    says(&server, "m", Ok(1.0)).await;
    storage.conduct(|conduct| conduct.is_away = true);
    until(|| metric(&server, "convoy_model_store_up"), |up| *up == 0.0).await;
    let in_step = metric(&server, "convoy_model_store_last_success_timestamp_seconds").await;
    until(|| metric(&server, "convoy_model_store_syncs_total{outcome=\"failed\"}"), |failed| *failed >= 2.0).await;
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    assert_eq!(metric(&server, "convoy_model_store_last_success_timestamp_seconds").await, in_step);
    storage.put(MODEL, &saying(2.0));
    storage.conduct(|conduct| conduct.is_away = false);
    says(&server, "m", Ok(2.0)).await;
    assert!(metric(&server, "convoy_model_store_last_success_timestamp_seconds").await > in_step);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_from_its_cache_when_the_store_is_away() {
    let storage = Storage::start().await;
    storage.put(MODEL, &saying(1.0));
    let cache = folder();
    let config = || storage.serves(polling(config("s3://models", cache.path())));
    let server = start(config()).await;
    says(&server, "m", Ok(1.0)).await;
    server.shutdown().await;
    let folder = std::fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    cache_is_free(&cache).await;

    storage.conduct(|conduct| conduct.is_away = true);
    let server = start(config()).await;
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    assert_eq!(metric(&server, "convoy_model_store_up").await, 0.0);
    assert!(metric(&server, "convoy_model_store_last_success_timestamp_seconds").await > 1.7e9);
    storage.put(MODEL, &saying(2.0));
    storage.conduct(|conduct| conduct.is_away = false);
    says(&server, "m", Ok(2.0)).await;
    server.shutdown().await;
    cache_is_free(&cache).await;

    // What has come to harm on the disk is not served: it is fetched again, and where that cannot be, there is nothing.
    let damage = || {
        let path = folder.join("models").join(MODEL);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes[1..]).unwrap();
    };
    damage();
    let server = start(config()).await;
    assert_eq!(ask(&server, "m").await, Ok(2.0));
    server.shutdown().await;
    cache_is_free(&cache).await;
    damage();
    storage.conduct(|conduct| conduct.is_away = true);
    let failure = failure(config()).await;
    assert!(failure.contains("s3://models/: the model store"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_store_is_said_in_words() {
    let (storage, cache) = (Storage::start().await, folder());
    let at = |repository: &str| storage.serves(config(repository, cache.path()));
    let failed = failure(at("s3://nowhere")).await;
    assert!(failed.contains(&format!("there is no bucket nowhere at http://{}", storage.address)), "{failed}");
    storage.conduct(|conduct| conduct.denies = true);
    let failed = failure(at("s3://models")).await;
    assert!(failed.contains("denies access to the bucket models"), "{failed}");
    let mut config = at("s3://models");
    // A port on which nobody listens: it was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.model_store.endpoint = Some(format!("http://{address}"));
    let failed = failure(config).await;
    assert!(failed.contains("cannot be reached") && failed.contains("refused"), "{failed}");
    for (repository, said) in [("gs://models", "s3://bucket/prefix"), ("s3://", "names no bucket")] {
        let error = Server::start(at(repository)).await.unwrap_err();
        assert!(error.message().contains(said), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_lead_elsewhere_take_nothing_with_them() {
    let (storage, cache) = (Storage::start().await, folder());
    storage.put(MODEL, &saying(1.0));
    storage.put("m/.hidden/x", b"x");
    storage.put(".hidden/1/model.onnx", b"x");
    storage.put("m\\..\\n/1/model.onnx", b"x");
    let failed = failure(storage.serves(config("s3://models", cache.path()))).await;
    assert!(failed.contains("is no path of a file"), "{failed}");
    storage.remove("m\\..\\n");
    let server = start(storage.serves(config("s3://models", cache.path()))).await;
    assert_eq!((ask(&server, "m").await, ask(&server, ".hidden").await), (Ok(1.0), Err(404)));
    server.shutdown().await;
    // With nothing in a cache to fall back on.
    let cache = folder();
    let mut config = storage.serves(config("s3://models", cache.path()));
    config.model_store.max_bytes = 10;
    let failed = failure(config).await;
    assert!(failed.contains("model_store.max_bytes"), "{failed}");
}
