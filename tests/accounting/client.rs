//! A client that sends requests of every kind, and counts what becomes of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convoy::grpc::proto::convoy::v1 as classifier;
use convoy::grpc::proto::convoy::v1::classify_stream_response::Result as StreamResult;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::grpc::proto::inference as pb;
use convoy::server::Server;
use fastrand::Rng;
use futures_util::stream;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;

use crate::server::png;
use crate::tally::{Tally, outcome_of, outcome_of_code};
use crate::{grpc, http};

pub(crate) const INFER: &str = "/v2/models/{model}/infer";
pub(crate) const CLASSIFY: &str = "/v1/models/{model}/classify";
pub(crate) const INFERENCE: &str = "inference.GRPCInferenceService";
pub(crate) const CLASSIFIER: &str = "convoy.v1.ImageClassifier";

/// A request for the tensor of `rows` rows, over HTTP.
pub(crate) fn tensor_json(rows: usize, timeout_us: u64) -> String {
    let input = json!({"name": "input", "shape": [rows, 3, 2, 2], "datatype": "FP32", "data": vec![0.5; 12 * rows]});
    json!({"inputs": [input], "parameters": {"timeout": timeout_us}}).to_string()
}

pub(crate) fn tensor_message(model: &str, rows: usize, timeout_us: i64) -> pb::ModelInferRequest {
    let mut request = grpc::raw(model, "FP32", &[rows as i64, 3, 2, 2], grpc::bytes(&vec![0.5; 12 * rows]));
    request.parameters.insert("timeout".into(), grpc::int(timeout_us));
    request
}

fn classify_message(model: &str, images: Vec<Bytes>) -> classifier::ClassifyRequest {
    classifier::ClassifyRequest { model_name: model.into(), images, ..Default::default() }
}

/// A client with connections of its own, which counts.
pub(crate) struct Client {
    http: http::Connection,
    grpc: grpc::Client,
    classifier: ImageClassifierClient<Channel>,
    random: Rng,
    pub(crate) tally: Tally,
}

impl Client {
    pub(crate) async fn new(server: &Server, seed: u64) -> Self {
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
    pub(crate) async fn any(&mut self) -> usize {
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
        let answers = self.grpc.model_stream_infer(stream::iter(requests)).await;
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
        let answers = self.classifier.classify_stream(stream::iter(requests)).await;
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
