//! The real model on real photographs, over HTTP and on the command line. `cargo xtask test` sets both up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/http.rs"]
#[expect(dead_code, reason = "only what classifying needs")]
mod client;
#[path = "support/graphs.rs"]
#[expect(dead_code, reason = "the server's support knows test graphs, which are not needed here")]
mod graphs;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "only what a real repository needs")]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use client::{Answer, send};
use convoy::config::ServerConfig;
use convoy::server::Server;
use serde_json::{Value, json};
use server::start;

const MODEL: &str = "efficientnet-lite0";
const CLASSIFY: &str = "/v1/models/efficientnet-lite0/classify";

/// The photographs, the ImageNet indices of what they show (their authors say it), and the probability that PyTorch gives
/// the first answer for the same checkpoint on Pillow's pixels (docs/development.md).
const PHOTOS: [(&str, &[u64], f64); 8] = [
    ("cats/tabby-cat.jpg", &[281], 0.57),
    ("cats/persian-cat.jpg", &[283], 0.83),
    ("cats/siamese-cat.jpg", &[284], 0.97),
    ("cats/egyptian-cat.jpg", &[285], 0.98),
    ("scikit-image/chelsea.png", &[281, 282, 285], 0.38),
    ("scikit-image/coffee.png", &[967], 0.96),
    ("scikit-image/camera.png", &[872], 0.94),
    ("scikit-image/rocket.jpg", &[657, 744], 0.36),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn photo_path(name: &str) -> PathBuf {
    root().join("target/photos").join(name)
}

fn photo(name: &str) -> Bytes {
    std::fs::read(photo_path(name)).expect("`cargo xtask test` has fetched the photographs").into()
}

async fn real_server() -> Server {
    let mut config = ServerConfig { model_repository: root().join("models"), ..ServerConfig::default() };
    config.http.address = "127.0.0.1:0".parse().expect("an address");
    config.grpc.address = config.http.address;
    config.metrics.address = config.http.address;
    config.shutdown.grace_ms = 0;
    let server = start(config).await;
    let ready = send(&server, "GET", &format!("/v2/models/{MODEL}/ready"), &[], "").await;
    assert_eq!(ready.status, 200, "`cargo xtask setup` has written the model: {ready:?}");
    server
}

/// The first class of an answer's prediction.
fn first_class(answer: &Answer, prediction: usize) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["predictions"][prediction]["classes"][0].clone()
}

fn score(class: &Value) -> f64 {
    class["score"].as_f64().expect("a number")
}

