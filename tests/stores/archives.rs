//! Models in archives and images. What their reader takes and refuses is tested beside it.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::server::start;
use crate::{ask, config, control, explicit, folder, metric, polling, readiness, saying, says, several_looks, until};

/// An archive of files, which takes the place of the one at `path` as whoever takes care does it.
fn write(path: &Path, files: &[(&str, &[u8])]) {
    let beside = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    fs::write(beside.path(), tar(files)).unwrap();
    beside.persist(path).unwrap();
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_served_and_followed() {
    let (folder, cache) = (folder(), folder());
    let path = folder.path().join("models.tar");
    write(&path, &[("m/1/model.onnx", &saying(1.0)), ("n/1/model.onnx", &saying(2.0))]);
    let server = start(polling(config(path.to_str().unwrap(), cache.path()))).await;
    says(&server, "m", Ok(1.0)).await;
    says(&server, "n", Ok(2.0)).await;
    write(&path, &[("m/1/model.onnx", &saying(3.0)), ("m/2/model.onnx", &saying(4.0))]);
    says(&server, "m", Ok(4.0)).await;
    says(&server, "n", Err(404)).await;
    // One that is cut off, and one that is gone, take nothing with them.
    let whole = tar(&[("m/3/model.onnx", &saying(5.0))]);
    fs::write(&path, &whole[..whole.len() - 1024]).unwrap();
    several_looks(&server).await;
    assert_eq!(metric(&server, "convoy_model_store_refused_models").await, 1.0);
    fs::remove_file(&path).unwrap();
    several_looks(&server).await;
    assert_eq!(ask(&server, "m").await, Ok(4.0));
    fs::write(&path, &whole).unwrap();
    says(&server, "m", Ok(5.0)).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_empty_at_first_is_filled_later_and_not_emptied_again() {
    let (folder, cache) = (folder(), folder());
    let path = folder.path().join("models.tar");
    write(&path, &[("readme.txt", b"models will come")]);
    let mut config = polling(config(path.to_str().unwrap(), cache.path()));
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    assert_eq!(readiness(&server).await, Err("there is no model to serve".to_owned()));
    write(&path, &[("m/1/model.onnx", &saying(1.0))]);
    says(&server, "m", Ok(1.0)).await;
    until(|| readiness(&server), Result::is_ok).await.unwrap();
    write(&path, &[("readme.txt", b"the models have gone")]);
    until(|| metric(&server, "convoy_model_store_refused_models"), |refused| *refused == 1.0).await;
    several_looks(&server).await;
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_readiness_waits_for_an_archive_to_be_mended() {
    let (folder, cache) = (folder(), folder());
    let path = folder.path().join("models.tar");
    write(&path, &[("m/1/model.onnx", &saying(1.0)), ("n/1/model.onnx", b"no graph")]);
    let mut config = polling(config(path.to_str().unwrap(), cache.path()));
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    assert_eq!(readiness(&server).await, Err("these models do not serve: n".to_owned()));
    assert_eq!(ask(&server, "m").await, Ok(1.0), "it answers whoever asks all the same");
    write(&path, &[("m/1/model.onnx", &saying(1.0)), ("n/1/model.onnx", &saying(2.0))]);
    until(|| readiness(&server), Result::is_ok).await.unwrap();
    assert_eq!(ask(&server, "n").await, Ok(2.0));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_load_what_an_archive_has_at_that_moment() {
    let (folder, cache) = (folder(), folder());
    let path = folder.path().join("models.tar");
    write(&path, &[("m/1/model.onnx", &saying(1.0)), ("n/1/model.onnx", &saying(2.0))]);
    let server = start(explicit(config(path.to_str().unwrap(), cache.path()), &["*"])).await;
    assert_eq!((ask(&server, "m").await, ask(&server, "n").await), (Ok(1.0), Ok(2.0)));
    write(&path, &[("m/1/model.onnx", &saying(3.0)), ("n/1/model.onnx", &saying(4.0))]);
    assert_eq!(control(&server, "m", "load").await, (200, String::new()));
    assert_eq!((ask(&server, "m").await, ask(&server, "n").await), (Ok(3.0), Ok(2.0)));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_served() {
    let (folder, cache) = (folder(), folder());
    fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
    let blob = |bytes: &[u8], media_type: &str| {
        let digest = convoy::sha256::hex(&Sha256::digest(bytes));
        fs::write(folder.path().join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let layer = |version: &str, bias| tar(&[(&format!("models/m/{version}/model.onnx"), &saying(bias)[..])]);
    let layers = [layer("1", 1.0), layer("2", 2.0), tar(&[("models/m/.wh.2", b"")])];
    let layers: Vec<_> = layers.iter().map(|bytes| blob(bytes, "application/vnd.oci.image.layer.v1.tar")).collect();
    let manifest = json!({"schemaVersion": 2, "layers": layers}).to_string();
    let manifest = blob(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    fs::write(folder.path().join("index.json"), json!({"manifests": [manifest]}).to_string()).unwrap();
    let server = start(config(folder.path().to_str().unwrap(), cache.path())).await;
    assert_eq!((ask(&server, "m").await, ask(&server, "m/versions/2").await), (Ok(1.0), Err(404)));
    server.shutdown().await;
}
