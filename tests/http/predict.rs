//! `:predict`, and what hosting platforms ask for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::onnx::ModelProto;
use convoy::server::Server;
use serde_json::{Value, json};

use crate::client::{get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};

const JSON: (&str, &str) = ("content-type", "application/json");
const HEALTH_ROUTE: &str = "/v1/endpoints/1/deployedModels/2";
const PREDICT_ROUTE: &str = "/v1/endpoints/1/deployedModels/2:predict";

/// The channel means under two names, the second without flattening.
fn two_outputs() -> ModelProto {
    let mut model = graphs::channel_means(2, None);
    let graph = model.graph.as_mut().unwrap();
    let data_type = convoy::onnx::proto::tensor_proto::DataType::Float;
    graph.output.push(graphs::value("pooled", data_type, &[-1, 3, 1, 1]));
    model
}

async fn server() -> (Server, Repository) {
    let repository = Repository::new()
        .with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "red\ngreen\nblue\n")
        .with("two", &two_outputs(), "", "")
        .with_broken("broken");
    let mut config = config(&repository);
    config.default_model = Some("means".to_owned());
    config.http.health_route = Some(HEALTH_ROUTE.to_owned());
    config.http.predict_route = Some(PREDICT_ROUTE.to_owned());
    (start(config).await, repository)
}

async fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let answer = send(server, "POST", path, &[JSON], body.to_string()).await;
    (answer.status.as_u16(), answer.json())
}

/// The index of each prediction's best class.
fn best(predictions: &Value) -> Vec<u64> {
    let best = |prediction: &Value| prediction["classes"][0]["index"].as_u64().unwrap();
    predictions.as_array().unwrap().iter().map(best).collect()
}

#[tokio::test]
async fn pictures_are_answered_as_classify_answers_them() {
    let (server, _repository) = server().await;
    let (red, blue) = (STANDARD.encode(png([255, 10, 0])), STANDARD.encode(png([0, 10, 255])));
    let instances = json!([{"b64": blue}, {"image_bytes": {"b64": red}}]);
    let (_, classified) = post(&server, "/v1/models/means/classify", &json!({"images": [blue, red]})).await;
    for path in ["/v1/models/means:predict", "/v1/models/means%3Apredict", "/v1/models/means/versions/1:predict"] {
        let (status, answer) = post(&server, path, &json!({"instances": instances, "signature_name": "default"})).await;
        assert_eq!(status, 200, "{path}: {answer}");
        assert_eq!(answer, json!({"predictions": classified["predictions"]}), "{path}");
        assert_eq!(best(&answer["predictions"]), [2, 0]);
    }
    // What the body says goes before the query.
    let path = "/v1/models/means:predict?top_k=1";
    for (parameters, count) in [(Value::Null, 1), (json!({"top_k": 2, "timeout_ms": 600_000, "priority": 1}), 2)] {
        let (status, answer) = post(&server, path, &json!({"instances": instances, "parameters": parameters})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["predictions"][0]["classes"].as_array().unwrap().len(), count);
    }
}

#[tokio::test]
async fn tensors_are_answered_with_the_models_rows() {
    let (server, _repository) = server().await;
    let first = json!([[[1, 2], [3, 4]], [[0, 0], [0, 1]], [[-1, -1], [1, 1]]]);
    let second = json!([[[8, 8], [8, 8]], [[0, 0], [0, 0]], [[1, 1], [1, 3]]]);
    let body = json!({"instances": [first, second]});
    let (status, answer) = post(&server, "/v1/models/means:predict", &body).await;
    assert_eq!((status, answer), (200, json!({"predictions": [[2.5, 0.25, 0.0], [8.0, 0.0, 1.5]]})));
    let (status, answer) = post(&server, "/v1/models/two:predict", &body).await;
    let expected = json!({"predictions": [
        {"logits": [2.5, 0.25, 0.0], "pooled": [[[2.5]], [[0.25]], [[0.0]]]},
        {"logits": [8.0, 0.0, 1.5], "pooled": [[[8.0]], [[0.0]], [[1.5]]]},
    ]});
    assert_eq!((status, answer), (200, expected));
}

