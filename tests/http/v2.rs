//! The Open Inference Protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::server::Server;
use serde_json::{Value, json};

use crate::client::{Answer, get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};

/// The header that says where the JSON ends.
const JSON_LENGTH: &str = "inference-header-content-length";

/// Two pictures of 2×2 pixels as a tensor `[2, 3, 2, 2]`, and the channel means of each.
const TENSOR: [f32; 24] = [
    1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 1.0, -1.0, -1.0, 1.0, 1.0, // means 2.5, 0.25, 0
    0.5, 0.5, 0.5, 0.5, 8.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1, // means 0.5, 2, 0.1
];
const MEANS: [f32; 6] = [2.5, 0.25, 0.0, 0.5, 2.0, 0.1];

async fn server() -> (Server, Repository) {
    let repository = Repository::new()
        .with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "red\ngreen\nblue\n")
        .with("fixed", &graphs::channel_means(2, Some(1)), "", "")
        .with("wide", &graphs::convolutional(4, 1000), "max_batch_size = 4\n", "")
        .with_broken("broken");
    (start(config(&repository)).await, repository)
}

async fn infer(server: &Server, request: &Value) -> Answer {
    send(server, "POST", "/v2/models/means/infer", &[], request.to_string()).await
}

/// Splits an answer with binary tensors into its JSON and what follows.
fn split(answer: &Answer) -> (Value, &[u8]) {
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let length = answer.headers[JSON_LENGTH].to_str().unwrap().parse().unwrap();
    let (json, binary) = answer.body.split_at(length);
    (serde_json::from_slice(json).unwrap(), binary)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn assert_close(values: &[f32], expected: &[f32]) {
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{values:?} is not {expected}");
    }
}

