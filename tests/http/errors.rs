//! Every row of the error table, and that each error is JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::server::Server;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;

use crate::client::{Connection, get, send};
use crate::graphs;
use crate::metrics;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start, within_a_minute};
use crate::table::table;

async fn server() -> (Server, Repository) {
    // Three places, and a row alone is held back for longer than any test takes.
    let narrow =
        "max_batch_size = 2\n[instances]\ncount = 1\n[batching]\nqueue_size = 1\nmax_queue_delay_us = 600000000\n";
    let repository = Repository::new()
        .with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "")
        .with("narrow", &graphs::channel_means(2, None), narrow, "")
        .with("table", &table(), "", "")
        .with_broken("broken");
    let mut config = config(&repository);
    config.http.max_body_bytes = 100_000;
    (start(config).await, repository)
}

fn request(value: f32, parameters: &str) -> String {
    let data = [value; 12];
    format!(
        r#"{{"parameters":{parameters},"inputs":[{{"name":"input","shape":[1,3,2,2],"datatype":"FP32","data":{data:?}}}]}}"#
    )
}

#[tokio::test]
async fn every_kind_of_error_has_its_status_and_a_sentence() {
    let (server, _repository) = server().await;
    let infer = |model: &'static str, body: String| {
        let server = &server;
        async move { send(server, "POST", &format!("/v2/models/{model}/infer"), &[], body).await }
    };

    let answer = infer("means", "{}".to_owned()).await;
    assert_eq!((answer.status.as_u16(), answer.error().contains("`inputs`")), (400, true), "{answer:?}");
    let answer = infer("none", request(1.0, "{}")).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (404, "there is no model called none".to_owned()));
    let answer = infer("means", " ".repeat(100_001)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error()),
        (413, "the body is over the limit of 100000 bytes".to_owned())
    );
    let answer = send(&server, "POST", "/v1/models/means/classify", &[], "no picture").await;
    assert_eq!((answer.status.as_u16(), answer.error().is_empty()), (415, false));
    let answer = infer("means", request(1.0, r#"{"timeout":1}"#)).await;
    assert_eq!((answer.status.as_u16(), answer.error().is_empty()), (504, false));

    let answer = infer("broken", request(1.0, "{}")).await;
    assert_eq!((answer.status.as_u16(), answer.error().contains("model.onnx")), (503, true), "{answer:?}");
    assert!(!answer.headers.contains_key("retry-after"), "to ask again helps nobody before the model is mended");

    for verb in ["load", "unload"] {
        let answer = send(&server, "POST", &format!("/v2/repository/models/means/{verb}"), &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.error().contains("over the API")), (501, true));
    }
}

