//! A load that brings its own configuration and files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use convoy::grpc::proto::inference as pb;
use convoy::grpc::proto::inference::model_repository_parameter::ParameterChoice;
use convoy::onnx::ModelProto;
use serde_json::{Value, json};
use tonic::Code;

use crate::server::{Repository, start};
use crate::{ask, control, explicit_all, graphs, grpc, http, load, saying, short_states};

fn bytes(model: &ModelProto) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::read(graphs::write(folder.path(), model)).unwrap()
}

/// A model as a client sends it in JSON.
pub(crate) fn base64(model: &ModelProto) -> String {
    STANDARD.encode(bytes(model))
}

fn parameters(pairs: &[(&str, &str)]) -> Value {
    json!({ "parameters": pairs.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_holds_until_the_next_load() {
    let repository = Repository::new().with("m", &saying(1.0), "max_batch_size = 2", "");
    let server = start(explicit_all(&repository)).await;
    let max_batch_size = async || http::get(&server, "/v2/models/m/config").await.json()["max_batch_size"].clone();
    assert_eq!(max_batch_size().await, 2);
    let body = parameters(&[("config", r#"{"max_batch_size": 3}"#)]);
    assert_eq!(control(&server, "m", "load", &body).await, (200, String::new()));
    assert_eq!((max_batch_size().await, ask(&server, "m").await), (json!(3), Ok(1.0)));
    for config in ["", "[]", "{\"max_batchsize\": 3}", "{\"max_batch_size\": 0}"] {
        let (status, error) = control(&server, "m", "load", &parameters(&[("config", config)])).await;
        assert!(status == 400 && error.contains("config"), "{config}: {status} {error}");
    }
    // What is wrong only for this graph is in the request, too, and not in the model's file.
    for config in [r#"{"output": "nowhere"}"#, r#"{"labels": "nowhere.txt"}"#, r#"{"preprocess": {"mean": [1.0]}}"#] {
        let (status, error) = control(&server, "m", "load", &parameters(&[("config", config)])).await;
        assert!(status == 400 && error.contains(" config: ") && !error.contains(".toml"), "{config}: {status} {error}");
    }
    assert_eq!(max_batch_size().await, 3);
    assert_eq!(load(&server, "m").await.0, 200);
    assert_eq!(max_batch_size().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stand_in_for_the_version_folders() {
    let repository = Repository::new().with("m", &saying(1.0), "versions = \"all\"", "x\ny\nz");
    let server = start(explicit_all(&repository)).await;
    let body = parameters(&[
        ("config", "{\"versions\": \"all\"}"),
        ("file:3/model.onnx", &base64(&saying(3.0))),
        ("file:4/model.onnx", &base64(&saying(4.0))),
    ]);
    assert_eq!(control(&server, "m", "load", &body).await, (200, String::new()));
    assert_eq!((ask(&server, "m").await, ask(&server, "m/versions/3").await), (Ok(4.0), Ok(3.0)));
    crate::until(|| short_states(&server, "m"), |states| states.len() == 2).await;
    assert_eq!(short_states(&server, "m").await, ["3 READY", "4 READY"]);
    // The labels are the folder's.
    let answer = http::send(&server, "POST", "/v1/models/m/classify", &[], crate::server::png([0, 0, 9])).await.json();
    assert_eq!(answer["predictions"][0]["classes"][0]["label"], "z");
    // Nothing of it is in the repository.
    let names = |folder: &str| std::fs::read_dir(repository.path().join(folder)).unwrap().count();
    assert_eq!((names(""), names("m")), (1, 3));

    // A model of which the repository knows nothing.
    let body = parameters(&[("config", "{}"), ("file:1/model.onnx", &base64(&saying(5.0)))]);
    assert_eq!(control(&server, "other", "load", &body).await, (200, String::new()));
    assert_eq!(ask(&server, "other").await, Ok(5.0));
    assert_eq!(load(&server, "other").await.0, 404);
    assert_eq!(ask(&server, "other").await, Ok(5.0));

    assert_eq!(load(&server, "m").await.0, 200);
    assert_eq!(ask(&server, "m").await, Ok(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_files_changes_nothing() {
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(explicit_all(&repository)).await;
    let model = base64(&saying(2.0));
    for path in [
        "../1/model.onnx",
        "1/../../model.onnx",
        "/1/model.onnx",
        "/etc/passwd",
        "",
        "1/",
        "model.onnx",
        "v1/model.onnx",
    ] {
        let body = parameters(&[("config", "{}"), (&format!("file:{path}"), &model)]);
        let (status, error) = control(&server, "m", "load", &body).await;
        assert!(status == 400 && error.contains("<version>/<name>"), "{path}: {status} {error}");
    }
    let (status, error) = control(&server, "m", "load", &parameters(&[("file:1/model.onnx", &model)])).await;
    assert!(status == 400 && error.contains("`config`"), "{status} {error}");
    for garbage in ["", "Z2FyYmFnZQ=="] {
        let body = parameters(&[("config", "{}"), ("file:1/model.onnx", garbage)]);
        let (status, error) = control(&server, "m", "load", &body).await;
        assert!(status >= 400 && error.contains("model.onnx"), "{status} {error}");
        assert_eq!(ask(&server, "m").await, Ok(1.0));
    }
    // A file, but no model in it.
    let body = parameters(&[("config", "{}"), ("file:1/other.onnx", &model)]);
    assert_eq!(control(&server, "m", "load", &body).await.0, 404);
    assert_eq!(ask(&server, "m").await, Ok(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_grpc_files_are_bytes() {
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(explicit_all(&repository)).await;
    let mut client = grpc::client(&server).await;
    let request = |path: &str, file: ParameterChoice| {
        let parameter = |choice| pb::ModelRepositoryParameter { parameter_choice: Some(choice) };
        let config = ("config".to_owned(), parameter(ParameterChoice::StringParam("{}".into())));
        let parameters = [config, (format!("file:{path}"), parameter(file))].into();
        pb::RepositoryModelLoadRequest { model_name: "m".into(), parameters, ..Default::default() }
    };
    let file = || ParameterChoice::BytesParam(bytes(&saying(2.0)).into());
    client.repository_model_load(request("1/model.onnx", file())).await.unwrap();
    assert_eq!(ask(&server, "m").await, Ok(2.0));
    for (path, file) in [("../1/model.onnx", file()), ("1/model.onnx", ParameterChoice::StringParam("text".into()))] {
        let error = client.repository_model_load(request(path, file)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    assert_eq!(ask(&server, "m").await, Ok(2.0));
}
