//! Ensembles: what they answer, what becomes of them without a member, and what they leave alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::onnx::ModelProto;
use convoy::server::Server;
use serde_json::{Value, json};

use crate::client::{get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};

const COLOUR: [u8; 3] = [240, 20, 130];

/// The channel means by the sum of as many of them as `factor` says.
fn scaled(factor: usize) -> ModelProto {
    let mut model = graphs::channel_means(8, None);
    let graph = model.graph.as_mut().unwrap();
    graph.node[1] = graphs::node("Flatten", &["pooled"], "means");
    let inputs = vec!["means"; factor];
    graph.node.push(graphs::node("Sum", &inputs, "logits"));
    model
}

fn folder(repository: &Repository, name: &str, config: &str) {
    std::fs::create_dir(repository.path().join(name)).unwrap();
    std::fs::write(repository.path().join(name).join("config.toml"), config).unwrap();
}

async fn server() -> (Server, Repository) {
    let held = format!(
        "max_batch_size = 2\n{PLAIN_RECIPE}[instances]\ncount = 1\n[batching]\nmax_queue_delay_us = 3600000000\n"
    );
    let single = format!("max_batch_size = 1\n{PLAIN_RECIPE}[instances]\ncount = 1\n[batching]\nqueue_size = 0\n");
    let repository = Repository::new()
        .with("once", &scaled(1), PLAIN_RECIPE, "")
        .with("thrice", &scaled(3), PLAIN_RECIPE, "red\ngreen\nblue\n")
        .with("dark", &scaled(2), "[preprocess]\nmean = [0.9, 0.1, 0.3]\n", "")
        .with("held", &scaled(1), &held, "")
        .with("single", &scaled(1), &single, "")
        .with("four", &graphs::convolutional(8, 4), "", "")
        .with_broken("broken");
    for (name, config) in [
        ("a-pair", "members = ['once', 'thrice']"),
        ("weighted", "[[members]]\nname = 'once'\n[[members]]\nname = 'dark'\nversion = 1\nweight = 3\n"),
        ("by-logits", "average = 'logits'\nmembers = ['once', 'thrice', 'dark']"),
        ("waiting", "members = ['once', 'held']"),
        ("crowded", "members = ['once', 'single']"),
        ("twice", "members = ['single', { name = 'dark', weight = 3 }, { name = 'single', version = 1 }]"),
        ("with-broken", "members = ['once', 'broken']"),
        ("with-none", "members = ['once', 'nobody']"),
        ("with-four", "members = ['once', 'four']"),
        ("nested", "members = ['once', 'a-pair']"),
        ("circular", "members = ['circular']"),
        ("versioned", "members = [{ name = 'once', version = 9 }]"),
        ("mistaken", "members = ['once']\nproviders = [{ name = 'cpu' }]"),
    ] {
        folder(&repository, name, config);
    }
    (start(config(&repository)).await, repository)
}

