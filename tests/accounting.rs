//! Ten thousand requests of every kind, counted by the client: the metrics, the statistics and the client agree to the unit, and
//! every gauge is back at 0.
//!
//! The client counts what it saw, so nothing depends on how fast the server is: a request that could be late is counted by the
//! answer it got. What a client does not see, since it left, is arranged so that it must be so: it leaves while its request is held
//! back for an hour. Only of those that leave at any moment is nothing known but that the server's own counts agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/graphs.rs"]
#[expect(dead_code, reason = "one graph is enough")]
mod graphs;
#[path = "support/grpc.rs"]
#[expect(dead_code, reason = "not every form of a request is needed here")]
mod grpc;
#[path = "support/http.rs"]
#[expect(dead_code, reason = "connections are kept")]
mod http;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "no model is broken here")]
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convoy::grpc::proto::convoy::v1 as classifier;
use convoy::grpc::proto::convoy::v1::classify_stream_response::Result as StreamResult;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::grpc::proto::inference as pb;
use convoy::server::Server;
use fastrand::Rng;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use server::{PLAIN_RECIPE, Repository, config, png, start, within_a_minute};
use tonic::Code;
use tonic::transport::Channel;

/// How many clients there are at a time, and how many requests each sends.
const CLIENTS: u64 = 16;
const REQUESTS: usize = 640;

/// Counts by the names and labels that the metrics page has for them.
#[derive(Debug, Default, PartialEq)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, line: impl Into<String>, count: u64) {
        *self.0.entry(line.into()).or_default() += count;
    }

    /// Counts a request that a model took, which had `rows` rows, of which `pictures` were pictures.
    fn request(&mut self, model: &str, protocol: &str, outcome: &str, rows: usize, pictures: usize) {
        let labels = format!("model=\"{model}\",outcome=\"{outcome}\",protocol=\"{protocol}\",version=\"1\"");
        self.add(format!("convoy_requests_total{{{labels}}}"), 1);
        let labels = format!("model=\"{model}\",version=\"1\"");
        let reason = match outcome {
            "success" => {
                self.add(format!("nv_inference_request_success{{{labels}}}"), 1);
                let of_protocol = format!("model=\"{model}\",protocol=\"{protocol}\",version=\"1\"");
                self.add(format!("convoy_request_seconds_count{{{of_protocol}}}"), 1);
                self.add(format!("nv_inference_count{{{labels}}}"), rows as u64);
                self.add(format!("convoy_decode_seconds_count{{{labels}}}"), pictures as u64);
                return;
            }
            "rejected" => "REJECTED",
            "canceled" => "CANCELED",
            "invalid" => "OTHER",
            other => panic!("{other}"),
        };
        let labels = format!("model=\"{model}\",reason=\"{reason}\",version=\"1\"");
        self.add(format!("nv_inference_request_failure{{{labels}}}"), 1);
    }

    fn http(&mut self, route: &str, status: u16) {
        let labels = format!("method=\"POST\",route=\"{route}\"");
        self.add(format!("convoy_http_requests_total{{{labels},status=\"{status}\"}}"), 1);
        self.add(format!("convoy_http_request_duration_seconds_count{{{labels}}}"), 1);
    }

    fn grpc(&mut self, service: &str, method: &str, code: Code) {
        let status = match code {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::NotFound => "NOT_FOUND",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            other => panic!("{other:?}"),
        };
        let labels = format!("method=\"{method}\",service=\"{service}\"");
        self.add(format!("convoy_grpc_requests_total{{{labels},status=\"{status}\"}}"), 1);
        self.add(format!("convoy_grpc_request_duration_seconds_count{{{labels}}}"), 1);
    }

    fn refused(&mut self, model: &str, reason: &str) {
        self.add(format!("convoy_refusals_total{{model=\"{model}\",reason=\"{reason}\",version=\"1\"}}"), 1);
    }

    fn merge(&mut self, other: Self) {
        for (line, count) in other.0 {
            self.add(line, count);
        }
    }
}

