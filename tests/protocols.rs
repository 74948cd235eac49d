//! One scenario over both protocols: the same requests give the same answers, to the bit, and the same errors, to the word.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/graphs.rs"]
#[expect(dead_code, reason = "one graph is enough")]
mod graphs;
#[path = "support/grpc.rs"]
#[expect(dead_code, reason = "requests are made of cases")]
mod grpc;
#[path = "support/http.rs"]
#[expect(dead_code, reason = "each request has a connection of its own")]
mod http;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "nothing here has to be waited for")]
mod server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::grpc::proto::convoy::v1::{ClassifyRequest, ExplainRequest};
use convoy::grpc::proto::inference as pb;
use convoy::server::Server;
use serde_json::{Value, json};
use server::{PLAIN_RECIPE, Repository, config, png, start};
use tonic::{Code, Status};

/// A model that holds a single request back for an hour.
const HELD: &str = "max_batch_size = 2\n[instances]\ncount = 1\n[batching]\nmax_queue_delay_us = 3600000000\n";

const TENSOR: [f32; 12] = [1.0, 2.0, 3.0, 4.0, 0.1, 0.2, 0.3, 1.0, -1.0, -1.0, 1.0, 1e-7];

async fn server() -> (Server, Repository) {
    let repository = Repository::new()
        .with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "red\ngreen\nblue\n")
        .with("fixed", &graphs::channel_means(2, Some(1)), "", "")
        .with("held", &graphs::channel_means(2, None), HELD, "")
        .with_broken("broken");
    (start(config(&repository)).await, repository)
}