#[tokio::test]
async fn what_should_be_an_object_is_not_read_from_a_list_of_its_values() {
    let (server, _repository) = server().await;
    let json = [("content-type", "application/json")];
    let ask = async |path: &str, body: &str| {
        let answer = send(&server, "POST", path, &json, body.to_owned()).await;
        (answer.status.as_u16(), if answer.status == 200 { String::new() } else { answer.error() })
    };
    let picture = STANDARD.encode(png([1, 2, 3]));
    let data = "[1,1,1,1,1,1,1,1,1,1,1,1]";
    let input = format!(r#"["input",[1,3,2,2],"FP32",null,{data}]"#);
    for (path, body) in [
        ("/v1/models/means/classify", format!(r#"[["{picture}"]]"#)),
        ("/v1/models/means:predict", format!(r#"[[{{"b64":"{picture}"}}],null]"#)),
        ("/v2/models/means/infer", format!("[null,null,[{input}],null]")),
        ("/v2/models/means/infer", format!(r#"{{"inputs":[{input}]}}"#)),
        ("/v2/repository/index", "[true]".to_owned()),
    ] {
        let (status, said) = ask(path, &body).await;
        assert!(status == 400 && said.contains("invalid type: list, expected an object"), "{path}: {status} {said}");
    }
    let (status, said) = ask("/v2/models/means/infer", &request(1.0, "[1]")).await;
    assert!(status == 400 && said.contains("list, expected an object"), "{status} {said}");
    let (status, said) = ask("/v2/models/means/infer", &request(1.0, r#"{"top_k":"many"}"#)).await;
    assert!(status == 400 && said.contains("expected a whole number that is not negative"), "{status} {said}");
}

#[tokio::test]
async fn a_full_queue_is_an_answer_at_once() {
    let (server, _repository) = server().await;
    let path = "/v1/models/narrow/classify";
    let mut waiting = Connection::open(&server).await;
    let request = Request::post(path).header("host", "test").body(Full::new(png([1, 2, 3]).into())).unwrap();
    let waiting = waiting.send(request);
    let overloaded = async {
        while !metrics(&server, "/metrics").await.contains("convoy_in_flight{model=\"narrow\",version=\"1\"} 1") {}
        let images = json!({"images": vec![STANDARD.encode(png([1, 2, 3])); 3]}).to_string();
        let answer = send(&server, "POST", path, &[("content-type", "application/json")], images).await;
        assert_eq!((answer.status.as_u16(), answer.error().is_empty()), (429, false), "{answer:?}");
        assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    };
    tokio::select! {
        answer = waiting => panic!("{answer:?}"),
        () = within_a_minute(overloaded) => {}
    }
}

#[tokio::test]
async fn a_failed_run_is_answered_without_its_cause_and_the_model_lives_on() {
    let (server, _repository) = server().await;
    let path = "/v2/models/table/infer";
    let headers = [("x-request-id", "order-66")];
    let answer = send(&server, "POST", path, &headers, request(99.0, "{}")).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let message = answer.error();
    assert!(message.ends_with(" (request id order-66)") && !message.contains("Gather"), "{message}");
    let answer = send(&server, "POST", path, &headers, request(7.0, "{}")).await;
    assert_eq!(answer.json()["outputs"][0]["data"], json!([7.0, 7.0, 7.0]));
}

#[tokio::test]
async fn where_there_are_several_models_each_path_says_how_one_is_named() {
    let (server, _repository) = server().await;
    for (path, said) in [
        ("/v1/classify", "): name one in the path, /v1/models/{model}/classify, or configure a default"),
        ("/invocations", "): configure a default, since this path names none"),
    ] {
        let answer = send(&server, "POST", path, &[], png([1, 2, 3])).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(
            answer.error().starts_with("there are several models (") && answer.error().ends_with(said),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_answered_in_json() {
    let (server, _repository) = server().await;
    for (method, path, status) in [
        ("GET", "/none", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/means/versions/2", 404),
        ("GET", "/v2/models/means/versions/one", 404),
        ("GET", "/v2/models/means/versions/-1", 404),
        ("GET", "/v2/models/means/versions/99999999999999999999", 404),
        ("GET", "/v2/models/..%2Fmeans", 404),
        ("GET", "/v2/models/%ff", 400),
        ("POST", "/v2", 405),
        ("GET", "/v2/models/means/infer", 405),
        ("GET", "/v2/repository/index", 405),
        ("DELETE", "/v1/models/means", 405),
        ("GET", "/v1/classify", 405),
        ("OPTIONS", "/v1/classify", 405),
    ] {
        let answer = send(&server, method, path, &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(!answer.error().is_empty());
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
        assert!(answer.headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn the_binary_header_must_make_sense() {
    let (server, _repository) = server().await;
    let body = request(1.0, "{}");
    let path = "/v2/models/means/infer";
    let header = "inference-header-content-length";
    for value in ["", "x", "-1", "+1", "1.5", "99999999999999999999", "100000", "3", " "] {
        let answer = send(&server, "POST", path, &[(header, value)], body.clone()).await;
        assert_eq!(answer.status, 400, "{value:?}: {answer:?}");
        assert!(!answer.error().is_empty());
    }
    let answer = send(&server, "POST", path, &[(header, &body.len().to_string())], body.clone()).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn what_the_model_does_not_take_is_refused() {
    let (server, _repository) = server().await;
    let input = |name: &str, shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
    };
    let twelve = format!("{:?}", [1; 12]);
    let good = input("input", "[1,3,2,2]", "FP32", &twelve);
    let unknown_output = good.replace("]}]}", "]}],\"outputs\":[{\"name\":\"none\"}]}");
    for body in [
        input("other", "[1,3,2,2]", "FP32", &twelve),
        input("input", "[1,3,2,2]", "FP64", &twelve),
        input("input", "[3,2,2]", "FP32", &twelve),
        input("input", "[1,2,2,3]", "FP32", &twelve),
        input("input", "[0,3,2,2]", "FP32", "[]"),
        input("input", "[1]", "BYTES", r#"["aGk=","aGk="]"#),
        unknown_output,
        r#"{"inputs":[]}"#.to_owned(),
    ] {
        let answer = send(&server, "POST", "/v2/models/means/infer", &[], body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(!answer.error().is_empty());
    }
    assert_eq!(send(&server, "POST", "/v2/models/means/infer", &[], good).await.status, 200);
}

#[tokio::test]
async fn a_zip_bomb_is_stopped_at_the_limit_of_the_body() {
    let (server, _repository) = server().await;
    let mut bomb = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzEncoder::new(
            std::io::Read::take(std::io::repeat(b' '), 1 << 26),
            flate2::Compression::best(),
        ),
        &mut bomb,
    )
    .unwrap();
    assert!(bomb.len() < 100_000);
    let answer = send(&server, "POST", "/v2/models/means/infer", &[("content-encoding", "gzip")], bomb).await;
    assert_eq!((answer.status.as_u16(), answer.error().is_empty()), (413, false));
}

#[tokio::test]
async fn the_metrics_listener_knows_metrics_alone() {
    let (server, _repository) = server().await;
    get(&server, "/v2").await;
    let answer = metrics(&server, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(r#"convoy_http_requests_total{method="GET",route="/v2",status="200"} 1"#), "{answer}");
    assert!(answer.contains("nv_inference_count"), "{answer}");
    let answer = metrics(&server, "/v2").await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.ends_with(r#"{"error":"there is nothing at /v2"}"#),
        "{answer}"
    );
}