/// How a model counts what a client saw as `status`; `None` where no model took the request.
fn outcome_of(status: u16) -> Option<&'static str> {
    match status {
        200 => Some("success"),
        400 | 413 | 415 => Some("invalid"),
        404 => None,
        429 | 503 | 504 => Some("rejected"),
        other => panic!("{other}"),
    }
}

fn outcome_of_code(code: Code) -> Option<&'static str> {
    match code {
        Code::Ok => Some("success"),
        Code::InvalidArgument => Some("invalid"),
        Code::NotFound => None,
        Code::ResourceExhausted | Code::DeadlineExceeded => Some("rejected"),
        other => panic!("{other:?}"),
    }
}

const INFER: &str = "/v2/models/{model}/infer";
const CLASSIFY: &str = "/v1/models/{model}/classify";
const INFERENCE: &str = "inference.GRPCInferenceService";
const CLASSIFIER: &str = "convoy.v1.ImageClassifier";

/// A request for the tensor of `rows` rows, over HTTP.
fn tensor_json(rows: usize, timeout_us: u64) -> String {
    let input = json!({"name": "input", "shape": [rows, 3, 2, 2], "datatype": "FP32", "data": vec![0.5; 12 * rows]});
    json!({"inputs": [input], "parameters": {"timeout": timeout_us}}).to_string()
}

fn tensor_message(model: &str, rows: usize, timeout_us: i64) -> pb::ModelInferRequest {
    let mut request = grpc::raw(model, "FP32", &[rows as i64, 3, 2, 2], grpc::bytes(&vec![0.5; 12 * rows]));
    request.parameters.insert("timeout".into(), grpc::int(timeout_us));
    request
}

fn classify_message(model: &str, images: Vec<Bytes>) -> classifier::ClassifyRequest {
    classifier::ClassifyRequest { model_name: model.into(), images, ..Default::default() }
}

/// A client with connections of its own, which counts.
struct Client {
    http: http::Connection,
    grpc: grpc::Client,
    classifier: ImageClassifierClient<Channel>,
    random: Rng,
    tally: Tally,
}

impl Client {
    async fn new(server: &Server, seed: u64) -> Self {
        let channel = grpc::channel(server).await;
        Self {
            http: http::Connection::open(server).await,
            grpc: grpc::Client::new(channel.clone()),
            classifier: ImageClassifierClient::new(channel),
            random: Rng::with_seed(seed),
            tally: Tally::default(),
        }
    }

    /// A request over HTTP that `model` takes, if it is there.
    async fn post(&mut self, route: &str, model: &str, headers: &[(&str, &str)], body: Vec<u8>, size: [usize; 2]) {
        let status = self.send(route, model, "", headers, body).await;
        if let Some(outcome) = outcome_of(status) {
            self.tally.request(model, "http", outcome, size[0], size[1]);
        }
        if status == 429 {
            self.tally.refused(model, if model == "full" { "queue_size" } else { "deadline" });
        }
    }

    /// A request over HTTP. Returns the status.
    async fn send(&mut self, route: &str, model: &str, query: &str, headers: &[(&str, &str)], body: Vec<u8>) -> u16 {
        let path = route.replace("{model}", model) + query;
        let request = Request::post(path).header("host", "test");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let status = self.http.send(request.body(Full::new(body.into())).unwrap()).await.status.as_u16();
        self.tally.http(route, status);
        status
    }

    /// A unary inference that `model` takes, if it is there.
    async fn infer(&mut self, request: pb::ModelInferRequest, size: [usize; 2]) {
        let model = request.model_name.clone();
        let code = self.grpc.model_infer(request).await.map_or_else(|status| status.code(), |_| Code::Ok);
        self.tally.grpc(INFERENCE, "ModelInfer", code);
        self.count(&model, code, size);
    }

    /// A unary classification that `model` takes, if it is there.
    async fn classify(&mut self, request: classifier::ClassifyRequest) {
        let (model, pictures) = (request.model_name.clone(), request.images.len());
        let code = self.classifier.classify(request).await.map_or_else(|status| status.code(), |_| Code::Ok);
        self.tally.grpc(CLASSIFIER, "Classify", code);
        self.count(&model, code, [pictures; 2]);
    }