fn data(output: &Value) -> Vec<f32> {
    output["data"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[tokio::test]
async fn json_tensors_may_be_flat_or_nested() {
    let (server, _repository) = server().await;
    let nested: Vec<_> =
        TENSOR.chunks(12).map(|row| row.chunks(4).map(|c| [&c[..2], &c[2..]]).collect::<Vec<_>>()).collect();
    for data_form in [json!(TENSOR), json!(nested)] {
        let input = json!({"name": "input", "shape": [2, 3, 2, 2], "datatype": "FP32", "data": data_form});
        let answer = infer(&server, &json!({"id": "a-7", "inputs": [input]})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json");
        let body = answer.json();
        assert_eq!(
            (&body["id"], &body["model_name"], &body["model_version"]),
            (&json!("a-7"), &json!("means"), &json!("1"))
        );
        let output = &body["outputs"][0];
        assert_eq!(
            (&output["name"], &output["datatype"], &output["shape"]),
            (&json!("logits"), &json!("FP32"), &json!([2, 3]))
        );
        assert_close(&data(output), &MEANS);
    }
}

#[tokio::test]
async fn binary_tensors_go_both_ways() {
    let (server, _repository) = server().await;
    let raw = bytes(&TENSOR);
    let input = json!({"name": "input", "shape": [2, 3, 2, 2], "datatype": "FP32",
        "parameters": {"binary_data_size": raw.len()}});
    for (outputs, parameters, is_binary) in [
        (json!([]), json!({}), false),
        (json!([]), json!({"binary_data_output": true}), true),
        (json!([{"name": "logits"}]), json!({"binary_data_output": true}), true),
        (json!([{"name": "logits", "parameters": {"binary_data": true}}]), json!({}), true),
        (json!([{"name": "logits", "parameters": {"binary_data": false}}]), json!({"binary_data_output": true}), false),
    ] {
        let head = json!({"inputs": [input], "outputs": outputs, "parameters": parameters}).to_string();
        let headers = [(JSON_LENGTH, &*head.len().to_string())];
        let body = [head.as_bytes(), &raw].concat();
        let answer = send(&server, "POST", "/v2/models/means/versions/1/infer", &headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        if is_binary {
            let (json, binary) = split(&answer);
            assert_eq!(json["outputs"][0]["parameters"], json!({"binary_data_size": 24}));
            assert!(json["outputs"][0].get("data").is_none() && json.get("id").is_none());
            assert_close(&floats(binary), &MEANS);
        } else {
            assert!(!answer.headers.contains_key(JSON_LENGTH));
            assert_close(&data(&answer.json()["outputs"][0]), &MEANS);
        }
    }
}

#[tokio::test]
async fn a_raw_request_is_one_row_and_answered_in_binary() {
    let (server, _repository) = server().await;
    for model in ["means", "fixed"] {
        let path = format!("/v2/models/{model}/infer");
        let answer = send(&server, "POST", &path, &[(JSON_LENGTH, "0")], bytes(&TENSOR[..12])).await;
        let (json, binary) = split(&answer);
        assert_eq!(json["outputs"][0]["shape"], json!([1, 3]));
        assert_close(&floats(binary), &MEANS[..3]);
        let answer = send(&server, "POST", &path, &[(JSON_LENGTH, "0")], bytes(&TENSOR)).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
}

#[tokio::test]
async fn encoded_pictures_are_decoded_with_the_models_recipe() {
    let (server, _repository) = server().await;
    let pictures = [png([255, 0, 51]), png([0, 102, 255])];
    let expected = [1.0, 0.0, 0.2, 0.0, 0.4, 1.0];

    let encoded: Vec<_> = pictures.iter().map(|picture| STANDARD.encode(picture)).collect();
    let input = json!({"name": "input", "shape": [2], "datatype": "BYTES", "data": encoded});
    let answer = infer(&server, &json!({"inputs": [input]})).await;
    assert_close(&data(&answer.json()["outputs"][0]), &expected);

    let prefixed: Vec<u8> = pictures
        .iter()
        .flat_map(|picture| [&(picture.len() as u32).to_le_bytes(), picture.as_slice()].concat())
        .collect();
    let head = json!({"inputs": [{"name": "input", "shape": [2], "datatype": "BYTES",
        "parameters": {"binary_data_size": prefixed.len()}}]})
    .to_string();
    let headers = [(JSON_LENGTH, &*head.len().to_string())];
    let body = [head.as_bytes(), &prefixed].concat();
    let answer = send(&server, "POST", "/v2/models/means/infer", &headers, body).await;
    assert_close(&data(&answer.json()["outputs"][0]), &expected);
}

#[tokio::test]
async fn the_classification_extension_gives_values_indices_and_labels() {
    let (server, _repository) = server().await;
    let input = json!({"name": "input", "shape": [2, 3, 2, 2], "datatype": "FP32", "data": TENSOR});
    let best_two = json!(["2.500000:0:red", "0.250000:1:green", "2.000000:1:green", "0.500000:0:red"]);
    let output = |parameters: Value| json!([{"name": "logits", "parameters": parameters}]);
    for (outputs, parameters, shape, data) in [
        (output(json!({"classification": 2})), json!({}), json!([2, 2]), Some(&best_two)),
        (json!([]), json!({"top_k": 2}), json!([2, 2]), Some(&best_two)),
        (output(json!({"classification": 9})), json!({}), json!([2, 3]), None),
        (output(json!({"classification": 1})), json!({"top_k": 3}), json!([2, 1]), None),
    ] {
        let answer = infer(&server, &json!({"inputs": [input], "outputs": outputs, "parameters": parameters})).await;
        let body = answer.json();
        let output = &body["outputs"][0];
        assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &shape), "{body}");
        if let Some(data) = data {
            assert_eq!(&output["data"], data);
        }
    }

    let outputs = output(json!({"classification": 1, "binary_data": true}));
    let answer = infer(&server, &json!({"inputs": [input], "outputs": outputs})).await;
    let (json, binary) = split(&answer);
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], json!(binary.len()));
    assert_eq!(binary, b"\x0e\0\0\x002.500000:0:red\x10\0\0\x002.000000:1:green");
}

#[tokio::test]
async fn more_rows_than_a_batch_takes_are_answered_in_order() {
    let (server, _repository) = server().await;
    let rows = 11;
    let values: Vec<f32> = (0..rows).flat_map(|row| [row as f32; 48]).collect();
    let input = json!({"name": "input", "shape": [rows, 3, 4, 4], "datatype": "FP32", "data": values});
    let request = json!({"inputs": [input]}).to_string();
    let answer = send(&server, "POST", "/v2/models/wide/infer", &[("accept-encoding", "gzip")], request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let body: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&answer.body[..])).unwrap();
    assert_eq!(body["outputs"][0]["shape"], json!([rows, 1000]));
    // Filter k adds up the three channels and adds k.
    for (index, value) in data(&body["outputs"][0]).into_iter().enumerate() {
        let expected = (3 * (index / 1000) + index % 1000) as f32;
        assert!((value - expected).abs() < 1e-3, "{index}: {value}");
    }
}

