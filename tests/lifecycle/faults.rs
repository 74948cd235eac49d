//! What a disk can do to a model. Each is an error that says where, and changes nothing that serves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use convoy::onnx::{AttributeProto, ModelProto, TensorProto};
use convoy::repository::ModelControlMode;
use convoy::tensor::Tensor;
use serde_json::json;

use crate::process::Process;
use crate::server::{Repository, config, png, start};
use crate::{
    ask, ask_at, control_at, explicit_all, graphs, http, load, loads, overrides, put, saying, states, until, watchdog,
};

/// What happened, and how it is done to a model's folder.
type Fault = (&'static str, fn(&Path));

const FAULTS: &[Fault] = &[
    ("an empty graph", |folder| fs::write(folder.join("1/model.onnx"), "").unwrap()),
    ("a truncated graph", |folder| {
        let whole = fs::read(folder.join("1/model.onnx")).unwrap();
        fs::write(folder.join("1/model.onnx"), &whole[..whole.len() / 2]).unwrap();
    }),
    ("no graph", |folder| fs::remove_file(folder.join("1/model.onnx")).unwrap()),
    ("a graph that cannot be read", |folder| {
        fs::remove_file(folder.join("1/model.onnx")).unwrap();
        fs::create_dir(folder.join("1/model.onnx")).unwrap();
    }),
    ("a graph that links to itself", |folder| {
        fs::remove_file(folder.join("1/model.onnx")).unwrap();
        symlink("model.onnx", folder.join("1/model.onnx")).unwrap();
    }),
    ("a version that links to the model's folder", |folder| {
        fs::remove_dir_all(folder.join("1")).unwrap();
        symlink(".", folder.join("1")).unwrap();
    }),
    ("no version", |folder| fs::remove_dir_all(folder.join("1")).unwrap()),
    ("a configuration that cannot be read", |folder| fs::create_dir(folder.join("config.toml")).unwrap()),
    ("a configuration that is no text", |folder| fs::write(folder.join("config.toml"), [0xff; 8]).unwrap()),
    ("labels that cannot be read", |folder| fs::create_dir(folder.join("labels.txt")).unwrap()),
    ("labels that never end", |folder| symlink("/dev/zero", folder.join("labels.txt")).unwrap()),
    ("labels that are another's", |folder| {
        fs::write(folder.join("../n/labels.txt"), "a\nb\nc\n").unwrap();
        fs::write(folder.join("config.toml"), "labels = '../n/labels.txt'").unwrap();
    }),
    ("a golden picture elsewhere", |folder| {
        let picture = folder.parent().unwrap().join("picture.png");
        fs::write(&picture, png([0; 3])).unwrap();
        let golden = format!("[golden]\npicture = '{}'\nclass = 0\n", picture.display());
        fs::write(folder.join("config.toml"), golden).unwrap();
    }),
    ("a folder that is a file", |folder| {
        fs::remove_dir_all(folder).unwrap();
        fs::write(folder, "").unwrap();
    }),
    ("no folder", |folder| fs::remove_dir_all(folder).unwrap()),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_goes_bad_changes_nothing_that_serves() {
    let _watchdog = watchdog();
    for (what, fault) in FAULTS {
        let repository = Repository::new().with("m", &saying(1.0), "", "").with("n", &saying(2.0), "", "");
        let server = start(explicit_all(&repository)).await;
        let folder = repository.path().join("m");
        fault(&folder);
        let (status, error) = load(&server, "m").await;
        assert!(status >= 400 && error.contains('m'), "{what}: {status} {error}");
        assert_eq!((ask(&server, "m").await, ask(&server, "n").await), (Ok(1.0), Ok(2.0)), "{what}");
        let rows = states(&server, "m").await;
        assert!(rows[0].1 == "READY" && rows[0].2.contains("the last load failed"), "{what}: {rows:?}");

        if folder.is_dir() {
            fs::remove_dir_all(&folder).unwrap();
        } else {
            drop(fs::remove_file(&folder));
        }
        put(repository.path(), "m/1", &saying(3.0));
        assert_eq!(load(&server, "m").await, (200, String::new()), "{what}");
        assert_eq!(ask(&server, "m").await, Ok(3.0));
        assert_eq!(states(&server, "m").await, [(Some("1".into()), "READY".into(), String::new())]);
    }
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

/// A model that fails on pictures whose mean is 4 or more: it then reads past the end of a table.
fn touchy() -> ModelProto {
    let mut largest = graphs::node("ReduceMax", &["means"], "largest");
    largest.attribute = vec![AttributeProto::int("keepdims", 0)];
    let mut index = graphs::node("Cast", &["largest"], "index");
    index.attribute = vec![AttributeProto::int("to", 7)];
    let nodes = vec![
        graphs::node("GlobalAveragePool", &["input"], "pooled"),
        graphs::node("Flatten", &["pooled"], "means"),
        largest,
        index,
        graphs::node("Gather", &["table", "index"], "zero"),
        graphs::node("Add", &["means", "zero"], "logits"),
    ];
    let table = TensorProto::new("table", &Tensor::from_vec(vec![4], vec![0f32; 4]).unwrap()).unwrap();
    graphs::model(nodes, vec![table], &[-1, 3, 2, 2], &[-1, 3])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_what_fails_does_not_take_the_model_from_the_others() {
    let repository = Repository::new().with("touchy", &touchy(), "", "");
    let server = start(explicit_all(&repository)).await;
    let request =
        json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 2, 2], "data": vec![9.0; 12]}]});
    for _ in 0..40 {
        let answer = http::send(&server, "POST", "/v2/models/touchy/infer", &[], request.to_string()).await;
        assert_eq!(answer.status, 500);
    }
    // The trials that this has led to are behind whatever is asked now.
    assert_eq!(ask(&server, "touchy").await, Ok(0.0));
    assert_eq!(states(&server, "touchy").await, [(Some("1".into()), "READY".into(), String::new())]);
}