    fn count(&mut self, model: &str, code: Code, [rows, pictures]: [usize; 2]) {
        if let Some(outcome) = outcome_of_code(code) {
            self.tally.request(model, "grpc", outcome, rows, pictures);
        }
        if code == Code::ResourceExhausted {
            self.tally.refused(model, if model == "full" { "queue_size" } else { "deadline" });
        }
    }

    fn picture(&mut self) -> Vec<u8> {
        png([self.random.u8(..8), self.random.u8(..8), 7])
    }

    /// One request, of any kind, or one stream of several. Returns how many requests it was.
    async fn any(&mut self) -> usize {
        let (one, two) = (self.picture(), self.picture());
        let rows = self.random.usize(1..=5);
        match self.random.u32(..22) {
            0 | 1 => self.post(INFER, "m", &[], tensor_json(rows, 0).into(), [rows, 0]).await,
            2 => {
                let bytes = grpc::bytes(&vec![0.25; 12 * rows]);
                let input = json!({"name": "input", "shape": [rows, 3, 2, 2], "datatype": "FP32",
                    "parameters": {"binary_data_size": bytes.len()}});
                let head = json!({"inputs": [input]}).to_string();
                let length = head.len().to_string();
                let headers = [("inference-header-content-length", &*length)];
                self.post(INFER, "m", &headers, [head.as_bytes(), &bytes].concat(), [rows, 0]).await;
            }
            3 | 4 => self.post(CLASSIFY, "m", &[("content-type", "image/png")], one, [1, 1]).await,
            5 => {
                let body = json!({"images": [STANDARD.encode(one), STANDARD.encode(two)]}).to_string();
                self.post(CLASSIFY, "m", &[("content-type", "application/json")], body.into(), [2, 2]).await;
            }
            6 => self.infer(tensor_message("m", rows, 0), [rows, 0]).await,
            7 => self.infer(grpc::raw("m", "BYTES", &[2], grpc::byte_strings(&[one, two])), [2, 2]).await,
            8 => self.classify(classify_message("m", vec![one.into(), two.into()])).await,
            // What is wrong is found when the body is read, when the tensor is looked at, or when the picture is decoded.
            9 => self.post(INFER, "m", &[], b"{\"inputs\": [".to_vec(), [0, 0]).await,
            10 => self.post(INFER, "m", &[], tensor_json(0, 0).into(), [0, 0]).await,
            11 => self.post(CLASSIFY, "m", &[("content-type", "image/png")], b"no picture".to_vec(), [0, 0]).await,
            12 => self.post(CLASSIFY, "m", &[("content-type", "text/plain")], one, [0, 0]).await,
            13 => self.infer(grpc::raw("m", "FP32", &[1, 3, 2, 3], vec![0; 72]), [0, 0]).await,
            14 => self.classify(classify_message("m", vec!["no picture".into()])).await,
            // No model takes these.
            15 => self.post(INFER, "nobody", &[], tensor_json(1, 0).into(), [0, 0]).await,
            16 => {
                self.infer(tensor_message("nobody", 1, 0), [0, 0]).await;
                let status = self.send(CLASSIFY, "m", "?top_k=0", &[], one).await;
                assert_eq!(status, 400, "it is refused for the query alone, whatever the model");
                return 2;
            }
            // There is one place.
            17 => self.post(INFER, "full", &[], tensor_json(2, 0).into(), [2, 0]).await,
            18 => self.infer(tensor_message("full", 2, 0), [2, 0]).await,
            // Held back for an hour: they are late, or refused because of those that are held back already.
            19 => self.post(INFER, "slow", &[], tensor_json(1, 2_000).into(), [1, 0]).await,
            20 => self.infer(tensor_message("slow", 1, 2_000), [1, 0]).await,
            _ => return self.streams(one, two).await,
        }
        1
    }

