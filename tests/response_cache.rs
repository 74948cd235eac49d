//! Kept answers, through real listeners and with the real ONNX Runtime: a hit answers what a run answered, to the bit, and nothing
//! is answered for a model that has gone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/graphs.rs"]
#[expect(dead_code, reason = "not every test graph is needed here")]
mod graphs;
#[path = "support/grpc.rs"]
#[expect(dead_code, reason = "not every form of a request is needed here")]
mod grpc;
#[path = "support/http.rs"]
#[expect(dead_code, reason = "each request has a connection of its own")]
mod http;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "no model is broken here")]
mod server;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::config::ServerConfig;
use convoy::grpc::proto::convoy::v1::ClassifyRequest;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::onnx::{ModelProto, TensorProto};
use convoy::repository::ModelControlMode;
use convoy::server::Server;
use convoy::tensor::Tensor;
use serde_json::{Value, json};
use server::{PLAIN_RECIPE, Repository, config, png, start, within_a_minute};

const SIDE: i64 = 8;
const TENSOR: &[i64] = &[1, 3, SIDE, SIDE];

/// The channel means plus `bias`, and `doubled`, a side branch that has twice that.
fn branched(bias: f32) -> ModelProto {
    let nodes = vec![
        graphs::node("GlobalAveragePool", &["input"], "pooled"),
        graphs::node("Flatten", &["pooled"], "means"),
        graphs::node("Add", &["means", "bias"], "logits"),
        graphs::node("Add", &["logits", "logits"], "doubled"),
    ];
    let bias = TensorProto::new("bias", &Tensor::from_vec(vec![3], vec![bias, 0.0, 0.25]).unwrap()).unwrap();
    let mut model = graphs::model(nodes, vec![bias], TENSOR_OF_ANY, &[-1, 3]);
    model.graph.as_mut().unwrap().output.push(graphs::value("doubled", DataType::Float, &[-1, 3]));
    model
}

const TENSOR_OF_ANY: &[i64] = &[-1, 3, SIDE, SIDE];

fn cached(repository: &Repository) -> ServerConfig {
    let mut config = config(repository);
    config.response_cache.max_bytes = 1 << 20;
    config
}

/// A model alone, one of crops, and an ensemble whose members have two recipes between the three of them.
fn models() -> Repository {
    let plain = format!("max_batch_size = 2\n{PLAIN_RECIPE}");
    let repository = Repository::new()
        .with("plain", &branched(0.1), &plain, "red\ngreen\nblue\n")
        .with("crops", &branched(0.2), &format!("{plain}resize = 'none'\ncrops = 10\n"), "")
        .with("other", &branched(0.3), &plain, "");
    std::fs::create_dir(repository.path().join("ensemble")).unwrap();
    let members = "members = ['plain', { name = 'crops', weight = 0.3 }, { name = 'other', weight = 0.7 }]";
    std::fs::write(repository.path().join("ensemble/config.toml"), members).unwrap();
    repository
}

