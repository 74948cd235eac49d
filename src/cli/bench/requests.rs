//! What a load sends: requests that are put together once, before anything is measured.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use serde_json::json;

use super::grpc::{self, Status};
use super::http;
use super::target::{Protocol, Target};
use crate::grpc::proto::convoy::v1 as classifier;
use crate::grpc::proto::inference as v2;
use crate::tensor::DataType;

const CLASSIFY: &str = "/convoy.v1.ImageClassifier/Classify";
const CLASSIFY_STREAM: &str = "/convoy.v1.ImageClassifier/ClassifyStream";
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const MODEL_METADATA: &str = "/inference.GRPCInferenceService/ModelMetadata";
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How a tensor is written over HTTP. gRPC has the binary form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TensorForm {
    /// Numbers in JSON.
    Json,
    /// The binary tensor data extension, for the answer too.
    Binary,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was answered.
    Success,
    /// The server has too much to do, and said so.
    Refused(String),
    /// The server said that the request's deadline has passed.
    Expired(String),
    /// Anything else.
    Failed(String),
}

impl Answer {
    /// Whether it is a success, and came within the `timeout` that the request brought.
    pub(super) fn is_on_time(&self, latency: Duration, timeout: Option<Duration>) -> bool {
        *self == Self::Success && timeout.is_none_or(|timeout| latency <= timeout)
    }
}

/// What to send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    /// Encoded pictures, in turn.
    Pictures(&'a [Bytes]),
    /// One row of the model's input, in this form.
    Tensor(TensorForm),
}

/// What every request says beside its payload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Common<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) is_stream: bool,
}

/// Requests of one kind, each ready to be sent.
#[derive(Debug)]
pub(super) struct Requests {
    path: String,
    timeout: Option<Duration>,
    headers: HeaderMap,
    bodies: Bodies,
}

#[derive(Debug)]
enum Bodies {
    /// As they go out: an HTTP body, or a framed message.
    Whole(Vec<Bytes>),
    /// Messages of a stream, each of which gets its id when it is sent.
    Classify(Vec<classifier::ClassifyRequest>),
    Infer(v2::ModelInferRequest),
}