    /// A stream of each kind, with good and bad requests.
    async fn streams(&mut self, one: Vec<u8>, two: Vec<u8>) -> usize {
        let bad = grpc::raw("m", "FP32", &[1, 3, 2, 3], vec![0; 72]);
        let requests = [tensor_message("m", 3, 0), bad, tensor_message("nobody", 1, 0), tensor_message("m", 1, 0)];
        let answers = self.grpc.model_stream_infer(tokio_stream(requests)).await;
        let mut answers = answers.unwrap().into_inner();
        // In order, and an error has no code: which one it is follows from the request.
        for (code, rows) in [(Code::Ok, 3), (Code::InvalidArgument, 0), (Code::NotFound, 0), (Code::Ok, 1)] {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!(answer.error_message.is_empty(), code == Code::Ok, "{answer:?}");
            self.count("m", code, [rows, 0]);
        }
        assert!(answers.message().await.unwrap().is_none());
        self.tally.grpc(INFERENCE, "ModelStreamInfer", Code::Ok);

        let requests = [
            classify_message("m", vec![one.into()]),
            classify_message("m", vec!["no picture".into()]),
            classify_message("m", vec![two.into()]),
        ];
        let requests =
            requests.map(|request| classifier::ClassifyStreamRequest { id: String::new(), request: Some(request) });
        let answers = self.classifier.classify_stream(tokio_stream(requests)).await;
        let mut answers = answers.unwrap().into_inner();
        for _ in 0..3 {
            match answers.message().await.unwrap().unwrap().result.unwrap() {
                StreamResult::Response(_) => self.count("m", Code::Ok, [1, 1]),
                StreamResult::Error(error) => self.count("m", error.code.into(), [0, 0]),
            }
        }
        assert!(answers.message().await.unwrap().is_none());
        self.tally.grpc(CLASSIFIER, "ClassifyStream", Code::Ok);
        7
    }
}

fn tokio_stream<T: Send + 'static, const N: usize>(
    items: [T; N],
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::iter(items)
}

/// Everything on the metrics page that is not 0.
async fn page(server: &Server) -> BTreeMap<String, u64> {
    let answer = http::send_to(server.metrics_address(), "GET", "/metrics", &[], "").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    // Counts are whole; times are not, and not looked at.
    lines
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .filter(|(_, value)| *value > 0)
        .collect()
}