#[tokio::test]
async fn metadata_says_what_there_is() {
    let (server, _repository) = server().await;
    let body = get(&server, "/v2").await.json();
    assert_eq!((&body["name"], &body["version"]), (&json!("convoy"), &json!(env!("CARGO_PKG_VERSION"))));
    for extension in ["binary_tensor_data", "classification", "model_configuration", "statistics"] {
        assert!(body["extensions"].as_array().unwrap().contains(&json!(extension)), "{body}");
    }

    for path in ["/v2/models/means", "/v2/models/means/versions/1"] {
        let expected = json!({
            "name": "means",
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 2, 2]}],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
        });
        assert_eq!(get(&server, path).await.json(), expected);
    }

    let body = get(&server, "/v2/models/wide/config").await.json();
    assert_eq!((&body["name"], &body["max_batch_size"]), (&json!("wide"), &json!(4)));
    assert_eq!((&body["input"][0]["dims"], &body["output"][0]["dims"]), (&json!([3, 4, 4]), &json!([1000])));
    assert_eq!((&body["input"][0]["name"], &body["input"][0]["data_type"]), (&json!("input"), &json!("TYPE_FP32")));
    assert_eq!(body["dynamic_batching"]["max_queue_delay_microseconds"], json!(0));
    assert_eq!(body["model_transaction_policy"]["decoupled"], json!(false));
    // Triton's asyncio client asks for compression always, and can read it in the answer to an inference alone.
    let answer = send(&server, "GET", "/v2/models/wide/config", &[("accept-encoding", "gzip")], "").await;
    assert_eq!((answer.headers.get("content-encoding"), answer.json()), (None, body));
    assert!(answer.body.len() >= 1024);
    let body = get(&server, "/v2/models/fixed/config").await.json();
    assert_eq!((&body["max_batch_size"], &body["input"][0]["dims"]), (&json!(0), &json!([1, 3, 2, 2])));
    assert!(body.get("dynamic_batching").is_none());
}

#[tokio::test]
async fn health_and_readiness_are_told_apart_for_each_model() {
    let repository = Repository::new().with("means", &graphs::channel_means(2, None), "", "").with_broken("broken");
    let server = Server::start(config(&repository)).await.unwrap();
    let before = get(&server, "/v2/health/ready").await;
    assert_eq!(
        (before.status.as_u16(), before.json()),
        (503, json!({"ready": false, "error": "the server is loading its models"}))
    );
    assert_eq!(get(&server, "/v2/health/live").await.json(), json!({"live": true}));

    server.load().await.unwrap();
    for (path, status, body) in [
        ("/v2/health/live", 200, json!({"live": true})),
        ("/v2/health/ready", 200, json!({"ready": true})),
        ("/v2/models/means/ready", 200, json!({"name": "means", "ready": true})),
        ("/v2/models/means/versions/1/ready", 200, json!({"name": "means", "ready": true})),
        ("/v2/models/broken/ready", 503, json!({"name": "broken", "ready": false})),
    ] {
        let answer = get(&server, path).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (status, body), "{path}");
    }
    assert_eq!(get(&server, "/v2/models/none/ready").await.status, 404);
}

#[tokio::test]
async fn the_index_lists_what_failed_too() {
    let (server, _repository) = server().await;
    let index = |body: &'static str| send(&server, "POST", "/v2/repository/index", &[], body);
    let all = index("").await.json();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["broken", "fixed", "means", "wide"]);
    assert_eq!(all[0]["state"], json!("UNAVAILABLE"));
    assert!(all[0]["reason"].as_str().unwrap().contains("model.onnx"), "{all}");
    assert_eq!(all[2], json!({"name": "means", "version": "1", "state": "READY", "reason": ""}));

    let ready = index(r#"{"ready": true}"#).await.json();
    assert_eq!(ready.as_array().unwrap().len(), 3);
    assert_eq!(index("{").await.status, 400);
}

#[tokio::test]
async fn statistics_count_rows_and_batches() {
    let (server, _repository) = server().await;
    let input = json!({"name": "input", "shape": [2, 3, 2, 2], "datatype": "FP32", "data": TENSOR});
    infer(&server, &json!({"inputs": [input]})).await;
    infer(&server, &json!({"inputs": []})).await;
    let body = get(&server, "/v2/models/means/stats").await.json();
    let statistics = &body["model_stats"][0];
    assert_eq!((&statistics["name"], &statistics["version"]), (&json!("means"), &json!("1")));
    assert_eq!((&statistics["inference_count"], &statistics["execution_count"]), (&json!(2), &json!(1)));
    assert!(statistics["last_inference"].as_u64().unwrap() > 1_600_000_000_000);
    let durations = &statistics["inference_stats"];
    for (name, count) in [("success", 1), ("fail", 1), ("queue", 2), ("compute_infer", 2), ("cache_hit", 0)] {
        assert_eq!(durations[name]["count"], json!(count), "{name} in {statistics}");
        assert_eq!(durations[name]["ns"].as_u64().unwrap() > 0, count > 0, "{name} in {statistics}");
    }
    assert_eq!(statistics["batch_stats"][0]["batch_size"], json!(2));
    assert_eq!(statistics["batch_stats"][0]["compute_infer"]["count"], json!(1));

    let all = get(&server, "/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 3);
    let one = get(&server, "/v2/models/means/versions/1/stats").await.json();
    assert_eq!(one["model_stats"].as_array().unwrap().len(), 1);
}