impl Requests {
    /// Puts the requests together; asks the server for the model's input where a tensor is to be sent.
    pub(super) async fn prepare(target: &Target, payload: Payload<'_>, common: Common<'_>) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(key) = common.key {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}"))?);
        }
        let timeout = common.timeout_ms.map(Duration::from_millis);
        let mut requests = Self { path: String::new(), timeout, headers, bodies: Bodies::Whole(Vec::new()) };
        match (target.protocol, payload) {
            (Protocol::Http, _) if common.is_stream => bail!("--stream is gRPC's: write grpc://… in --url"),
            (Protocol::Http, Payload::Pictures(pictures)) => requests.http_pictures(target, pictures, common)?,
            (Protocol::Http, Payload::Tensor(form)) => requests.http_tensor(target, form, common).await?,
            (Protocol::Grpc, Payload::Pictures(pictures)) => requests.grpc_pictures(pictures, common),
            (Protocol::Grpc, Payload::Tensor(form)) => {
                ensure!(form == TensorForm::Binary, "gRPC has no JSON tensors: --tensor binary");
                requests.grpc_tensor(target, common).await?;
            }
        }
        Ok(requests)
    }

    fn http_pictures(&mut self, target: &Target, pictures: &[Bytes], common: Common<'_>) -> Result<()> {
        ensure!(
            target.path.is_none() || common.model.is_none(),
            "--model and a path in --url say the same thing: give one"
        );
        self.path = match (&target.path, common.model) {
            (Some(path), _) => path.clone(),
            (None, Some(model)) => format!("/v1/models/{model}/classify"),
            (None, None) => "/v1/classify".to_owned(),
        };
        if let Some(timeout) = common.timeout_ms {
            let joint = if self.path.contains('?') { '&' } else { '?' };
            self.path = format!("{}{joint}timeout_ms={timeout}", self.path);
        }
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        self.bodies = Bodies::Whole(pictures.to_vec());
        Ok(())
    }

    async fn http_tensor(&mut self, target: &Target, form: TensorForm, common: Common<'_>) -> Result<()> {
        let model = common.model.context("--tensor needs --model")?;
        ensure!(target.path.is_none(), "with --tensor, --url has no path: --model names the model");
        let metadata = http::Connection::open(target).await?.get_json(&format!("/v2/models/{model}"), self).await?;
        let input: Input = serde_json::from_value(metadata["inputs"][0].clone())
            .with_context(|| format!("the model {model} names no input that is understood"))?;
        let tensor = input.tensor()?;
        let parameters = common.timeout_ms.map(|timeout| json!({ "timeout": timeout * 1000 })).unwrap_or(json!({}));
        self.path = format!("/v2/models/{model}/infer");
        let body = match form {
            TensorForm::Json => {
                let input = json!({
                    "name": input.name, "datatype": input.datatype, "shape": tensor.shape, "data": tensor.to_json(),
                });
                self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                json!({ "inputs": [input], "parameters": parameters }).to_string().into_bytes()
            }
            TensorForm::Binary => {
                let mut parameters = parameters;
                parameters["binary_data_output"] = true.into();
                let input = json!({
                    "name": input.name, "datatype": input.datatype, "shape": tensor.shape,
                    "parameters": { "binary_data_size": tensor.bytes.len() },
                });
                let head = json!({ "inputs": [input], "parameters": parameters }).to_string();
                self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                self.headers.insert(JSON_LENGTH, head.len().into());
                [head.as_bytes(), &tensor.bytes].concat()
            }
        };
        self.bodies = Bodies::Whole(vec![body.into()]);
        Ok(())
    }

    fn grpc_pictures(&mut self, pictures: &[Bytes], common: Common<'_>) {
        let messages = pictures.iter().map(|picture| classifier::ClassifyRequest {
            model_name: common.model.unwrap_or_default().to_owned(),
            images: vec![picture.clone()],
            timeout_ms: common.timeout_ms.unwrap_or_default(),
            ..Default::default()
        });
        (self.path, self.bodies) = if common.is_stream {
            (CLASSIFY_STREAM.to_owned(), Bodies::Classify(messages.collect()))
        } else {
            (CLASSIFY.to_owned(), Bodies::Whole(messages.map(|message| grpc::frame(&message)).collect()))
        };
    }

    async fn grpc_tensor(&mut self, target: &Target, common: Common<'_>) -> Result<()> {
        let model = common.model.context("--tensor needs --model")?;
        let asked = v2::ModelMetadataRequest { name: model.to_owned(), ..Default::default() };
        let mut connection = grpc::Connection::open(target).await?;
        let metadata: v2::ModelMetadataResponse = connection.ask(MODEL_METADATA, &self.headers, &asked).await?;
        let input = metadata.inputs.into_iter().next().with_context(|| format!("the model {model} has no input"))?;
        let input = Input { name: input.name, datatype: input.datatype, shape: input.shape };
        let tensor = input.tensor()?;
        let timeout = common.timeout_ms.map(|timeout| {
            let choice = v2::infer_parameter::ParameterChoice::Int64Param(timeout as i64 * 1000);
            ("timeout".to_owned(), v2::InferParameter { parameter_choice: Some(choice) })
        });
        let message = v2::ModelInferRequest {
            model_name: model.to_owned(),
            parameters: timeout.into_iter().collect(),
            inputs: vec![v2::model_infer_request::InferInputTensor {
                name: input.name,
                datatype: input.datatype,
                shape: tensor.shape,
                ..Default::default()
            }],
            raw_input_contents: vec![tensor.bytes.into()],
            ..Default::default()
        };
        (self.path, self.bodies) = if common.is_stream {
            (MODEL_STREAM_INFER.to_owned(), Bodies::Infer(message))
        } else {
            (MODEL_INFER.to_owned(), Bodies::Whole(vec![grpc::frame(&message)]))
        };
        Ok(())
    }

    /// The path over HTTP, or the method.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The timeout that every request brings.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// What every request carries beside the protocol's own headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whether a stream's answers name their requests, or come in order.
    pub(super) fn answers_have_ids(&self) -> bool {
        matches!(self.bodies, Bodies::Classify(_))
    }

    /// The request whose turn it is, as it goes out. Of a stream's, `id` is its name.
    pub(super) fn body(&self, turn: usize, id: &str) -> Bytes {
        match &self.bodies {
            Bodies::Whole(bodies) => bodies[turn % bodies.len()].clone(),
            Bodies::Classify(messages) => grpc::frame(&classifier::ClassifyStreamRequest {
                id: id.to_owned(),
                request: Some(messages[turn % messages.len()].clone()),
            }),
            Bodies::Infer(message) => grpc::frame(&v2::ModelInferRequest { id: id.to_owned(), ..message.clone() }),
        }
    }

    /// The id and the status of a stream's answer.
    pub(super) fn stream_answer(&self, message: Bytes) -> Result<(String, Status)> {
        let ok = Status { code: 0, message: String::new() };
        if self.answers_have_ids() {
            let answer = classifier::ClassifyStreamResponse::decode(message)?;
            let status = match answer.result.context("an answer is empty")? {
                classifier::classify_stream_response::Result::Response(_) => ok,
                classifier::classify_stream_response::Result::Error(error) => {
                    Status { code: error.code, message: error.message }
                }
            };
            return Ok((answer.id, status));
        }
        let answer = v2::ModelStreamInferResponse::decode(message)?;
        // Triton's stream says what went wrong in words alone: UNKNOWN.
        let status =
            if answer.error_message.is_empty() { ok } else { Status { code: 2, message: answer.error_message } };
        Ok((answer.infer_response.unwrap_or_default().id, status))
    }
}

/// A model's input as its metadata has it.
#[derive(Debug, serde::Deserialize)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// One row for an [`Input`].
struct Row {
    shape: Vec<i64>,
    bytes: Vec<u8>,
}

impl Input {
    /// A row of one value throughout. Only its size matters, and that a number in JSON has some digits.
    fn tensor(&self) -> Result<Row> {
        ensure!(self.datatype == DataType::Fp32.as_str(), "--tensor sends FP32, but the model takes {}", self.datatype);
        let [batch, dimensions @ ..] = self.shape.as_slice() else { bail!("the input {} has no batch", self.name) };
        if let Some(open) = dimensions.iter().find(|&&dimension| dimension < 1) {
            bail!("the input {} leaves a dimension open ({open}): --tensor cannot choose it", self.name);
        }
        let shape: Vec<i64> = std::iter::once((*batch).max(1)).chain(dimensions.iter().copied()).collect();
        let elements = shape.iter().product::<i64>() as usize;
        Ok(Row { shape, bytes: VALUE.to_le_bytes().repeat(elements) })
    }
}

const VALUE: f32 = 0.123_456_79;

impl Row {
    fn to_json(&self) -> Vec<f32> {
        vec![VALUE; self.bytes.len() / size_of::<f32>()]
    }
}
