//! The classify endpoint and the listing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::server::Server;
use serde_json::{Value, json};

use crate::client::{get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};

const PATH: &str = "/v1/models/means/classify";

async fn server() -> (Server, Repository) {
    let repository = Repository::new()
        .with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "red\ngreen\nblue\n")
        .with("nameless", &graphs::channel_means(8, None), PLAIN_RECIPE, "")
        .with_broken("broken");
    let mut config = config(&repository);
    config.default_model = Some("means".to_owned());
    (start(config).await, repository)
}

/// The softmax of a colour's channel means, in double precision.
fn probabilities(colour: [u8; 3]) -> [f64; 3] {
    let exponentials = colour.map(|value| (f64::from(value) / 255.0).exp());
    let sum: f64 = exponentials.iter().sum();
    exponentials.map(|exponential| exponential / sum)
}

/// Asserts that a prediction has exactly these classes, in this order.
fn assert_classes(prediction: &Value, colour: [u8; 3], order: &[usize]) {
    let classes = prediction["classes"].as_array().unwrap();
    assert_eq!(classes.len(), order.len(), "{prediction}");
    for (class, &index) in classes.iter().zip(order) {
        assert_eq!(class["index"], json!(index), "{prediction}");
        assert_eq!(class["label"], json!(["red", "green", "blue"][index]));
        assert!((class["score"].as_f64().unwrap() - probabilities(colour)[index]).abs() < 1e-6, "{prediction}");
    }
}

fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (disposition, content) in parts {
        body.extend_from_slice(format!("--xyz\r\ncontent-disposition: form-data; {disposition}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    body
}

/// A status, and the query, header and body that it answers.
type Case<'a> = (u16, &'a str, (&'a str, &'a str), &'a [u8]);

const MULTIPART: (&str, &str) = ("content-type", "multipart/form-data; boundary=xyz");
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_picture_is_the_body_under_any_name_for_it() {
    let (server, _repository) = server().await;
    let colour = [51, 255, 102];
    for content_type in [
        None,
        Some("image/png"),
        Some("IMAGE/JPEG"),
        Some("application/octet-stream"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let answer = send(&server, "POST", &format!("{PATH}?top_k=2"), &headers, png(colour)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["model_name"], &body["model_version"]), (&json!("means"), &json!("1")));
        assert_eq!(body["predictions"].as_array().unwrap().len(), 1);
        assert_classes(&body["predictions"][0], colour, &[1, 2]);
        let timing = &body["timing"];
        assert_eq!(timing["batch_size"], json!(1));
        for name in ["decode_ms", "queue_ms", "compute_ms", "total_ms"] {
            assert!(timing[name].as_f64().unwrap() >= 0.0, "{timing}");
        }
        assert!(timing["total_ms"].as_f64() >= timing["decode_ms"].as_f64());
    }
}

#[tokio::test]
async fn several_pictures_are_answered_in_order() {
    let (server, _repository) = server().await;
    let (red, blue) = ([255, 10, 0], [0, 0, 200]);
    let images = json!({"images": [STANDARD.encode(png(red)), STANDARD.encode(png(blue)), STANDARD.encode(png(red))]});
    let files = multipart(&[
        (r#"name="a"; filename="a.png""#, &png(red)),
        (r#"name="b"; filename="b.png""#, &png(blue)),
        (r#"name="a"; filename="""#, &png(red)),
    ]);
    for (header, body) in [(JSON, images.to_string().into_bytes()), (MULTIPART, files)] {
        let answer = send(&server, "POST", &format!("{PATH}?top_k=3"), &[header], body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let predictions = answer.json()["predictions"].clone();
        assert_eq!(predictions.as_array().unwrap().len(), 3);
        assert_classes(&predictions[0], red, &[0, 1, 2]);
        // Red and green are equal here: the lower index goes first.
        assert_classes(&predictions[1], blue, &[2, 0, 1]);
        assert_classes(&predictions[2], red, &[0, 1, 2]);
    }
}

#[tokio::test]
async fn k_is_five_by_default_and_at_most_the_class_count() {
    let (server, _repository) = server().await;
    for (query, count) in [("", 3), ("?top_k=1", 1), ("?top_k=3", 3), ("?top_k=18446744073709551615", 3)] {
        let answer = send(&server, "POST", &format!("{PATH}{query}"), &[], png([1, 2, 3])).await;
        assert_eq!(answer.json()["predictions"][0]["classes"].as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test]
async fn the_default_model_and_versions_can_be_named() {
    let (server, _repository) = server().await;
    for path in ["/v1/classify", "/v1/models/means/versions/1/classify"] {
        let answer = send(&server, "POST", path, &[], png([9, 1, 0])).await;
        assert_eq!(answer.json()["model_name"], json!("means"), "{path}");
    }
    let answer = send(&server, "POST", "/v1/models/nameless/classify", &[], png([9, 1, 0])).await;
    assert_eq!(answer.json()["predictions"][0]["classes"][0]["label"], Value::Null);
    // Priority and timeout are taken, and 0 stands for the model's own.
    let answer = send(&server, "POST", &format!("{PATH}?priority=1&timeout_ms=600000"), &[], png([9, 1, 0])).await;
    assert_eq!(answer.status, 200);
    let answer = send(&server, "POST", &format!("{PATH}?priority=0&timeout_ms=0"), &[], png([9, 1, 0])).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let (server, _repository) = server().await;
    let png = png([1, 2, 3]);
    let images = |value: Value| json!({ "images": value }).to_string().into_bytes();
    let truncated = &multipart(&[(r#"name="a"; filename="a.png""#, &png)])[..40];
    let field = multipart(&[(r#"name="top_k""#, b"3")]);
    let bomb = vec![b'['; 100_000];
    let cases: &[Case] = &[
        (400, "", ("content-type", "image/png"), b""),
        (415, "", ("content-type", "image/png"), b"plain text"),
        (415, "", ("content-type", "text/html"), &png),
        (415, "", ("content-encoding", "br"), &png),
        (400, "", ("content-encoding", "gzip"), &png),
        (400, "?top_k=0", ("content-type", "image/png"), &png),
        (400, "?top_k=-1", ("content-type", "image/png"), &png),
        (400, "?top_k=many", ("content-type", "image/png"), &png),
        (400, "?k=3", ("content-type", "image/png"), &png),
        (400, "?top_k=3&top_k=4", ("content-type", "image/png"), &png),
        (400, "?timeout_ms=1.5", ("content-type", "image/png"), &png),
        (400, "", JSON, b""),
        (400, "", JSON, b"{\"images\": \"\xff\"}"),
        (400, "", JSON, b"{}"),
        (400, "", JSON, br#"{"images": [], "top_k": 3}"#),
        (400, "", JSON, &images(json!([]))),
        (400, "", JSON, &images(json!("aGk="))),
        (400, "", JSON, &images(json!([1]))),
        (400, "", JSON, &images(json!(["*"]))),
        (415, "", JSON, &images(json!(["aGk="]))),
        (413, "", JSON, &images(json!(vec![""; 65]))),
        (400, "", JSON, &bomb),
        (400, "", MULTIPART, &multipart(&[])),
        (400, "", MULTIPART, b"nothing of the kind"),
        (400, "", MULTIPART, truncated),
        (400, "", MULTIPART, &field),
        (400, "", ("content-type", "multipart/form-data"), &png),
    ];
    for (status, query, header, body) in cases {
        let answer = send(&server, "POST", &format!("{PATH}{query}"), &[*header], body.to_vec()).await;
        let case = format!("{query} {header:?} {}", String::from_utf8_lossy(&body[..body.len().min(60)]));
        assert_eq!(answer.status, *status, "{case}: {answer:?}");
        assert!(!answer.error().is_empty(), "{case}");
    }
    let answer = send(&server, "POST", PATH, &[JSON], images(json!([STANDARD.encode(&png), "aGk="]))).await;
    assert!(answer.error().starts_with("picture 1: "), "{answer:?}");
}

#[tokio::test]
async fn the_listing_tells_what_is_ready_and_what_is_not() {
    let (server, _repository) = server().await;
    let mut body = get(&server, "/v1/models").await.json();
    assert_eq!(body["models"], json!(["broken", "means", "nameless"]));
    let loaded = body["details"][1].as_object_mut().unwrap().remove("loaded_ms").unwrap();
    assert!(loaded["1"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{loaded}");
    let expected = json!({"name": "means", "versions": ["1"], "state": "READY", "classes": 3,
        "input_size": {"height": 8, "width": 8}, "provider": "cpu"});
    assert_eq!(body["details"][1], expected);

    let mut answer = get(&server, "/v1/models/means").await.json();
    assert_eq!(answer.as_object_mut().unwrap().remove("ready"), Some(json!(true)));
    assert_eq!(answer.as_object_mut().unwrap().remove("loaded_ms"), Some(loaded));
    assert_eq!(answer, expected);
    let answer = get(&server, "/v1/models/broken").await.json();
    assert_eq!((&answer["ready"], &answer["state"]), (&json!(false), &json!("UNAVAILABLE")));
    assert!(answer["reason"].as_str().unwrap().contains("model.onnx"), "{answer}");
    assert_eq!(get(&server, "/v1/models/none").await.status, 404);
}
