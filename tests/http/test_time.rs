//! What networks do at test time: several crops of a picture, and side branches.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::onnx::ModelProto;
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::zoo::weights::Weights;
use convoy::zoo::{Architecture, OnnxOptions};
use serde_json::{Value, json};

use crate::client::{Answer, get, send};
use crate::graphs;
use crate::server::{Repository, config, start};

/// The classes of the tests' own graphs.
const CLASSES: usize = 3;
const SIDE: u32 = 8;
/// 5 and 3 more than a crop: odd, so that the centre of the mirror image is another part of the picture.
const WIDTH: u32 = 13;
const HEIGHT: u32 = 11;
const RECIPE: &str = "[preprocess]\nscale = 0.00392156862745098\nresize = 'none'\n";

/// The channel means, and `doubled`, a side branch that has twice the logits.
fn branched() -> ModelProto {
    let mut model = graphs::channel_means(SIDE.into(), None);
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(graphs::node("Add", &["logits", "logits"], "doubled"));
    graph.output.push(graphs::value("doubled", DataType::Float, &[-1, CLASSES as i64]));
    model
}

/// A picture whose crops differ.
fn picture() -> image::RgbImage {
    image::RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        image::Rgb([x * 19, y * 23, (x * y * 7) % 256].map(|value| value as u8))
    })
}

fn png(picture: &image::RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The means of the channels, 0 to 1, over the crop that begins at (`left`, `top`).
fn means(picture: &image::RgbImage, left: u32, top: u32) -> Vec<f64> {
    let places = (top..top + SIDE).flat_map(|y| (left..left + SIDE).map(move |x| (x, y)));
    let sums = places.fold([0.0; CLASSES], |mut sums, (x, y)| {
        for (sum, value) in sums.iter_mut().zip(picture.get_pixel(x, y).0) {
            *sum += f64::from(value) / 255.0;
        }
        sums
    });
    sums.map(|sum| sum / f64::from(SIDE * SIDE)).to_vec()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let exponentials: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|exponential| exponential / sum).collect()
}

/// The mean over the crops of the softmax of `factor` times the channel means.
fn averaged(crops: &[(u32, u32)], factor: f64) -> Vec<f64> {
    let picture = picture();
    let mut sums = vec![0.0; CLASSES];
    for &(left, top) in crops {
        let logits: Vec<f64> = means(&picture, left, top).iter().map(|mean| factor * mean).collect();
        for (sum, probability) in sums.iter_mut().zip(softmax(&logits)) {
            *sum += probability / crops.len() as f64;
        }
    }
    sums
}

/// Asserts that the classes are these probabilities, from the highest on.
fn assert_classes(classes: &Value, probabilities: &[f64]) {
    let classes = classes.as_array().unwrap();
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    assert!(!classes.is_empty());
    for (class, index) in classes.iter().zip(order) {
        assert_eq!(class["index"], json!(index), "{classes:?} are not {probabilities:?}");
        let score = class["score"].as_f64().unwrap();
        assert!((score - probabilities[index]).abs() < 1e-6, "{class} is not {}", probabilities[index]);
    }
}

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// The centre begins at (2.5, 1.5), which torchvision rounds to even; in the mirror image, 2 from the other side.
const FIVE: [(u32, u32); 5] = [(0, 0), (5, 0), (0, 3), (5, 3), (2, 2)];
const MIRRORED: [(u32, u32); 5] = [(5, 0), (0, 0), (5, 3), (0, 3), (3, 2)];

#[tokio::test]
async fn crops_are_averaged_as_probabilities() {
    // 10 crops in batches of at most 4.
    let recipe = |crops: usize| format!("max_batch_size = 4\n{RECIPE}crops = {crops}\n");
    let repository = Repository::new()
        .with("1", &branched(), &recipe(1), "")
        .with("5", &branched(), &recipe(5), "")
        .with("10", &branched(), &recipe(10), "");
    let server = start(config(&repository)).await;
    let file = png(&picture());
    let ten = [FIVE, MIRRORED].concat();
    for (model, crops) in [("1", &FIVE[4..]), ("5", &FIVE), ("10", &ten)] {
        let (main, branch) = (averaged(crops, 1.0), averaged(crops, 2.0));
        let images = json!({"images": [STANDARD.encode(&file), STANDARD.encode(&file)]}).to_string();
        let path = format!("/v1/models/{model}/classify?aux=true");
        let answer = ok(&send(&server, "POST", &path, &[("content-type", "application/json")], images).await);
        for prediction in answer["predictions"].as_array().unwrap() {
            assert_classes(&prediction["classes"], &main);
            assert_classes(&prediction["branches"]["doubled"], &branch);
        }

        // One row a picture, whose softmax is the average.
        let input = json!({"name": "input", "shape": [1], "datatype": "BYTES", "data": [STANDARD.encode(&file)]});
        let body = json!({"inputs": [input]}).to_string();
        let answer = ok(&send(&server, "POST", &format!("/v2/models/{model}/infer"), &[], body).await);
        for (output, expected) in answer["outputs"].as_array().unwrap().iter().zip([&main, &branch]) {
            assert_eq!(output["shape"], json!([1, CLASSES]));
            let logits = numbers(&output["data"]);
            for (found, expected) in softmax(&logits).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{answer}");
            }
            let is_log_probability = logits.iter().zip(expected).all(|(logit, p)| (logit - p.ln()).abs() < 1e-5);
            assert_eq!(is_log_probability, model != "1", "{answer}");
        }
        let statistics = get(&server, &format!("/v2/models/{model}/stats")).await.json();
        assert_eq!(statistics["model_stats"][0]["inference_count"], json!(3 * crops.len()), "a row for each crop");
    }
}

