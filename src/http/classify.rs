//! `POST …/classify`: pictures in, classes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::HttpResult;
use super::extract::{Parameters, Payload, Target};
use super::json::{self, off_worker};
use super::openapi::{Operation, Tag};
use super::tensor_json::read_base64_list;
use super::{App, AppState};
use crate::error::{Error, Result};
use crate::inference::{ClassifyRequest, DEFAULT_TOP_K, Prediction, RequestContext, Timing};
use crate::postprocess::Class;
use crate::repository::Model;

/// What may be said beside the pictures, in the query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// How many classes for each picture; more than there are means all.
    #[serde(default = "default_top_k")]
    #[schemars(range(min = 1))]
    pub(super) top_k: usize,
    /// Whether the side branches' classes are wanted, too.
    #[serde(default)]
    pub(super) aux: bool,
    /// After so many milliseconds the answer is of no use; 0 and nothing mean the model's own.
    timeout_ms: Option<u64>,
    /// 1 is the most urgent; 0 and nothing mean the model's own.
    priority: Option<u32>,
}

fn default_top_k() -> usize {
    DEFAULT_TOP_K
}

impl Options {
    /// The timeout, `None` for the model's own.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.filter(|&timeout| timeout > 0).map(Duration::from_millis)
    }

    /// The priority, `None` for the model's own.
    pub(super) fn priority(&self) -> Option<u32> {
        self.priority.filter(|&priority| priority > 0)
    }

    /// The context of a request that came with `payload`.
    pub(super) fn context(&self, payload: &Payload) -> RequestContext {
        RequestContext { priority: self.priority(), timeout: self.timeout(), ..payload.context() }
    }
}

/// What the document says of [`named_model`].
pub(super) fn operation() -> Operation {
    Operation::new("classify", Tag::Classify, "Classify pictures")
        .description("One prediction for each picture, in order. The format of a picture is read from its bytes.")
        .query::<Options>()
        .pictures()
        .answers::<AnswerJson>("The most probable classes of each picture.")
        .refused_with(&[504])
}

/// What the document says of [`default_model`].
pub(super) fn default_operation() -> Operation {
    operation().renamed("classify_default", "Classify pictures with the default model").refused_with(&[404, 503])
}

/// `POST /v1/classify`.
pub(super) async fn default_model(
    State(app): AppState,
    Parameters(options): Parameters<Options>,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let model =
        app.inference.default_model("name one in the path, /v1/models/{model}/classify, or configure a default")?;
    classify(&app, model, &options, &headers, payload).await
}

/// `POST /v1/models/M[/versions/V]/classify`.
pub(super) async fn named_model(
    State(app): AppState,
    target: Target,
    Parameters(options): Parameters<Options>,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    classify(&app, model, &options, &headers, payload).await
}

/// Has `model` classify the pictures of a request.
pub(super) async fn classify(
    app: &App,
    model: Arc<Model>,
    options: &Options,
    headers: &HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    if options.top_k == 0 {
        return Err(Error::invalid("top_k must be at least 1").into());
    }
    let admission = app.inference.admit(Arc::clone(&model), options.context(&payload))?;
    let pictures = match read_pictures(app, headers, payload.bytes).await {
        Ok(pictures) => pictures,
        Err(error) => {
            admission.reject(&error);
            return Err(error.into());
        }
    };
    let request = ClassifyRequest { pictures, top_k: options.top_k, aux: options.aux };
    let answer = app.inference.classify(admission, request).await?;
    Ok(Json(AnswerJson {
        model_name: model.name(),
        model_version: model.version().to_string(),
        model_loaded_ms: model.loaded_ms(),
        predictions: answer.predictions.iter().map(PredictionJson::from).collect(),
        timing: TimingJson::from(answer.timing),
    })
    .into_response())
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Classification")]
struct AnswerJson<'a> {
    model_name: &'a str,
    model_version: String,
    /// When that was loaded, in milliseconds since 1970: another when it, or a member of the ensemble that it is, has been loaded again.
    model_loaded_ms: u64,
    /// One for each picture, in order.
    predictions: Vec<PredictionJson<'a>>,
    timing: TimingJson,
}

/// The classes of one picture.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Prediction")]
pub(super) struct PredictionJson<'a> {
    /// The most probable first.
    classes: Vec<ClassJson<'a>>,
    /// The classes of each side branch by its output's name, where they were asked for.
    #[serde(skip_serializing_if = "BranchesJson::is_empty")]
    #[schemars(with = "BTreeMap<String, Vec<ClassJson>>")]
    branches: BranchesJson<'a>,
}

impl<'a> From<&'a Prediction> for PredictionJson<'a> {
    fn from(prediction: &'a Prediction) -> Self {
        Self { classes: json_of(&prediction.classes), branches: BranchesJson(&prediction.branches) }
    }
}