/// A request, in neither protocol's form.
#[derive(Debug, Clone)]
struct Case {
    model: &'static str,
    version: &'static str,
    inputs: Vec<(&'static str, &'static str, Vec<i64>, Vec<u8>)>,
    /// Names, and the size of the classification or 0.
    outputs: Vec<(&'static str, i64)>,
    parameters: Vec<(&'static str, i64)>,
}

impl Case {
    fn new(datatype: &'static str, shape: &[i64], bytes: Vec<u8>) -> Self {
        let inputs = vec![("input", datatype, shape.to_vec(), bytes)];
        Self { model: "means", version: "", inputs, outputs: Vec::new(), parameters: Vec::new() }
    }

    /// One picture of 2×2 pixels as a tensor.
    fn tensor() -> Self {
        Self::new("FP32", &[1, 3, 2, 2], grpc::bytes(&TENSOR))
    }

    /// Encoded pictures.
    fn pictures(pictures: &[Vec<u8>]) -> Self {
        Self::new("BYTES", &[pictures.len() as i64], grpc::byte_strings(pictures))
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// What either protocol answered: model, version, and each output's name, type, shape and bytes; or an error.
type Answer = Result<(String, String, Vec<(String, String, Vec<i64>, Vec<u8>)>), (Code, String)>;

async fn over_grpc(server: &Server, case: &Case) -> Answer {
    let request = pb::ModelInferRequest {
        model_name: case.model.into(),
        model_version: case.version.into(),
        inputs: case.inputs.iter().map(|(name, datatype, shape, _)| grpc::input(name, datatype, shape)).collect(),
        outputs: case.outputs.iter().map(|&(name, classes)| grpc::output(name, Some(classes))).collect(),
        parameters: case.parameters.iter().map(|&(name, value)| (name.into(), grpc::int(value))).collect(),
        raw_input_contents: case.inputs.iter().map(|input| input.3.clone().into()).collect(),
        ..Default::default()
    };
    let answer = grpc::client(server).await.model_infer(request).await.map_err(|status| error(&status))?.into_inner();
    let outputs = answer.outputs.into_iter().zip(answer.raw_output_contents);
    let outputs = outputs.map(|(output, bytes)| (output.name, output.datatype, output.shape, bytes.to_vec()));
    Ok((answer.model_name, answer.model_version, outputs.collect()))
}

fn error(status: &Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

async fn over_http(server: &Server, case: &Case) -> Answer {
    let inputs = case.inputs.iter().map(|(name, datatype, shape, bytes)| {
        json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": bytes.len()}})
    });
    let outputs =
        case.outputs.iter().map(|(name, classes)| json!({"name": name, "parameters": {"classification": classes}}));
    let mut parameters = json!({"binary_data_output": true});
    for (name, value) in &case.parameters {
        parameters[name] = json!(value);
    }
    let json = json!({
        "inputs": inputs.collect::<Vec<_>>(), "outputs": outputs.collect::<Vec<_>>(), "parameters": parameters,
    });
    let mut body = json.to_string().into_bytes();
    let length = body.len().to_string();
    body.extend(case.inputs.iter().flat_map(|input| &input.3));
    let version = if case.version.is_empty() { String::new() } else { format!("/versions/{}", case.version) };
    let path = format!("/v2/models/{}{version}/infer", case.model);
    let answer = http::send(server, "POST", &path, &[("inference-header-content-length", &length)], body).await;
    if answer.status != 200 {
        return Err((code_of(answer.status.as_u16()), answer.error()));
    }
    let length = answer.headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let (head, mut binary) = answer.body.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let outputs = head["outputs"].as_array().unwrap().iter().map(|output| {
        let size = output["parameters"]["binary_data_size"].as_u64().unwrap() as usize;
        let bytes = binary.split_off(..size).unwrap().to_vec();
        let shape = output["shape"].as_array().unwrap().iter().map(|dimension| dimension.as_i64().unwrap()).collect();
        (text(&output["name"]), text(&output["datatype"]), shape, bytes)
    });
    let outputs = outputs.collect();
    assert!(binary.is_empty());
    Ok((text(&head["model_name"]), text(&head["model_version"]), outputs))
}

/// gRPC's code for an HTTP status, by the error table.
fn code_of(status: u16) -> Code {
    match status {
        400 | 415 => Code::InvalidArgument,
        404 => Code::NotFound,
        413 | 429 => Code::ResourceExhausted,
        500 => Code::Internal,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        other => panic!("{other} is not in the error table"),
    }
}

#[tokio::test]
async fn tensors_give_the_same_answers() {
    let (server, _repository) = server().await;
    let three = Case::new("FP32", &[3, 3, 2, 2], grpc::bytes(&[TENSOR, TENSOR, TENSOR].concat()));
    let pictures = Case::pictures(&[png([255, 51, 0]), png([0, 102, 255]), png([7, 8, 9])]);
    for case in [
        Case::tensor(),
        three,
        Case::tensor().with(|case| case.version = "1"),
        Case::tensor().with(|case| case.model = "fixed"),
        Case::tensor().with(|case| case.outputs = vec![("logits", 0)]),
        Case::tensor().with(|case| case.outputs = vec![("logits", 2)]),
        Case::tensor().with(|case| case.outputs = vec![("logits", 1000)]),
        Case::tensor().with(|case| case.parameters = vec![("top_k", 1)]),
        Case::tensor().with(|case| case.parameters = vec![("priority", 7), ("timeout", 60_000_000)]),
        Case::tensor().with(|case| case.parameters = vec![("priority", 0), ("timeout", 0), ("top_k", 0)]),
        Case::tensor().with(|case| case.parameters = vec![("unheard_of", 1)]),
        pictures.clone(),
        pictures.with(|case| case.outputs = vec![("logits", 3)]),
    ] {
        let answer = over_http(&server, &case).await;
        assert!(answer.is_ok(), "{case:?}: {answer:?}");
        assert_eq!(answer, over_grpc(&server, &case).await, "{case:?}");
    }
}

#[tokio::test]
async fn errors_are_of_the_same_kind_and_say_the_same() {
    let (server, _repository) = server().await;
    let shaped = |shape: &[i64]| Case::new("FP32", shape, grpc::bytes(&TENSOR));
    let twice = Case::tensor().with(|case| case.inputs.push(case.inputs[0].clone()));
    let second = Case::tensor().with(|case| case.inputs.push(("second", "FP32", vec![1], vec![0; 4])));
    for (case, code) in [
        (Case::tensor().with(|case| case.model = "nothing"), Code::NotFound),
        (Case::tensor().with(|case| case.version = "7"), Code::NotFound),
        (Case::tensor().with(|case| case.version = "latest"), Code::NotFound),
        (Case::tensor().with(|case| case.version = "99999999999999999999"), Code::NotFound),
        (Case::tensor().with(|case| case.model = "broken"), Code::Unavailable),
        (Case::tensor().with(|case| case.inputs.clear()), Code::InvalidArgument),
        (twice, Code::InvalidArgument),
        (second, Code::InvalidArgument),
        (Case::tensor().with(|case| case.inputs[0].0 = "image"), Code::InvalidArgument),
        (Case::tensor().with(|case| case.outputs = vec![("probabilities", 0)]), Code::InvalidArgument),
        (Case::tensor().with(|case| case.outputs = vec![("logits", 0), ("logits", 0)]), Code::InvalidArgument),
        (Case::new("INT32", &[1, 3, 2, 2], grpc::bytes(&TENSOR)), Code::InvalidArgument),
        (shaped(&[1, 3, 2, 3]), Code::InvalidArgument),
        (shaped(&[1, 3, 4, 1]), Code::InvalidArgument),
        (shaped(&[-1, 3, 2, 2]), Code::InvalidArgument),
        (shaped(&[1 << 40, 1 << 40, 2, 2]), Code::InvalidArgument),
        (Case::new("FP32", &[0, 3, 2, 2], vec![]), Code::InvalidArgument),
        (Case::new("BYTES", &[1], vec![0, 0, 0, 64, 1]), Code::InvalidArgument),
        (Case::new("BYTES", &[1], vec![1, 0]), Code::InvalidArgument),
        (Case::pictures(&[]), Code::InvalidArgument),
        (Case::pictures(&[b"not a picture".to_vec()]), Code::InvalidArgument),
        (Case::pictures(&[png([1, 2, 3]), png([1, 2, 3])[..40].to_vec()]), Code::InvalidArgument),
        (Case::pictures(&vec![png([1, 2, 3]); 65]), Code::ResourceExhausted),
        (
            Case::tensor().with(|case| {
                case.model = "held";
                case.parameters = vec![("timeout", 20_000)];
            }),
            Code::DeadlineExceeded,
        ),
    ] {
        let error = over_http(&server, &case).await.unwrap_err();
        assert_eq!(error.0, code, "{case:?}: {}", error.1);
        assert_eq!(Err(error), over_grpc(&server, &case).await, "{case:?}");
    }
}

#[tokio::test]
async fn pictures_are_classified_to_the_same_bits() {
    let (server, _repository) = server().await;
    let pictures = [png([255, 51, 0]), png([0, 102, 255])];
    let request = ClassifyRequest {
        model_name: "means".into(),
        images: pictures.iter().map(|picture| picture.clone().into()).collect(),
        top_k: Some(2),
        ..Default::default()
    };
    let mut client = ImageClassifierClient::new(grpc::channel(&server).await);
    let over_grpc = client.classify(request).await.unwrap().into_inner();
    let images: Vec<_> = pictures.iter().map(|picture| STANDARD.encode(picture)).collect();
    let body = json!({"images": images}).to_string();
    let path = "/v1/models/means/classify?top_k=2";
    let answer = http::send(&server, "POST", path, &[("content-type", "application/json")], body).await.json();

    assert_eq!((json!(over_grpc.model_name), json!(over_grpc.model_version)), (json!("means"), json!("1")));
    assert_eq!(answer["predictions"].as_array().unwrap().len(), over_grpc.predictions.len());
    for (one, other) in answer["predictions"].as_array().unwrap().iter().zip(&over_grpc.predictions) {
        assert_eq!(one["classes"].as_array().unwrap().len(), 2);
        for (one, other) in one["classes"].as_array().unwrap().iter().zip(&other.classes) {
            assert_eq!((&one["index"], &one["label"]), (&json!(other.index), &json!(other.label)));
            assert_eq!((one["score"].as_f64().unwrap() as f32).to_bits(), other.score.to_bits());
        }
    }
}

#[tokio::test]
async fn models_are_described_alike() {
    let (server, _repository) = server().await;
    let mut client = grpc::client(&server).await;
    let get = async |path: &str| http::get(&server, path).await.json();

    let ours = client.server_metadata(pb::ServerMetadataRequest {}).await.unwrap().into_inner();
    let metadata = json!({"name": ours.name, "version": ours.version, "extensions": ours.extensions});
    assert_eq!(get("/v2").await, metadata);

    for name in ["means", "fixed", "held"] {
        let request = pb::ModelMetadataRequest { name: name.into(), version: String::new() };
        let ours = client.model_metadata(request).await.unwrap().into_inner();
        let tensor = |tensor: &pb::model_metadata_response::TensorMetadata| json!({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape});
        let tensors = |tensors: &[_]| tensors.iter().map(tensor).collect::<Vec<_>>();
        let metadata = json!({
            "name": ours.name, "versions": ours.versions, "platform": ours.platform,
            "inputs": tensors(&ours.inputs), "outputs": tensors(&ours.outputs),
        });
        assert_eq!(get(&format!("/v2/models/{name}")).await, metadata);

        let request = pb::ModelConfigRequest { name: name.into(), version: String::new() };
        let ours = client.model_config(request).await.unwrap().into_inner().config.unwrap();
        let theirs = get(&format!("/v2/models/{name}/config")).await;
        assert_eq!(convoy::triton::parse_json(&theirs.to_string()).unwrap(), ours);
    }

    let request = pb::RepositoryIndexRequest::default();
    let ours = client.repository_index(request).await.unwrap().into_inner().models;
    let index = http::send(&server, "POST", "/v2/repository/index", &[], "").await.json();
    let ours: Vec<_> = ours
        .iter()
        .map(
            |model| json!({"name": model.name, "version": model.version, "state": model.state, "reason": model.reason}),
        )
        .collect();
    assert_eq!(index, json!(ours));
}

#[tokio::test]
async fn answers_tell_the_model_that_gave_them_alike() {
    let (server, _repository) = server().await;
    let (picture, mut client) = (png([9, 90, 200]), ImageClassifierClient::new(grpc::channel(&server).await));
    let models = http::get(&server, "/v1/models/means").await.json();
    let loaded = &models["loaded_ms"]["1"];
    assert!(loaded.as_u64().unwrap() > 1_700_000_000_000, "{models}");
    let told = |name: &str, version: &str, loaded: u64| json!([name, version, loaded]);
    let over_http = async |verb: &str| {
        let answer =
            http::send(&server, "POST", &format!("/v1/models/means/{verb}"), &[], picture.clone()).await.json();
        ["model_name", "model_version", "model_loaded_ms"].map(|key| answer[key].clone())
    };
    let expected = json!(["means", "1", loaded]);
    let request =
        ClassifyRequest { model_name: "means".into(), images: vec![picture.clone().into()], ..Default::default() };
    let answer = client.classify(request).await.unwrap().into_inner();
    assert_eq!(told(&answer.model_name, &answer.model_version, answer.model_loaded_ms), expected);
    assert_eq!(json!(over_http("classify").await), expected);
    let request = ExplainRequest { model_name: "means".into(), image: picture.clone().into(), ..Default::default() };
    let answer = client.explain(request).await.unwrap().into_inner();
    assert_eq!(told(&answer.model_name, &answer.model_version, answer.model_loaded_ms), expected);
    assert_eq!(json!(over_http("explain").await), expected);
}

#[tokio::test]
async fn statistics_count_both() {
    let (server, _repository) = server().await;
    over_http(&server, &Case::tensor()).await.unwrap();
    over_grpc(&server, &Case::tensor()).await.unwrap();
    over_grpc(&server, &Case::new("FP32", &[1], vec![])).await.unwrap_err();
    let request = pb::ModelStatisticsRequest { name: "means".into(), version: String::new() };
    let ours = grpc::client(&server).await.model_statistics(request).await.unwrap().into_inner();
    let theirs = http::get(&server, "/v2/models/means/stats").await.json();
    let (ours, theirs) = (&ours.model_stats[0], &theirs["model_stats"][0]);
    assert_eq!((ours.inference_count, ours.execution_count), (2, 2));
    let inference = ours.inference_stats.unwrap();
    for (name, ours) in [
        ("success", inference.success),
        ("fail", inference.fail),
        ("queue", inference.queue),
        ("compute_input", inference.compute_input),
        ("compute_infer", inference.compute_infer),
        ("compute_output", inference.compute_output),
        ("cache_hit", inference.cache_hit),
        ("cache_miss", inference.cache_miss),
    ] {
        let ours = ours.unwrap();
        assert_eq!(theirs["inference_stats"][name], json!({"count": ours.count, "ns": ours.ns}), "{name}");
    }
    assert_eq!(inference.success.unwrap().count, 2);
    assert_eq!(inference.fail.unwrap().count, 1);
    assert_eq!(theirs["batch_stats"][0]["batch_size"], json!(ours.batch_stats[0].batch_size));
    assert_eq!(theirs["last_inference"], json!(ours.last_inference));
}
