//! A model repository of Triton's, served as it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/graphs.rs"]
#[expect(dead_code, reason = "not every test graph is needed here")]
mod graphs;
#[path = "support/http.rs"]
#[expect(dead_code, reason = "one connection a request is enough")]
mod http;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "the models' folders are written here")]
mod server;

use std::fs;
use std::path::Path;
use std::time::Duration;

use convoy::onnx::ModelProto;
use convoy::repository::ModelControlMode;
use convoy::server::Server;
use convoy::triton;
use http::{get, send};
use proptest::prelude::*;
use serde_json::{Value, json};
use server::{Repository, config, png, start, within_a_minute};

/// A model's folder as Triton has it.
fn write(root: &Path, name: &str, model: &ModelProto, pbtxt: &str, files: &[(&str, &str)]) {
    fs::create_dir_all(root.join(name).join("1")).unwrap();
    graphs::write(&root.join(name).join("1"), model);
    for (file, text) in files.iter().chain(&[("config.pbtxt", pbtxt)]) {
        fs::write(root.join(name).join(file), text).unwrap();
    }
}

/// `[1, 3, 8, 8]` to the mean of each channel, `[1, 3, 1, 1]`, as some published classifiers end.
fn pooled() -> ModelProto {
    let nodes = vec![graphs::node("GlobalAveragePool", &["input"], "logits")];
    graphs::model(nodes, Vec::new(), &[1, 3, 8, 8], &[1, 3, 1, 1])
}

const PLAIN: &str = "parameters { key: \"convoy.preprocess.scale\" value { string_value: \"0.00392156862745098\" } }\n";