/// Each request is a run of its own, and warm-up is two.
const ONE_AT_A_TIME: &str = "max_batch_size = 1\n[instances]\ncount = 1\n";

/// A model that works for its first four runs and fails in the next twenty, as one does whose device is lost: it reads a table of one row
/// at a place that is drawn anew for each run. ONNX Runtime draws the same ones after each load, as the seed is given.
fn failing_with_time() -> ModelProto {
    let mut drawn = graphs::node("RandomUniform", &[], "drawn");
    // Of the first 28 numbers in [0, 1) the first four are below 0.1022 and the others above 0.127.
    drawn.attribute = vec![
        AttributeProto::ints("shape", [1]),
        AttributeProto::float("low", 0.0),
        AttributeProto::float("high", 1.0 / 0.115),
        AttributeProto::float("seed", 1354.0),
    ];
    let mut place = graphs::node("Cast", &["drawn"], "place");
    place.attribute = vec![AttributeProto::int("to", 7)];
    let nodes = vec![
        drawn,
        place,
        graphs::node("Gather", &["table", "place"], "zero"),
        graphs::node("GlobalAveragePool", &["input"], "pooled"),
        graphs::node("Flatten", &["pooled"], "means"),
        graphs::node("Add", &["means", "zero"], "logits"),
    ];
    let table = TensorProto::new("table", &Tensor::from_vec(vec![1], vec![0f32]).unwrap()).unwrap();
    graphs::model(nodes, vec![table], &[-1, 3, 2, 2], &[-1, 3])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_breaks_while_it_serves_takes_no_more_requests_until_it_is_loaded_again() {
    let repository =
        Repository::new().with("m", &failing_with_time(), ONE_AT_A_TIME, "").with("n", &saying(2.0), "", "");
    let mut config = explicit_all(&repository);
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    let ready = async || http::get(&server, "/v2/health/ready").await.status.as_u16();
    for _ in 0..2 {
        // What follows is the same after each load.
        assert_eq!((ask(&server, "m").await, ready().await), (Ok(0.0), 200));
        until(|| ask(&server, "m"), |said| *said == Err(503)).await.unwrap_err();
        let (_, state, reason) = states(&server, "m").await.remove(0);
        assert!(state == "UNAVAILABLE" && reason.contains("10 runs in a row failed"), "{state}: {reason}");
        // With strict readiness, a replica that has lost a model gets no requests.
        assert_eq!((ask(&server, "n").await, ready().await), (Ok(2.0), 503));
        assert_eq!(load(&server, "m").await, (200, String::new()));
    }
    assert_eq!(ready().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_client_can_load_a_broken_model_again_the_server_does() {
    let repository = Repository::new().with("m", &failing_with_time(), ONE_AT_A_TIME, "");
    for mode in [ModelControlMode::None, ModelControlMode::Poll] {
        let mut config = config(&repository);
        config.model_control.mode = mode;
        config.model_control.poll_interval_ms = 40;
        let server = start(config).await;
        assert_eq!(ask(&server, "m").await, Ok(0.0));
        until(|| ask(&server, "m"), |said| *said == Err(503)).await.unwrap_err();
        until(|| ask(&server, "m"), |said| *said == Ok(0.0)).await.unwrap();
        assert_eq!((loads(&server, "m", "success").await, loads(&server, "m", "failed").await), (2, 0));
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_in_the_log_once() {
    let repository = Repository::new().with("touchy", &touchy(), "", "");
    let process = Process::start(&repository, &[]);
    let body = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 2, 2], "data": vec![9.0; 12]}]});
    let path = "/v2/models/touchy/infer";
    let answer = http::send_to(process.address, "POST", path, &[("x-request-id", "f-1")], body.to_string()).await;
    assert_eq!(answer.status, 500);
    let is_failure = |line: &&String| line.contains("\"level\":\"ERROR\"") || line.contains("\"level\":\"WARN\"");
    let failures = until(
        || async { process.log().iter().filter(is_failure).cloned().collect::<Vec<_>>() },
        |failures| !failures.is_empty(),
    )
    .await;
    assert!(failures.len() == 1 && failures[0].contains("f-1") && failures[0].contains("Gather"), "{failures:?}");
}