/// The sum over all lines of a family that have all of `labels`.
fn sum(page: &BTreeMap<String, u64>, family: &str, labels: &[&str]) -> u64 {
    let of_family = page.iter().filter(|(line, _)| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{')));
    of_family.filter(|(line, _)| labels.iter().all(|label| line.contains(label))).map(|(_, count)| count).sum()
}

/// What a model's statistics say agrees with its metrics.
fn assert_agree(page: &BTreeMap<String, u64>, statistics: &Value) {
    let name = statistics["name"].as_str().unwrap();
    let model = &*format!("model=\"{name}\"");
    let metric = |family: &str| sum(page, family, &[model]);
    let count = |what: &str| statistics["inference_stats"][what]["count"].as_u64().unwrap();
    let success = sum(page, "convoy_requests_total", &[model, "outcome=\"success\""]);
    assert_eq!(count("success"), success, "{name}");
    assert_eq!(metric("nv_inference_request_success"), success, "{name}");
    assert_eq!(metric("convoy_request_seconds_count"), success, "{name}");
    assert_eq!(count("fail"), metric("convoy_requests_total") - success, "{name}");
    assert_eq!(metric("nv_inference_request_failure"), count("fail"), "{name}");

    let rows = statistics["inference_count"].as_u64().unwrap();
    let batches = statistics["batch_stats"].as_array().unwrap().iter().map(|batch| {
        let counts =
            ["compute_input", "compute_infer", "compute_output"].map(|part| batch[part]["count"].as_u64().unwrap());
        assert_eq!(counts, [counts[0]; 3], "{name}");
        [batch["batch_size"].as_u64().unwrap() * counts[0], counts[0]]
    });
    let [in_batches, runs] = batches.fold([0; 2], |sums, batch| [sums[0] + batch[0], sums[1] + batch[1]]);
    for (what, found) in [
        ("batches", in_batches),
        ("queue", count("queue")),
        ("compute_input", count("compute_input")),
        ("compute_infer", count("compute_infer")),
        ("compute_output", count("compute_output")),
        ("nv_inference_count", metric("nv_inference_count")),
        ("convoy_batch_size_sum", metric("convoy_batch_size_sum")),
        ("convoy_queue_seconds_count", metric("convoy_queue_seconds_count")),
    ] {
        assert_eq!(found, rows, "{name}: {what}");
    }
    for (what, found) in [
        ("execution_count", statistics["execution_count"].as_u64().unwrap()),
        ("nv_inference_exec_count", metric("nv_inference_exec_count")),
        ("convoy_batch_size_count", metric("convoy_batch_size_count")),
        ("convoy_compute_seconds_count", metric("convoy_compute_seconds_count")),
    ] {
        assert_eq!(found, runs, "{name}: {what}");
    }
    for (statistic, [own, triton]) in [
        ("cache_hit", ["convoy_response_cache_hits_total", "nv_cache_num_hits_per_model"]),
        ("cache_miss", ["convoy_response_cache_misses_total", "nv_cache_num_misses_per_model"]),
    ] {
        assert_eq!([metric(own), metric(triton)], [count(statistic); 2], "{name}: {statistic}");
    }
}

/// Families whose every line the client has counted for itself, but for `models` whose clients left at any moment, or whose answers
/// are kept.
const COUNTED: [&str; 11] = [
    "convoy_requests_total",
    "convoy_request_seconds_count",
    "convoy_decode_seconds_count",
    "convoy_refusals_total",
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "convoy_http_requests_total",
    "convoy_http_request_duration_seconds_count",
    "convoy_grpc_requests_total",
    "convoy_grpc_request_duration_seconds_count",
];

fn counted(page: &BTreeMap<String, u64>) -> Tally {
    let is_counted = |line: &str| {
        let family = line.split('{').next().unwrap();
        COUNTED.contains(&family)
            && !["kept", "fast", "both"].iter().any(|model| line.contains(&format!("model=\"{model}\"")))
    };
    let route_of_stats = |line: &str| line.contains("/stats");
    let lines = page.iter().filter(|(line, _)| is_counted(line) && !route_of_stats(line));
    Tally(lines.map(|(line, count)| (line.clone(), *count)).collect())
}

async fn model_statistics(server: &Server) -> Vec<Value> {
    http::get(server, "/v2/models/stats").await.json()["model_stats"].as_array().unwrap().clone()
}

fn repository() -> Repository {
    let graph = graphs::channel_means(2, None);
    let uncached = format!("{PLAIN_RECIPE}[response_cache]\nenabled = false\n[instances]\ncount = 2\n[batching]\n");
    let hour = "max_queue_delay_us = 3600000000\n";
    let one = uncached.replace("count = 2", "count = 1");
    let repository = Repository::new()
        .with("m", &graph, &format!("{uncached}queue_size = 100000\n"), "")
        .with("fast", &graph, &uncached, "")
        .with("kept", &graph, PLAIN_RECIPE, "")
        .with("slow", &graph, &format!("max_batch_size = 512\n{one}{hour}"), "")
        .with("full", &graph, &format!("max_batch_size = 2\n{one}{hour}queue_size = 0\n"), "");
    std::fs::create_dir(repository.path().join("both")).unwrap();
    std::fs::write(repository.path().join("both/config.toml"), "members = ['kept', 'fast']").unwrap();
    repository
}

async fn in_flight(server: &Server, model: &str, count: u64) {
    within_a_minute(async {
        while sum(&page(server).await, "convoy_in_flight", &[&format!("model=\"{model}\"")]) != count {}
    })
    .await;
}

/// Sends requests that are held back for an hour, over both protocols, and leaves when they are.
async fn leave_while_held_back(server: &Arc<Server>) -> Tally {
    const EACH: u64 = 25;
    let mut tally = Tally::default();
    let mut tasks = Vec::new();
    for _ in 0..EACH {
        let http = Arc::clone(server);
        tasks.push(tokio::spawn(async move {
            http::send(&http, "POST", "/v2/models/slow/infer", &[], tensor_json(1, 0)).await;
        }));
        tally.http(INFER, 499);
        tally.request("slow", "http", "canceled", 0, 0);
        let mut client = grpc::client(server).await;
        tasks.push(tokio::spawn(async move {
            client.model_infer(tensor_message("slow", 1, 0)).await.unwrap();
        }));
        tally.grpc(INFERENCE, "ModelInfer", Code::Cancelled);
        tally.request("slow", "grpc", "canceled", 0, 0);
        let mut client = grpc::client(server).await;
        tasks.push(tokio::spawn(async move {
            let answers = client.model_stream_infer(tokio_stream([tensor_message("slow", 1, 0)])).await;
            answers.unwrap().into_inner().message().await.unwrap();
        }));
        tally.grpc(INFERENCE, "ModelStreamInfer", Code::Cancelled);
        tally.request("slow", "grpc", "canceled", 0, 0);
    }
    in_flight(server, "slow", 3 * EACH).await;
    for task in tasks {
        task.abort();
        assert!(task.await.is_err(), "it was held back");
    }
    tally
}

/// Sends requests to models of which the client's count is not compared, and leaves some of them at any moment.
async fn leave_at_any_moment(server: &Arc<Server>, random: &mut Rng) {
    for _ in 0..200 {
        let server = Arc::clone(server);
        let picture = png([random.u8(..4), 0, 0]);
        let model = ["fast", "kept", "both"][random.usize(..3)];
        let request = tokio::spawn(async move {
            if model == "fast" {
                drop(grpc::client(&server).await.classify_or_infer(picture).await);
            } else {
                http::send(&server, "POST", &CLASSIFY.replace("{model}", model), &[], picture).await;
            }
        });
        for _ in 0..random.usize(..40) {
            tokio::task::yield_now().await;
        }
        if random.bool() {
            request.abort();
        }
        drop(request.await);
    }
}

trait Infer {
    async fn classify_or_infer(&mut self, picture: Vec<u8>) -> Result<(), tonic::Status>;
}

impl Infer for grpc::Client {
    async fn classify_or_infer(&mut self, picture: Vec<u8>) -> Result<(), tonic::Status> {
        self.model_infer(grpc::raw("fast", "BYTES", &[1], grpc::byte_strings(&[picture]))).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_statistics_and_the_client_agree_after_ten_thousand_requests() {
    let repository = repository();
    let mut config = config(&repository);
    config.response_cache.max_bytes = 1 << 20;
    let server = Arc::new(start(config).await);

    // Takes one of the two places of `full` for as long as it waits for a second row, which never gets a place.
    let holder = Arc::clone(&server);
    let holder = tokio::spawn(async move {
        http::send(&holder, "POST", "/v2/models/full/infer", &[], tensor_json(1, 0)).await;
    });
    in_flight(&server, "full", 1).await;

    let clients = (0..CLIENTS).map(|seed| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let mut client = Client::new(&server, seed).await;
            let mut sent = 0;
            while sent < REQUESTS {
                sent += client.any().await;
            }
            (sent, client.tally)
        })
    });
    let (mut sent, mut tally) = (0, Tally::default());
    for client in clients.collect::<Vec<_>>() {
        let (count, counted) = client.await.unwrap();
        sent += count;
        tally.merge(counted);
    }
    assert!(sent >= 10_000, "{sent}");
    holder.abort();
    assert!(holder.await.is_err(), "it was held back");
    tally.http(INFER, 499);
    tally.request("full", "http", "canceled", 0, 0);
    tally.merge(leave_while_held_back(&server).await);
    tally.0.retain(|_, count| *count > 0);

    // A call is counted when its connection has taken the answer, and one that was left when the server learns of it.
    let settled = async { while counted(&page(&server).await) != tally {} };
    if tokio::time::timeout(std::time::Duration::from_secs(20), settled).await.is_err() {
        assert_eq!(counted(&page(&server).await), tally);
    }

    leave_at_any_moment(&server, &mut Rng::with_seed(7)).await;
    for gauge in ["convoy_in_flight", "convoy_queue_depth", "convoy_queue_bytes", "nv_inference_pending_request_count"]
    {
        within_a_minute(async { while sum(&page(&server).await, gauge, &[]) != 0 {} }).await;
    }
    for statistics in model_statistics(&server).await {
        assert_agree(&page(&server).await, &statistics);
    }
}
