//! What a disk can do to a model. Each is an error that says where, and changes nothing that serves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::process::Process;
use crate::server::{Repository, start};
use crate::{ask, ask_at, control_at, explicit_all, load, overrides, put, saying, states, watchdog};

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_goes_bad_changes_nothing_that_serves() {
    let repository = Repository::new().with("m", &saying(1.0), "", "").with("n", &saying(2.0), "", "");
    let server = start(explicit_all(&repository)).await;
    let folder = repository.path().join("m");
    let model = folder.join("1/model.onnx");
    let replace = |path: &Path, with: &dyn Fn(&Path)| {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            drop(fs::remove_file(path))
        }
        with(path);
    };
    let faults: &[(&str, &Path, &dyn Fn(&Path))] = &[
        ("empty", &model, &|path| fs::write(path, "").unwrap()),
        ("truncated", &model, &|path| {
            let other = fs::read(repository.path().join("n/1/model.onnx")).unwrap();
            fs::write(path, &other[..other.len() / 2]).unwrap();
        }),
        ("a folder in its place", &model, &|path| fs::create_dir(path).unwrap()),
        ("a link to itself", &model, &|path| symlink("model.onnx", path).unwrap()),
        ("a link to nowhere", &model, &|path| symlink("nowhere", path).unwrap()),
        ("gone", &model, &|_| {}),
        ("a version folder that links to the model's", &folder.join("1"), &|path| symlink("..", path).unwrap()),
        ("no version folder", &folder.join("1"), &|_| {}),
        ("a configuration that is a folder", &folder.join("config.toml"), &|path| fs::create_dir(path).unwrap()),
        ("a configuration that is no text", &folder.join("config.toml"), &|path| fs::write(path, [0xff; 8]).unwrap()),
        ("labels that are a folder", &folder.join("labels.txt"), &|path| fs::create_dir(path).unwrap()),
        ("a folder that is a file", &folder, &|path| fs::write(path, "").unwrap()),
        ("no folder", &folder, &|_| {}),
    ];
    for (what, path, with) in faults {
        replace(path, with);
        let (status, error) = load(&server, "m").await;
        assert!(status >= 400 && error.contains("m"), "{what}: {status} {error}");
        assert_eq!((ask(&server, "m").await, ask(&server, "n").await), (Ok(1.0), Ok(2.0)), "{what}");
        let states = states(&server, "m").await;
        assert!(states[0].1 == "READY" && states[0].2.contains("the last load failed"), "{what}: {states:?}");
        // Repaired, except for what the next fault is about anyway.
        if *path == folder.join("config.toml") || *path == folder.join("labels.txt") {
            if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        } else if *path == folder.join("1") && folder.join("1").exists() {
            fs::remove_file(path).unwrap();
        }
        if folder.is_dir() && !model.exists() && path != &model.as_path() {
            put(repository.path(), "m/1", &saying(1.0));
        }
    }
    put(repository.path(), "m/1", &saying(3.0));
    assert_eq!(load(&server, "m").await, (200, String::new()));
    assert_eq!(ask(&server, "m").await, Ok(3.0));
    assert_eq!(states(&server, "m").await, [(Some("1".into()), "READY".into(), String::new())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_disappears_and_comes_back() {
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(explicit_all(&repository)).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let away = elsewhere.path().join("away");
    fs::rename(repository.path(), &away).unwrap();
    assert_eq!(load(&server, "m").await.0, 404);
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    fs::rename(&away, repository.path()).unwrap();
    assert_eq!(load(&server, "m").await.0, 200);
    assert_eq!(ask(&server, "m").await, Ok(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_that_cannot_be_written_change_nothing() {
    let _watchdog = watchdog();
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let temporary = tempfile::tempdir().unwrap();
    let process = Process::start(&repository, &[("TMPDIR", temporary.path())]);
    assert_eq!(ask_at(process.address, "m").await, Ok(1.0));
    let body = json!({"parameters": {"config": "{}", "file:1/model.onnx": overrides::base64(&saying(2.0))}});
    assert_eq!(control_at(process.address, "m", "load", &body).await.0, 200);
    assert_eq!(ask_at(process.address, "m").await, Ok(2.0));
    // As a full disk would, for root too.
    fs::remove_dir_all(temporary.path()).unwrap();
    let (status, error) = control_at(process.address, "m", "load", &body).await;
    assert!(status == 500 && error.contains("temporary folder"), "{status} {error}");
    assert_eq!(ask_at(process.address, "m").await, Ok(2.0));
    assert_eq!(control_at(process.address, "m", "load", &json!(null)).await.0, 200);
    assert_eq!(ask_at(process.address, "m").await, Ok(1.0));
}