/// The classes of each side branch, by its output's name, in the graph's order.
struct BranchesJson<'a>(&'a [(String, Vec<Class>)]);

impl BranchesJson<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for BranchesJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, branch)| (name, json_of(branch))))
    }
}

fn json_of<'a>(classes: &'a [Class]) -> Vec<ClassJson<'a>> {
    let json = |class: &'a Class| ClassJson { index: class.index, label: class.label.as_deref(), score: class.score };
    classes.iter().map(json).collect()
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Class")]
struct ClassJson<'a> {
    index: usize,
    /// `null` for a model without labels.
    label: Option<&'a str>,
    /// The softmax probability.
    score: f32,
}

/// The longest times of the request's pictures.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Timing")]
struct TimingJson {
    /// Decoding and preprocessing.
    decode_ms: f64,
    /// Waiting for an instance.
    queue_ms: f64,
    /// Rows of the batch that it ran in.
    batch_size: usize,
    /// The batch's run.
    compute_ms: f64,
    /// From the last byte of the request to the answer.
    total_ms: f64,
}

impl From<Timing> for TimingJson {
    fn from(timing: Timing) -> Self {
        // Whole microseconds: more digits would say nothing.
        let milliseconds = |duration: Duration| duration.as_micros() as f64 / 1e3;
        Self {
            decode_ms: milliseconds(timing.decode),
            queue_ms: milliseconds(timing.queue),
            batch_size: timing.batch_size,
            compute_ms: milliseconds(timing.compute),
            total_ms: milliseconds(timing.total),
        }
    }
}

/// The forms in which pictures may come.
#[derive(Debug, PartialEq)]
pub(super) enum Form {
    /// The body is the picture itself.
    Picture,
    /// `{"images": ["<base64>", …]}`.
    Json,
    /// One or more files.
    Multipart,
}

impl Form {
    /// The form that `content_type` names. A body without a type is taken for a picture, and so is
    /// `application/x-www-form-urlencoded`, which is what `curl --data-binary` says of any file.
    pub(super) fn of(content_type: Option<&HeaderValue>) -> Result<Self> {
        let Some(content_type) = content_type else { return Ok(Self::Picture) };
        let text = String::from_utf8_lossy(content_type.as_bytes());
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Ok(Self::Json),
            "multipart/form-data" => Ok(Self::Multipart),
            "" | "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(Self::Picture),
            image if image.starts_with("image/") => Ok(Self::Picture),
            other => Err(Error::unsupported_media(format!(
                "pictures come as image/*, application/octet-stream, multipart/form-data or application/json, not as `{other}`"
            ))),
        }
    }
}

pub(super) async fn read_pictures(app: &App, headers: &HeaderMap, body: Bytes) -> Result<Vec<Bytes>> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let max_pictures = app.inference.limits().max_pictures;
    let pictures = match Form::of(content_type)? {
        Form::Picture if body.is_empty() => Vec::new(),
        Form::Picture => vec![body],
        Form::Json => {
            let max_depth = app.config.max_json_depth;
            off_worker(body.len(), move || read_json(&body, max_depth, max_pictures)).await?
        }
        Form::Multipart => read_multipart(content_type, body, max_pictures).await?,
    };
    if pictures.is_empty() {
        return Err(Error::invalid("there is no picture in the request"));
    }
    Ok(pictures)
}

fn read_json(body: &[u8], max_depth: usize, max_pictures: usize) -> Result<Vec<Bytes>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Images<'a> {
        #[serde(borrow)]
        images: &'a RawValue,
    }
    let request: Images = json::parse(body, max_depth, "a classify request")?;
    read_base64_list(request.images.get(), max_pictures)
}

async fn read_multipart(content_type: Option<&HeaderValue>, body: Bytes, max_pictures: usize) -> Result<Vec<Bytes>> {
    let broken = |reason: String| Error::invalid(format!("the multipart body is broken: {reason}"));
    let mut request = Request::new(Body::from(body));
    if let Some(content_type) = content_type {
        request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    // The body is in memory and under its limit by now, which axum's own limit, meant for streams, must not lower.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut parts = Multipart::from_request(request, &()).await.map_err(|rejection| broken(rejection.body_text()))?;
    let mut pictures = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(|error| broken(error.body_text()))? {
        if part.file_name().is_none() {
            let name = part.name().unwrap_or_default();
            return Err(Error::invalid(format!(
                "part `{name}` of the multipart body is not a file; options go into the query"
            )));
        }
        if pictures.len() == max_pictures {
            return Err(Error::too_large(format!("there are more than {max_pictures} pictures in the request")));
        }
        pictures.push(part.bytes().await.map_err(|error| broken(error.body_text()))?);
    }
    Ok(pictures)
}