async fn classify(server: &Server, model: &str) -> Value {
    let answer = send(server, "POST", &format!("/v1/models/{model}/classify"), &[], png(COLOUR)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The scores by class.
fn scores(answer: &Value) -> Vec<f64> {
    let mut scores = vec![f64::NAN; 3];
    for class in answer["predictions"][0]["classes"].as_array().unwrap() {
        scores[class["index"].as_u64().unwrap() as usize] = class["score"].as_f64().unwrap();
    }
    scores
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
    assert!(close, "{found:?} are not {expected:?}");
}

async fn infer(server: &Server, model: &str) -> Vec<f64> {
    let input = json!({"name": "input", "shape": [1], "datatype": "BYTES", "data": [STANDARD.encode(png(COLOUR))]});
    let path = format!("/v2/models/{model}/infer");
    let answer = send(server, "POST", &path, &[], json!({"inputs": [input]}).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = answer.json()["outputs"][0]["data"].clone();
    serde_json::from_value(data).unwrap()
}

/// The value of a metric, without which there is none.
async fn metric(server: &Server, name: &str) -> Option<f64> {
    let page = crate::metrics(server, "/metrics").await;
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// The weighted mean of rows.
fn mean(rows: &[(f64, Vec<f64>)]) -> Vec<f64> {
    let weights: f64 = rows.iter().map(|(weight, _)| weight).sum();
    (0..3).map(|class| rows.iter().map(|(weight, row)| weight * row[class]).sum::<f64>() / weights).collect()
}

#[tokio::test]
async fn a_member_that_is_named_twice_counts_twice_and_is_run_once() {
    let (server, _repository) = server().await;
    let rows = [(2.0, scores(&classify(&server, "single").await)), (3.0, scores(&classify(&server, "dark").await))];
    // It has one place only.
    assert_close(&scores(&classify(&server, "twice").await), &mean(&rows));
    let statistics = get(&server, "/v2/models/single/stats").await.json();
    assert_eq!(statistics["model_stats"][0]["inference_count"], json!(2));
}

#[tokio::test]
async fn the_answer_is_the_average_of_the_members() {
    let (server, _repository) = server().await;
    let [once, thrice, dark] = ["once", "thrice", "dark"];
    for (model, members) in [("a-pair", [(1.0, once), (1.0, thrice)]), ("weighted", [(1.0, once), (3.0, dark)])] {
        let mut rows = Vec::new();
        for (weight, member) in members {
            rows.push((weight, scores(&classify(&server, member).await)));
        }
        let answer = classify(&server, model).await;
        assert_eq!((&answer["model_name"], &answer["model_version"]), (&json!(model), &json!("1")));
        assert_close(&scores(&answer), &mean(&rows));
        assert_close(&infer(&server, model).await, &mean(&rows));
    }
    let mut logits = Vec::new();
    for member in [once, thrice, dark] {
        logits.push((1.0, infer(&server, member).await));
    }
    let expected = mean(&logits);
    assert_close(&infer(&server, "by-logits").await, &expected);
    let sum: f64 = expected.iter().map(|logit| logit.exp()).sum();
    let probabilities: Vec<f64> = expected.iter().map(|logit| logit.exp() / sum).collect();
    assert_close(&scores(&classify(&server, "by-logits").await), &probabilities);

    // The first member that has labels has them for all.
    let answer = classify(&server, "a-pair").await;
    assert_eq!(answer["predictions"][0]["classes"][0]["label"], json!("red"));
    assert_eq!(classify(&server, "weighted").await["predictions"][0]["classes"][0]["label"], Value::Null);
}

#[tokio::test]
async fn a_picture_is_decoded_once_for_each_recipe() {
    let (server, _repository) = server().await;
    for (model, members, recipes) in
        [("a-pair", ["once", "thrice"].as_slice(), 1.0), ("by-logits", &["once", "thrice", "dark"], 2.0)]
    {
        classify(&server, model).await;
        let count = format!(r#"convoy_decode_seconds_count{{model="{model}",version="1"}}"#);
        assert_eq!(metric(&server, &count).await, Some(recipes), "{model}");
        let requests =
            format!(r#"convoy_requests_total{{model="{model}",outcome="success",protocol="http",version="1"}}"#);
        assert_eq!(metric(&server, &requests).await, Some(1.0), "{model}");
        for member in members {
            let decoded = format!(r#"convoy_decode_seconds_count{{model="{member}",version="1"}}"#);
            assert_eq!(metric(&server, &decoded).await, Some(0.0), "{member}");
        }
    }
}

#[tokio::test]
async fn a_member_serves_its_own_requests_too() {
    let (server, _repository) = server().await;
    let (ensemble, member) = (classify(&server, "a-pair").await, classify(&server, "once").await);
    let requests = (0..20).map(|index| classify(&server, if index % 2 == 0 { "a-pair" } else { "once" }));
    for (index, answer) in futures_util::future::join_all(requests).await.iter().enumerate() {
        assert_eq!(answer["predictions"], if index % 2 == 0 { &ensemble } else { &member }["predictions"]);
    }
    let statistics = get(&server, "/v2/models/once/stats").await.json();
    assert_eq!(statistics["model_stats"][0]["inference_count"], json!(22), "rows of both");
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["success"]["count"], json!(11), "its own requests");
    let statistics = get(&server, "/v2/models/a-pair/stats").await.json();
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["success"]["count"], json!(11));
}

#[tokio::test]
async fn without_a_member_it_is_unavailable_and_says_which() {
    let (server, _repository) = server().await;
    let index = send(&server, "POST", "/v2/repository/index", &[], "").await.json();
    for (model, said) in [
        ("with-broken", "broken"),
        ("with-none", "there is no model called nobody"),
        ("with-four", "four has 4 classes, but once has 3"),
        ("nested", "a-pair is an ensemble itself"),
        ("circular", "circular is an ensemble itself"),
        ("versioned", "once has no version 9"),
        ("mistaken", "providers"),
    ] {
        let answer = send(&server, "POST", &format!("/v1/models/{model}/classify"), &[], png(COLOUR)).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.error().contains(said), "{answer:?}");
        assert_eq!(get(&server, &format!("/v2/models/{model}/ready")).await.status, 503);
        let entry = index.as_array().unwrap().iter().find(|entry| entry["name"] == json!(model)).unwrap();
        assert_eq!(entry["state"], json!("UNAVAILABLE"));
        let reason = entry["reason"].as_str().unwrap();
        assert!(reason.contains(said) && reason.contains(&format!("{model}/config.toml")), "{reason}");
    }
    let state = r#"convoy_model_state{model="with-none",state="UNAVAILABLE",version="1"}"#;
    assert_eq!(metric(&server, state).await, Some(1.0));
    // It was defined before its members were loaded.
    let state = r#"convoy_model_state{model="a-pair",state="READY",version="1"}"#;
    assert_eq!(metric(&server, state).await, Some(1.0));
}

#[tokio::test]
async fn it_is_admitted_by_every_member_or_by_none() {
    let (server, _repository) = server().await;
    let in_flight = async || {
        let mut rows = 0.0;
        for member in ["once", "held", "single"] {
            let name = format!(r#"convoy_in_flight{{model="{member}",version="1"}}"#);
            rows += metric(&server, &name).await.unwrap();
        }
        rows
    };
    let path = "/v1/models/waiting/classify?timeout_ms=50";
    let answer = send(&server, "POST", path, &[], png(COLOUR)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(in_flight().await < 1.0);

    let images = json!({"images": vec![STANDARD.encode(png(COLOUR)); 3]}).to_string();
    let header = ("content-type", "application/json");
    let answer = send(&server, "POST", "/v1/models/crowded/classify", &[header], images).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("the member single"), "{answer:?}");
    assert!(in_flight().await < 1.0);
    classify(&server, "crowded").await;
}

#[tokio::test]
async fn it_describes_itself() {
    let (server, _repository) = server().await;
    let metadata = get(&server, "/v2/models/a-pair").await.json();
    let expected = json!({
        "name": "a-pair", "versions": ["1"], "platform": "ensemble",
        "inputs": [{"name": "input", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    });
    assert_eq!(metadata, expected);
    let config = get(&server, "/v2/models/by-logits/config").await.json();
    assert_eq!((&config["platform"], &config["backend"]), (&json!("ensemble"), &json!("")));
    assert_eq!((&config["instance_group"], &config["max_batch_size"]), (&json!([]), &json!(0)));
    assert_eq!(config["output"][0]["name"], json!("logits"));
    let mut details = get(&server, "/v1/models/a-pair").await.json();
    let loaded = details.as_object_mut().unwrap().remove("loaded_ms").unwrap();
    let of = async |member: &str| {
        get(&server, &format!("/v1/models/{member}")).await.json()["loaded_ms"]["1"].as_u64().unwrap()
    };
    assert!(loaded["1"].as_u64().unwrap() >= of("once").await.max(of("thrice").await), "{loaded}");
    let expected = json!({"name": "a-pair", "versions": ["1"], "state": "READY", "classes": 3, "ready": true,
        "members": ["once", "thrice"]});
    assert_eq!(details, expected);
    let answer = get(&server, "/v1/models/a-pair/architecture").await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("once, thrice"), "{answer:?}");

    let tensor = json!({"name": "input", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": vec![0; 192]});
    let body = json!({"inputs": [tensor]}).to_string();
    let answer = send(&server, "POST", "/v2/models/a-pair/infer", &[], body).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("encoded pictures as BYTES"), "{answer:?}");
    let answer = send(&server, "POST", "/v1/models/a-pair:predict", &[], json!({"instances": [[1]]}).to_string()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}