/// The form of the first model of Triton's own tutorial: dimensions without the batch that the graph has.
const RESHAPED: &str = "
    name: \"reshaped\"
    platform: \"onnxruntime_onnx\"
    max_batch_size : 0
    input [ { name: \"input\" data_type: TYPE_FP32 format: FORMAT_NCHW
              dims: [ 3, 8, 8 ] reshape { shape: [ 1, 3, 8, 8 ] } } ]
    output [ { name: \"logits\" data_type: TYPE_FP32
               dims: [ 3 ] reshape { shape: [ 1, 3, 1, 1 ] } label_filename: \"colours.txt\" } ]
";

const BATCHED: &str = "
    backend: \"onnxruntime\"
    max_batch_size: 2
    input { name: \"input\" data_type: TYPE_FP32 dims: [ 3, 8, 8 ] }
    output { name: \"logits\" data_type: TYPE_FP32 dims: 3 }
    instance_group { count: 1 kind: KIND_CPU }
    dynamic_batching { }
";

async fn answer(server: &Server, model: &str, shape: &[usize], outputs: Value) -> Value {
    let count = shape.iter().product::<usize>();
    let data: Vec<_> = (0..count).map(|index| (index / 64 % 3) as f32).collect();
    let mut body = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": shape, "data": data}]});
    if !outputs.is_null() {
        body["outputs"] = outputs;
    }
    send(server, "POST", &format!("/v2/models/{model}/infer"), &[], body.to_string()).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_triton_repository_is_served_unchanged() {
    let repository = Repository::new();
    let root = repository.path();
    let colours = [("colours.txt", "red\ngreen\nblue\n")];
    write(root, "reshaped", &pooled(), &format!("{RESHAPED}{PLAIN}"), &colours);
    // Triton looks for labels nowhere but where the configuration says.
    write(root, "batched", &graphs::channel_means(8, None), BATCHED, &[("labels.txt", "not\nour\nclasses\nat all")]);
    let unbatched = "input { name: \"input\" dims: [ -1, 3, 8, 8 ] } output { name: \"logits\" dims: [ -1, 3 ] }";
    write(root, "unbatched", &graphs::channel_means(8, None), unbatched, &[]);
    write(root, "renamed", &graphs::channel_means(8, None), "default_model_filename: \"net.onnx\"", &[]);
    fs::rename(root.join("renamed/1/model.onnx"), root.join("renamed/1/net.onnx")).unwrap();
    write(root, "folder", &graphs::channel_means(8, None), "", &[]);
    fs::create_dir(root.join("folder/1/beside")).unwrap();
    fs::rename(root.join("folder/1/model.onnx"), root.join("folder/1/beside/model.onnx")).unwrap();
    fs::rename(root.join("folder/1/beside"), root.join("folder/1/model.onnx")).unwrap();
    let server = start(config(&repository)).await;
    let index = send(&server, "POST", "/v2/repository/index", &[], "").await.json();
    assert!(index.as_array().unwrap().iter().all(|row| row["state"] == "READY"), "{index}");

    let metadata = get(&server, "/v2/models/reshaped").await.json();
    assert_eq!(metadata["inputs"], json!([{"name": "input", "datatype": "FP32", "shape": [3, 8, 8]}]));
    assert_eq!(metadata["outputs"], json!([{"name": "logits", "datatype": "FP32", "shape": [3]}]));
    let output = answer(&server, "reshaped", &[3, 8, 8], Value::Null).await["outputs"][0].clone();
    assert_eq!((&output["shape"], &output["data"]), (&json!([3]), &json!([0.0, 1.0, 2.0])));
    let classified = json!([{"name": "logits", "parameters": {"classification": 2}}]);
    let output = answer(&server, "reshaped", &[3, 8, 8], classified).await["outputs"][0].clone();
    assert_eq!(output["shape"], json!([2]));
    assert_eq!(output["data"], json!(["2.000000:2:blue", "1.000000:1:green"]));
    let refused = answer(&server, "reshaped", &[3, 8, 9], Value::Null).await;
    assert!(refused["error"].as_str().unwrap().contains("[3, 8, 8]"), "{refused}");
    let instances = json!({"instances": [vec![vec![vec![0.5; 8]; 8]; 3], vec![vec![vec![0.25; 8]; 8]; 3]]});
    let predicted = send(&server, "POST", "/v1/models/reshaped:predict", &[], instances.to_string()).await.json();
    assert_eq!(predicted["predictions"].as_array().unwrap().len(), 2, "{predicted}");
    let classes = send(&server, "POST", "/v1/models/reshaped/classify", &[], png([9, 255, 0])).await.json();
    assert_eq!(classes["predictions"][0]["classes"][0]["label"], "green");

    let output = answer(&server, "batched", &[3, 3, 8, 8], Value::Null).await["outputs"][0].clone();
    assert_eq!((&output["shape"], output["data"].as_array().unwrap().len()), (&json!([3, 3]), 9));
    let classes = send(&server, "POST", "/v1/models/batched/classify", &[], png([9, 255, 0])).await.json();
    assert_eq!(classes["predictions"][0]["classes"][0]["label"], Value::Null, "{classes}");

    let described = get(&server, "/v2/models/unbatched/config").await.json();
    assert_eq!((&described["max_batch_size"], &described["input"][0]["dims"]), (&json!(0), &json!([-1, 3, 8, 8])));
    assert!(described.get("dynamic_batching").is_none(), "{described}");
    let output = answer(&server, "unbatched", &[2, 3, 8, 8], Value::Null).await["outputs"][0].clone();
    assert_eq!((&output["shape"], &output["data"]), (&json!([2, 3]), &json!([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])));
    let statistics = get(&server, "/v2/models/unbatched/stats").await.json();
    assert_eq!(statistics["model_stats"][0]["execution_count"], 2, "{statistics}");
    let described = get(&server, "/v2/models/renamed/config").await.json();
    assert_eq!(described["default_model_filename"], "net.onnx");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_says_where_and_why() {
    let repository = Repository::new();
    let means = || graphs::channel_means(8, None);
    let rank_3 =
        graphs::model(vec![graphs::node("ReduceMean", &["input"], "logits")], Vec::new(), &[3, 8, 8], &[1, 1, 1]);
    let cases = [
        ("place", means(), "max_batch_size: 4\ninput {\n  nmae: \"x\"\n}", "line 3, column 3"),
        ("name", means(), "name: \"other\"", "name: is other"),
        ("python", means(), "backend: \"python\"", "backend: python"),
        ("sequence", means(), "sequence_batching { }", "sequence_batching"),
        ("dims", means(), "max_batch_size: 4 input { name: \"input\" dims: [ 3, 9, 8 ] }", "input.dims"),
        ("output", means(), "output { name: \"scores\" dims: 3 }", "output.name"),
        ("labels", means(), "output { name: \"logits\" dims: [ -1, 3 ] label_filename: \"no.txt\" }", "no.txt"),
        ("recipe", means(), "parameters { key: \"convoy.preprocess.crop\" value { string_value: \"9\" } }", "crop"),
        ("fixed", graphs::channel_means(8, Some(2)), "max_batch_size: 4", "max_batch_size"),
    ];
    for (name, model, pbtxt, _) in &cases {
        write(repository.path(), name, model, pbtxt, &[]);
    }
    write(repository.path(), "rank-3", &rank_3, "max_batch_size: 0 input { name: \"input\" dims: [ 3, 8, 8 ] }", &[]);
    // convoy's own file goes before Triton's, which is not even read.
    write(repository.path(), "both", &means(), "no such thing", &[("config.toml", "max_batch_size = 3")]);
    let server = start(config(&repository)).await;
    let index = send(&server, "POST", "/v2/repository/index", &[], "").await.json();
    let row = |name: &str| index.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    for (name, _, _, said) in &cases {
        let reason = row(name)["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(&format!("{name}/config.pbtxt")) && reason.contains(said), "{name}: {reason}");
    }
    let reason = row("rank-3")["reason"].clone();
    assert!(reason.as_str().unwrap().contains("[3, 8, 8], which is not a batch"), "{reason}");
    assert_eq!(get(&server, "/v2/models/both/config").await.json()["max_batch_size"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_followed() {
    let repository = Repository::new();
    write(repository.path(), "m", &graphs::channel_means(8, None), BATCHED, &[]);
    let mut config = config(&repository);
    config.model_control.mode = ModelControlMode::Poll;
    config.model_control.poll_interval_ms = 50;
    let server = start(config).await;
    let size = async || get(&server, "/v2/models/m/config").await.json()["max_batch_size"].clone();
    let becomes = async |expected: u64| {
        within_a_minute(async {
            while size().await != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    becomes(2).await;
    fs::write(repository.path().join("m/config.pbtxt"), BATCHED.replace("max_batch_size: 2", "max_batch_size: 3"))
        .unwrap();
    becomes(3).await;
}

const TEXTS: [&str; 4] = [
    include_str!("fixtures/triton/angles.pbtxt"),
    include_str!("fixtures/triton/batching.pbtxt"),
    include_str!("fixtures/triton/parameters.pbtxt"),
    include_str!("fixtures/triton/sequences.pbtxt"),
];

proptest! {
    /// Whatever is cut out, put in or doubled, a text is read or refused with a place in it.
    #[test]
    fn damaged_texts_are_refused_and_nothing_worse(
        text in prop::sample::select(&TEXTS[..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..9, "[{}<>\\[\\]:;,\"'\\\\#a-z0-9.\n-]{0,3}|\\PC"), 1..8),
    ) {
        let mut letters: Vec<char> = text.chars().collect();
        for (place, cut, put) in edits {
            let start = place.index(letters.len() + 1);
            let end = (start + cut).min(letters.len());
            letters.splice(start..end, put.chars());
        }
        let damaged: String = letters.into_iter().collect();
        if let Err(error) = triton::parse_text(&damaged) {
            let place = error.strip_prefix("line ").and_then(|rest| rest.split_once(", column "));
            let line: usize = place.and_then(|(line, _)| line.parse().ok()).unwrap();
            prop_assert!((1..=damaged.lines().count() + 1).contains(&line), "{error}");
        }
    }
}

#[test]
fn a_deeply_nested_text_is_refused_without_a_stack_overflow() {
    for nested in ["input {", "input <", "input: [", "[a.b/c] {", "\"", "-", "parameters { value {"] {
        triton::parse_text(&nested.repeat(100_000)).unwrap_err();
    }
    triton::parse_text(&format!("input: {}", "[".repeat(100_000))).unwrap_err();
    triton::parse_json(&"[".repeat(100_000)).unwrap_err();
    triton::parse_json(&"{\"input\":".repeat(100_000)).unwrap_err();
}