#[tokio::test]
async fn what_cannot_be_predicted_says_why() {
    let (server, _repository) = server().await;
    let picture = json!({"b64": STANDARD.encode(png([1, 2, 3]))});
    for (status, path, body) in [
        (400, "/v1/models/means:predict", json!({})),
        (400, "/v1/models/means:predict", json!({"instances": []})),
        (400, "/v1/models/means:predict", json!({"instances": [1, 2]})),
        (400, "/v1/models/means:predict", json!({"instances": [[[[1]]]]})),
        (400, "/v1/models/means:predict", json!({"instances": [picture, 1]})),
        (400, "/v1/models/means:predict", json!({"instances": [picture], "parameters": {"k": 1}})),
        (400, "/v1/models/means:predict", json!({"instances": [picture], "parameters": {"top_k": 0}})),
        (400, "/v1/models/means:predict?k=1", json!({"instances": [picture]})),
        (413, "/v1/models/means:predict", json!({"instances": vec![picture.clone(); 65]})),
        (415, "/v1/models/means:predict", json!({"instances": [{"b64": "aGk="}]})),
        (503, "/v1/models/broken:predict", json!({"instances": [picture]})),
        (404, "/v1/models/none:predict", json!({"instances": [picture]})),
        (404, "/v1/models/means/versions/2:predict", json!({"instances": [picture]})),
        (404, "/v1/models/means/versions/one:predict", json!({"instances": [picture]})),
        (404, "/v1/models/means:explore", json!({"instances": [picture]})),
        (404, "/v1/models/means", json!({"instances": [picture]})),
        (400, "/invocations", json!({})),
        (400, "/invocations", json!({"images": ["aGk"], "instances": null})),
        (415, "/invocations", json!({"images": ["aGk"]})),
    ] {
        let (answered, answer) = post(&server, path, &body).await;
        assert_eq!(answered, status, "{path} {body}: {answer}");
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn hosting_platforms_find_their_paths() {
    let (server, _repository) = server().await;
    for path in ["/ping", HEALTH_ROUTE] {
        assert_eq!(get(&server, path).await.status, 200, "{path}");
        assert_eq!(send(&server, "DELETE", path, &[], "").await.status, 405, "{path}");
    }
    let picture = png([0, 255, 10]);
    let base64 = STANDARD.encode(&picture);
    for path in ["/invocations", PREDICT_ROUTE] {
        let answer = send(&server, "POST", path, &[("content-type", "image/png")], picture.clone()).await;
        assert_eq!(answer.json()["model_name"], json!("means"), "{path}: {answer:?}");
        let (_, images) = post(&server, path, &json!({"images": [base64]})).await;
        assert_eq!((&images["model_name"], best(&images["predictions"])), (&json!("means"), vec![1]), "{path}");
        let (_, instances) = post(&server, path, &json!({"instances": [{"b64": base64}]})).await;
        assert_eq!(instances, json!({"predictions": images["predictions"]}), "{path}");
    }
    // Also in the metrics, and the ids, such a path is one as any other.
    let answer = get(&server, HEALTH_ROUTE).await;
    assert!(answer.headers.contains_key("x-request-id"));
    let page = crate::metrics(&server, "/metrics").await;
    let counted = format!(r#"convoy_http_requests_total{{method="GET",route="{HEALTH_ROUTE}",status="200"}} 2"#);
    assert!(page.contains(&counted), "{page}");
}

#[tokio::test]
async fn a_chosen_path_that_is_served_anyway_does_what_it_always_does() {
    let repository = Repository::new().with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "");
    let mut config = config(&repository);
    config.http.health_route = Some("/v2/health/ready".to_owned());
    config.http.predict_route = Some("/v2/models/means/infer".to_owned());
    let server = start(config).await;
    assert_eq!(get(&server, "/v2/health/ready").await.json(), json!({"ready": true}));
    let input = json!({"name": "input", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": vec![1; 12]});
    let (status, answer) = post(&server, "/v2/models/means/infer", &json!({"inputs": [input]})).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([1.0, 1.0, 1.0])));
}