#[tokio::test]
async fn photographs_are_what_their_authors_say() {
    let server = real_server().await;
    for (name, shown, probability) in PHOTOS {
        let answer = send(&server, "POST", CLASSIFY, &[], photo(name)).await;
        let class = first_class(&answer, 0);
        assert!(shown.contains(&class["index"].as_u64().expect("an index")), "{name}: {class}");
        assert!((score(&class) - probability).abs() < 0.006, "{name}: PyTorch says {probability}, this is {class}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_batch_of_any_size_answers_as_single_requests_do() {
    let server = real_server().await;
    let mut singles = Vec::new();
    for (name, ..) in PHOTOS {
        singles.push(first_class(&send(&server, "POST", CLASSIFY, &[], photo(name)).await, 0));
    }
    for size in 1..=PHOTOS.len() {
        let boundary = "photographs";
        let mut body = Vec::new();
        for (name, ..) in &PHOTOS[..size] {
            body.extend(format!("--{boundary}\r\ncontent-disposition: form-data; name=f; filename=f\r\n\r\n").bytes());
            body.extend(photo(name));
            body.extend(b"\r\n");
        }
        body.extend(format!("--{boundary}--\r\n").bytes());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let answer = send(&server, "POST", CLASSIFY, &[("content-type", &content_type)], body).await;
        for (index, single) in singles[..size].iter().enumerate() {
            let class = first_class(&answer, index);
            assert_eq!(class["index"], single["index"], "picture {index} of {size}");
            // Which rows share a batch decides the order in which some kernels sum.
            assert!((score(&class) - score(single)).abs() < 1e-5, "picture {index} of {size}: {class}, alone {single}");
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn the_same_tensor_gives_the_same_logits_in_every_batch_size() {
    let server = real_server().await;
    let infer = format!("/v2/models/{MODEL}/infer");
    let logits = async |pictures: &[Bytes]| {
        let mut tensor = Vec::new();
        for picture in pictures {
            tensor.extend(u32::try_from(picture.len()).expect("a small file").to_le_bytes());
            tensor.extend_from_slice(picture);
        }
        let head = json!({
            "inputs": [{
                "name": "input", "datatype": "BYTES", "shape": [pictures.len()],
                "parameters": { "binary_data_size": tensor.len() },
            }],
        })
        .to_string();
        let length = head.len().to_string();
        let body = [head.into_bytes(), tensor].concat();
        let answer = send(&server, "POST", &infer, &[("inference-header-content-length", &length)], body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let data = answer.json()["outputs"][0]["data"].clone();
        serde_json::from_value::<Vec<f32>>(data).expect("numbers")
    };
    let pictures: Vec<Bytes> = PHOTOS.iter().map(|(name, ..)| photo(name)).collect();
    let mut singles = Vec::new();
    for picture in &pictures {
        singles.push(logits(std::slice::from_ref(picture)).await);
    }
    for size in 2..=pictures.len() {
        let batch = logits(&pictures[..size]).await;
        assert_eq!(batch.len(), 1000 * size);
        for (row, single) in batch.chunks(1000).zip(&singles) {
            let worst = row.iter().zip(single).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(worst < 1e-4, "a batch of {size} moves a logit by {worst}");
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn more_requests_than_places_are_refused_at_once_and_the_rest_is_answered() {
    let mut config = ServerConfig { model_repository: root().join("models"), ..ServerConfig::default() };
    config.http.address = "127.0.0.1:0".parse().expect("an address");
    config.grpc.address = config.http.address;
    config.metrics.address = config.http.address;
    config.shutdown.grace_ms = 0;
    let server = start(config).await;
    // The queue takes 256 pictures and what runs: many more are on their way at the same time.
    let picture = photo("cats/tabby-cat.jpg");
    let requests = (0..600).map(|_| send(&server, "POST", CLASSIFY, &[], picture.clone()));
    let answers = futures_util::future::join_all(requests).await;
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert!(refused > 0, "600 requests at once are more than there are places");
    for answer in &answers {
        match answer.status.as_u16() {
            200 => assert_eq!(first_class(answer, 0)["index"], 281),
            429 => assert!(answer.headers["retry-after"].to_str().expect("text").parse::<u64>().expect("seconds") >= 1),
            _ => panic!("{answer:?}"),
        }
    }
    let statistics = send(&server, "GET", &format!("/v2/models/{MODEL}/stats"), &[], "").await.json();
    let counts = &statistics["model_stats"][0]["inference_stats"];
    assert_eq!(counts["success"]["count"], answers.len() - refused);
    assert_eq!(counts["fail"]["count"], refused);
    server.shutdown().await;
}

/// Runs the binary on the real repository.
fn convoy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_convoy")).current_dir(root()).args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn classify_names_what_is_on_each_photograph_and_reports_what_is_none() {
    let (cat, coffee) = (photo_path("cats/tabby-cat.jpg"), photo_path("scikit-image/coffee.png"));
    let manifest = root().join("Cargo.toml");
    let paths = [&cat, &manifest, &coffee].map(|path| path.to_str().expect("UTF-8"));
    let output = convoy(&["classify", "--json", "--top-k", "2", paths[0], paths[1], paths[2]]);
    assert_eq!(output.status.code(), Some(1), "one of the three is no picture");
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["classes"][0]["index"], 281);
    assert_eq!(lines[0]["classes"][0]["label"], "tabby, tabby cat");
    assert_eq!(lines[0]["classes"].as_array().expect("a list").len(), 2);
    assert_eq!(lines[1]["classes"][0]["index"], 967);
    let error = text(&output.stderr);
    assert!(error.starts_with("error: ") && error.contains("Cargo.toml"), "{error}");

    let output = convoy(&["classify", paths[0]]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("281  tabby, tabby cat"), "{}", text(&output.stdout));
}

#[test]
fn explain_shows_why_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let png = folder.path().join("why.png");
    let (cat, png_path) = (photo_path("cats/siamese-cat.jpg"), png.to_str().unwrap());
    let run = |options: &[&str]| {
        let arguments = [&["explain", "--output", png_path, "--json"], options].concat();
        let output = convoy(&arguments);
        assert_eq!(output.status.code(), Some(0), "{options:?}: {}", text(&output.stderr));
        assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
        serde_json::from_str::<Value>(text(&output.stdout)).unwrap()
    };
    let why = run(&[cat.to_str().unwrap()]);
    assert_eq!((&why["method"], &why["class"]["index"]), (&json!("cam"), &json!(284)));
    assert_eq!(why["heatmap"]["shape"], json!([7, 7]));
    // The face, which is in the upper right quarter, and not the body.
    let data: Vec<f64> = why["heatmap"]["data"].as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect();
    let hottest = (0..49).max_by(|&a, &b| data[a].total_cmp(&data[b])).unwrap();
    assert!(hottest / 7 <= 3 && hottest % 7 >= 4, "{hottest}");

    let units = run(&[cat.to_str().unwrap(), "--method", "guided", "--layer", "_blocks.10._relu1", "--count", "3"]);
    assert_eq!(units["units"].as_array().unwrap().len(), 3);
    // The set-up's stamp lies in the folder, too.
    let folder = cat.parent().unwrap().to_str().unwrap();
    let exciting = run(&["--show", "exciting", "--layer", "_blocks.10._relu1", "--unit", "7", "--count", "2", folder]);
    let pictures = exciting["pictures"].as_array().unwrap();
    let activation = |index: usize| pictures[index]["activation"].as_f64().unwrap();
    assert!(pictures.len() == 2 && activation(0) > activation(1), "{exciting}");
    assert!(pictures.iter().all(|it| it["picture"].as_str().unwrap().ends_with("-cat.jpg")), "{exciting}");
    assert_eq!(run(&["--show", "filters"])["shape"], json!([32, 3, 3, 3]));
    let output = convoy(&["explain", "--show", "layers"]);
    assert!(text(&output.stdout).contains("_conv_head\tConv\t[1280, 7, 7]"), "{}", text(&output.stdout));
}

#[test]
fn mistakes_on_the_command_line_are_sentences_with_exit_codes() {
    for (arguments, code, says) in [
        (&["classify", "photo.jpg", "--model", "nowhere"][..], 1, "no model nowhere"),
        (&["classify", "photo.jpg", "--model-repository", "nowhere"], 1, "nowhere"),
        (&["classify"], 2, "PICTURE"),
        (&["classify", "photo.jpg", "--top-k", "0"], 2, "--top-k"),
        (&["explain", "--method", "magic"], 2, "there is no method magic"),
        (&["explain", "--show", "features", "photo.jpg"], 2, "--layer"),
        (&["explain"], 1, "one picture must be named"),
        (&["bench", "--image", "nowhere.jpg"], 1, "nowhere.jpg"),
        (&["bench", "--image", "Cargo.toml", "--url", "ftp://localhost"], 1, "are spoken here, not ftp"),
        (&["bench", "--image", "Cargo.toml", "--url", "https://localhost"], 1, "--ca must name the certificate"),
        (&["bench", "--image", "Cargo.toml", "--url", "http://127.0.0.1:1"], 1, "no server at 127.0.0.1:1"),
        (&["export", "resnet51", "--weights", "random:1"], 1, "resnet50"),
        (&["fly"], 2, "fly"),
    ] {
        let output = convoy(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{arguments:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("panicked"), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_measures_the_server_and_the_floor() {
    let server = real_server().await;
    let url = format!("http://{}", server.http_address());
    let path = photo_path("cats/tabby-cat.jpg");
    let path = path.to_str().expect("UTF-8").to_owned();
    let pid = std::process::id().to_string();
    let report = tokio::task::spawn_blocking(move || {
        let common = ["bench", "--image", &path, "--requests", "6", "--warmup-s", "0", "--format", "json"];
        let loaded = convoy(&[&common[..], &["--url", &url, "--concurrency", "1,3", "--pid", &pid]].concat());
        let floor = convoy(&[&common[..], &["--floor", "--model", MODEL, "--concurrency", "2"]].concat());
        [loaded, floor].map(|output| {
            assert!(output.status.success(), "{}", text(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
        })
    });
    let [loaded, floor] = report.await.expect("the commands ran");
    for measurement in loaded["measurements"].as_array().expect("a list").iter().chain([&floor["measurements"][0]]) {
        assert_eq!(measurement["images"], 6, "{measurement}");
        assert!(measurement["p99_ms"].as_f64() >= measurement["p50_ms"].as_f64(), "{measurement}");
        assert!(measurement["cpu_ms_per_image"].as_f64() > Some(0.0), "{measurement}");
    }
    let statistics = send(&server, "GET", &format!("/v2/models/{MODEL}/stats"), &[], "").await.json();
    assert_eq!(statistics["model_stats"][0]["inference_count"], 12);
    server.shutdown().await;
}