/// A picture of many colours, larger than a crop.
fn picture(seed: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(13, 11, |x, y| {
        image::Rgb([x * 19 + seed, y * 23 + seed * 3, x * y * 7 + seed * 5].map(|value| value as u8))
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn tensor(seed: usize, rows: usize) -> Vec<u8> {
    let elements = rows * 3 * (SIDE * SIDE) as usize;
    grpc::bytes(&(0..elements).map(|index| ((index + seed) % 17) as f32 / 7.0).collect::<Vec<_>>())
}

/// What `path` answers to `body`, without the times.
async fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> String {
    let answer = http::send(server, "POST", path, headers, body).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    if answer.headers.contains_key("inference-header-content-length") {
        return format!("{:?}", answer.body);
    }
    let mut json = answer.json();
    json.as_object_mut().unwrap().remove("timing");
    // The two servers have loaded it at different times.
    json.as_object_mut().unwrap().remove("model_loaded_ms");
    json.to_string()
}

async fn classify_over_grpc(server: &Server, model: &str, images: Vec<Vec<u8>>, aux: bool) -> String {
    let images = images.into_iter().map(Into::into).collect();
    let request = ClassifyRequest { model_name: model.into(), images, aux, top_k: Some(2), ..Default::default() };
    let mut client = ImageClassifierClient::new(grpc::channel(server).await);
    format!("{:?}", client.classify(request).await.unwrap().into_inner().predictions)
}

async fn infer_over_grpc(server: &Server, model: &str, datatype: &str, shape: &[i64], bytes: Vec<u8>) -> String {
    let mut request = grpc::raw(model, datatype, shape, bytes);
    request.parameters.insert("top_k".into(), grpc::int(0));
    format!("{:?}", grpc::client(server).await.model_infer(request).await.unwrap().into_inner())
}

/// One request of every form, to every kind of model; the answers in order.
async fn everything(server: &Server) -> Vec<String> {
    let mut answers = Vec::new();
    for model in ["plain", "crops", "ensemble"] {
        let path = format!("/v1/models/{model}/classify");
        answers.push(post(server, &path, &[("content-type", "image/png")], picture(1)).await);
        answers.push(post(server, &format!("{path}?top_k=1"), &[("content-type", "image/png")], picture(1)).await);
        let images = json!({"images": [STANDARD.encode(picture(1)), STANDARD.encode(picture(2))]}).to_string();
        answers.push(post(server, &path, &[("content-type", "application/json")], images).await);
        answers.push(classify_over_grpc(server, model, vec![picture(2), picture(3)], false).await);
        let strings = grpc::byte_strings(&[picture(3), picture(1), picture(4)]);
        answers.push(infer_over_grpc(server, model, "BYTES", &[3], strings).await);
        let input = json!({"name": "input", "shape": [1], "datatype": "BYTES", "data": [STANDARD.encode(picture(4))]});
        let path = format!("/v2/models/{model}/infer");
        answers
            .push(post(server, &path, &[], json!({"inputs": [input], "parameters": {"top_k": 2}}).to_string()).await);
        if model != "ensemble" {
            answers.push(classify_over_grpc(server, model, vec![picture(5)], true).await);
            let body = json!({"inputs": [input], "outputs": [{"name": "doubled"}]}).to_string();
            answers.push(post(server, &path, &[], body).await);
            // Five rows in batches of two: three pieces, of which the last is another tensor than the first two.
            answers.push(infer_over_grpc(server, model, "FP32", &[5, 3, SIDE, SIDE], tensor(0, 5)).await);
            let input = json!({"name": "input", "shape": TENSOR, "datatype": "FP32",
                "parameters": {"binary_data_size": tensor(5, 1).len()}});
            let head = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
            let body = [head.as_bytes(), &tensor(5, 1)].concat();
            let length = head.len().to_string();
            answers.push(post(server, &path, &[("inference-header-content-length", &length)], body).await);
        }
    }
    answers
}

/// The model's `inference_stats` and its count of runs.
async fn statistics(server: &Server, model: &str) -> (Value, u64) {
    let answer = http::get(server, &format!("/v2/models/{model}/stats")).await.json();
    let of_model = &answer["model_stats"][0];
    (of_model["inference_stats"].clone(), of_model["execution_count"].as_u64().unwrap())
}

fn count(statistics: &Value, what: &str) -> u64 {
    statistics[what]["count"].as_u64().unwrap()
}

/// The value of the metric of a model of version 1; 0 where there is none.
async fn metric(server: &Server, name: &str, model: &str) -> u64 {
    let answer = http::send_to(server.metrics_address(), "GET", "/metrics", &[], "").await;
    let page = String::from_utf8(answer.body.to_vec()).unwrap();
    let begin = format!("{name}{{model=\"{model}\",version=\"1\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&begin)).map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_hit_answers_what_a_run_does_to_the_bit_in_every_form() {
    let repository = models();
    let (without, with) = (start(config(&repository)).await, start(cached(&repository)).await);
    let run = everything(&without).await;
    // Partly hits already: the same pictures come in several forms.
    assert_eq!(everything(&with).await, run);
    let mut before = Vec::new();
    for model in ["plain", "crops", "other"] {
        before.push(statistics(&with, model).await);
    }
    assert_eq!(everything(&with).await, run);
    for (model, (before, runs)) in ["plain", "crops", "other"].into_iter().zip(before) {
        let (after, runs_after) = statistics(&with, model).await;
        assert_eq!(runs_after, runs, "{model}: nothing was run again");
        assert_eq!(count(&after, "cache_miss"), count(&before, "cache_miss"), "{model}");
        assert!(count(&after, "cache_hit") > count(&before, "cache_hit"), "{model}");
        for what in ["cache_hit", "cache_miss"] {
            assert!(after[what]["ns"].as_u64().unwrap() > 0, "{model}: {what}");
        }
        for (name, what) in [
            ("convoy_response_cache_hits_total", "cache_hit"),
            ("convoy_response_cache_misses_total", "cache_miss"),
            ("nv_cache_num_hits_per_model", "cache_hit"),
            ("nv_cache_num_misses_per_model", "cache_miss"),
        ] {
            assert_eq!(metric(&with, name, model).await, count(&after, what), "{model}: {name}");
        }
        assert!(metric(&with, "convoy_response_cache_bytes", model).await > 0);
    }
    // Five pictures alone or as a member, and for `plain` the four pieces of its tensors: each was missed once.
    let misses = |statistics: &(Value, u64)| count(&statistics.0, "cache_miss");
    assert_eq!(misses(&statistics(&with, "other").await), 4, "a member answers no request of its own here");
    assert_eq!(misses(&statistics(&with, "plain").await), 5 + 4);
    // Without a cache nothing is looked up.
    let (statistics, _) = statistics(&without, "plain").await;
    assert_eq!((count(&statistics, "cache_hit"), count(&statistics, "cache_miss")), (0, 0));
}

#[tokio::test]
async fn hits_are_successes_that_took_no_run() {
    let repository = models();
    let server = start(cached(&repository)).await;
    let path = "/v1/models/plain/classify";
    for hits in 0..3 {
        let answer = http::send(&server, "POST", path, &[], picture(1)).await.json();
        assert_eq!(answer["timing"]["batch_size"], json!(u64::from(hits == 0)));
        let (statistics, runs) = statistics(&server, "plain").await;
        assert_eq!((runs, count(&statistics, "success"), count(&statistics, "cache_hit")), (1, hits + 1, hits));
        assert_eq!((count(&statistics, "queue"), count(&statistics, "cache_miss")), (1, 1));
    }
    for gauge in ["convoy_in_flight", "convoy_queue_bytes", "convoy_queue_depth"] {
        assert_eq!(metric(&server, gauge, "plain").await, 0, "{gauge}");
    }
}

#[tokio::test]
async fn a_model_that_is_loaded_again_answers_anew_and_its_old_answers_are_gone() {
    let repository = Repository::new().with("m", &branched(0.0), PLAIN_RECIPE, "");
    let mut config = cached(&repository);
    config.model_control.mode = ModelControlMode::Explicit;
    config.model_control.load = vec!["*".into()];
    let server = start(config).await;
    let path = "/v2/models/m/infer";
    let input =
        json!({"name": "input", "shape": [1], "datatype": "BYTES", "data": [STANDARD.encode(png([51, 102, 204]))]});
    let body = json!({"inputs": [input], "outputs": [{"name": "logits"}]}).to_string();
    let first = post(&server, path, &[], body.clone()).await;
    assert_eq!(post(&server, path, &[], body.clone()).await, first);

    graphs::write(&repository.path().join("m/1"), &branched(5.0));
    let loaded = http::send(&server, "POST", "/v2/repository/models/m/load", &[], "").await;
    assert_eq!(loaded.status, 200);
    let bytes_are = async |expected: u64| {
        while metric(&server, "convoy_response_cache_bytes", "m").await != expected {
            tokio::task::yield_now().await;
        }
    };
    // Not because anything was put in since, but because the old graph has ended.
    within_a_minute(bytes_are(0)).await;
    let second = post(&server, path, &[], body.clone()).await;
    let logit = |answer: &str| {
        let answer: Value = serde_json::from_str(answer).unwrap();
        answer["outputs"][0]["data"][0].as_f64().unwrap()
    };
    assert!((logit(&first) - 0.2).abs() < 1e-6 && (logit(&second) - 5.2).abs() < 1e-6, "{first} {second}");
    assert_eq!(post(&server, path, &[], body).await, second);

    let unloaded = http::send(&server, "POST", "/v2/repository/models/m/unload", &[], "").await;
    assert_eq!(unloaded.status, 200);
    within_a_minute(bytes_are(0)).await;
}

#[tokio::test]
async fn a_model_can_stay_out_of_it() {
    let out = format!("{PLAIN_RECIPE}[response_cache]\nenabled = false\n");
    let repository = Repository::new().with("m", &branched(0.0), &out, "");
    let server = start(cached(&repository)).await;
    for runs in 1..3 {
        post(&server, "/v1/classify", &[], picture(1)).await;
        let (statistics, executed) = statistics(&server, "m").await;
        assert_eq!((executed, count(&statistics, "cache_hit"), count(&statistics, "cache_miss")), (runs, 0, 0));
    }
}

#[tokio::test]
async fn a_model_with_tritons_configuration_asks_for_it() {
    let (asks, does_not) = (branched(0.0), branched(0.0));
    let repository = Repository::new().with("asks", &asks, "", "").with("does_not", &does_not, "", "").with(
        "plain",
        &branched(0.0),
        PLAIN_RECIPE,
        "",
    );
    std::fs::write(repository.path().join("asks/config.pbtxt"), "response_cache { enable: true }").unwrap();
    std::fs::write(repository.path().join("does_not/config.pbtxt"), "").unwrap();
    let server = start(cached(&repository)).await;
    for (model, is_kept) in [("asks", true), ("does_not", false), ("plain", true)] {
        let config = http::get(&server, &format!("/v2/models/{model}/config")).await.json();
        assert_eq!(config["response_cache"]["enable"], json!(is_kept), "{model}");
        for _ in 0..2 {
            post(&server, &format!("/v1/models/{model}/classify"), &[], picture(1)).await;
        }
        let (statistics, executed) = statistics(&server, model).await;
        let expected = if is_kept { (1, 1, 1) } else { (2, 0, 0) };
        assert_eq!((executed, count(&statistics, "cache_hit"), count(&statistics, "cache_miss")), expected, "{model}");
    }
}

#[tokio::test]
async fn a_hit_needs_no_place_in_a_full_queue_and_no_time() {
    // A batch of one row is held back for an hour; there are places for two rows.
    let held = format!(
        "max_batch_size = 2\n{PLAIN_RECIPE}[instances]\ncount = 1\n[batching]\nqueue_size = 0\nmax_queue_delay_us = 3600000000\n"
    );
    let repository = Repository::new().with("m", &branched(0.0), &held, "");
    let server = Arc::new(start(cached(&repository)).await);
    let path = "/v1/models/m/classify";
    let two = |one: u32, other: u32| {
        json!({"images": [STANDARD.encode(picture(one)), STANDARD.encode(picture(other))]}).to_string()
    };
    let json = [("content-type", "application/json")];
    let run = post(&server, path, &json, two(1, 2)).await;
    let waiting = tokio::spawn({
        let server = Arc::clone(&server);
        async move { post(&server, "/v1/models/m/classify", &[], picture(3)).await }
    });
    within_a_minute(async { while metric(&server, "convoy_queue_depth", "m").await < 1 {} }).await;
    assert_eq!(post(&server, path, &json, two(1, 2)).await, run);
    let refused = http::send(&server, "POST", path, &json, two(4, 5)).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    // With a deadline too, which an hour in the queue would not meet.
    assert_eq!(post(&server, &format!("{path}?timeout_ms=60000"), &json, two(2, 1)).await.len(), run.len());
    // One hit and one miss: the miss needs the last place, and fills the batch.
    let mixed = post(&server, path, &json, two(2, 6)).await;
    assert!(within_a_minute(waiting).await.is_ok(), "{mixed}");
    // An answer that comes too late is none, kept or not: a microsecond has passed when the body is parsed.
    let input = json!({"name": "input", "shape": [1], "datatype": "BYTES", "data": [STANDARD.encode(picture(1))]});
    let late = json!({"inputs": [input], "parameters": {"timeout": 1}}).to_string();
    assert_eq!(http::send(&server, "POST", "/v2/models/m/infer", &[], late).await.status, 504);
}