#[tokio::test]
async fn crops_take_places_and_need_room() {
    let no_queue = "[instances]\ncount = 1\n[batching]\nqueue_size = 0\n";
    let repository = Repository::new()
        .with("ten", &branched(), &format!("max_batch_size = 10\n{no_queue}{RECIPE}crops = 10"), "")
        .with("four", &branched(), &format!("max_batch_size = 4\n{no_queue}{RECIPE}crops = 10"), "")
        .with("tight", &branched(), "[preprocess]\nresize = 8\ncrop = 8\ncrops = 5", "");
    let server = start(config(&repository)).await;
    let file = STANDARD.encode(png(&picture()));
    for (pictures, status) in [(1, 200), (2, 400)] {
        let images = json!({"images": vec![&file; pictures]}).to_string();
        let header = ("content-type", "application/json");
        let answer = send(&server, "POST", "/v1/models/ten/classify", &[header], images).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let small = image::RgbImage::from_pixel(7, 30, image::Rgb([1, 2, 3]));
    let answer = send(&server, "POST", "/v1/models/ten/classify", &[], png(&small)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("too small"), "{answer:?}");
    for (model, key) in [("four", "batching.queue_size"), ("tight", "preprocess.crops")] {
        let reason = get(&server, &format!("/v1/models/{model}")).await.json()["reason"].to_string();
        assert!(reason.contains(key), "{reason}");
    }
}

/// GoogLeNet as the zoo writes it, whose branches are what V2 answers under their names.
#[tokio::test]
async fn side_branches_answer_beside_the_network() {
    let architecture = Architecture::find("googlenet").unwrap();
    let options = OnnxOptions { side_branches: true, ..OnnxOptions::default() };
    let model = architecture.to_onnx(&Weights::random(3), options).unwrap();
    let instances = "[instances]\ncount = 1\n";
    let repository = Repository::new().with("googlenet", &model, instances, "").with(
        "plain",
        &graphs::channel_means(8, None),
        "",
        "",
    );
    let server = start(config(&repository)).await;
    let file = png(&picture());
    let input = json!({"name": "input", "shape": [1], "datatype": "BYTES", "data": [STANDARD.encode(&file)]});
    let outputs = ["logits", "aux1", "aux2"].map(|name| json!({"name": name}));
    let body = json!({"inputs": [input], "outputs": outputs}).to_string();
    let inferred = ok(&send(&server, "POST", "/v2/models/googlenet/infer", &[], body).await);
    let [main, first, second] = [0, 1, 2].map(|index| softmax(&numbers(&inferred["outputs"][index]["data"])));
    assert!(main != first && first != second);

    let path = "/v1/models/googlenet";
    let answer = ok(&send(&server, "POST", &format!("{path}/classify?aux=true&top_k=4"), &[], file.clone()).await);
    let instances = json!({"instances": [{"b64": STANDARD.encode(&file)}], "parameters": {"aux": true, "top_k": 4}});
    let predicted = ok(&send(&server, "POST", &format!("{path}:predict"), &[], instances.to_string()).await);
    for prediction in [&answer["predictions"][0], &predicted["predictions"][0]] {
        assert_eq!(prediction["branches"].as_object().unwrap().len(), 2);
        for (classes, expected) in [
            (&prediction["classes"], &main),
            (&prediction["branches"]["aux1"], &first),
            (&prediction["branches"]["aux2"], &second),
        ] {
            assert_eq!(classes.as_array().unwrap().len(), 4);
            assert_classes(classes, expected);
        }
    }
    for query in ["", "?aux=false"] {
        let answer = ok(&send(&server, "POST", &format!("{path}/classify{query}"), &[], file.clone()).await);
        assert_eq!(answer["predictions"][0].get("branches"), None);
    }
    let answer = send(&server, "POST", "/v1/models/plain/classify?aux=true", &[], file).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("no side branches"), "{answer:?}");
}

#[test]
fn the_command_line_names_side_branches() {
    let repository = Repository::new().with("branched", &branched(), RECIPE, "");
    let file = repository.path().join("picture.png");
    std::fs::write(&file, png(&picture())).unwrap();
    let classify = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
        command.arg("classify").arg(&file).arg("--model-repository").arg(repository.path()).args(options);
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let line: Value = serde_json::from_str(&classify(&["--aux", "--json"])).unwrap();
    assert_classes(&line["classes"], &averaged(&FIVE[4..], 1.0));
    assert_classes(&line["branches"]["doubled"], &averaged(&FIVE[4..], 2.0));
    assert!(classify(&["--aux"]).contains("\n doubled\n"));
    assert!(!classify(&[]).contains("doubled"));
}
