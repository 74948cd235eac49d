//! `POST …:predict`: the row form of TensorFlow Serving and of KServe's V1 protocol. Pictures give classes, tensors give the
//! model's own output.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::classify::{Options, PredictionJson};
use super::error::HttpResult;
use super::explain::{self, ExplanationJson, OfModel, json_response};
use super::extract::{Payload, Verb, VerbTarget, query};
use super::json::{self, Object, off_worker};
use super::openapi::{Operation, Tag, base64};
use super::tensor_json::{NestedJson, read_base64, read_tensor, shape_of};
use super::{App, AppState};
use crate::error::{Error, Result};
use crate::inference::{ClassifyRequest, InferRequest};
use crate::repository::Model;
use crate::serde_words::in_words;
use crate::tensor::{DataType, Tensor};

/// What the document says of [`named_model`], for each verb.
pub(super) fn operations() -> [(&'static str, Operation); 2] {
    let instances = |items: Value| {
        json!({
            "type": "object",
            "required": ["instances"],
            "properties": {
                "instances": {"type": "array", "items": items},
                "parameters": {"type": "object", "description": "The query's parameters, in the place of those of the query."},
            },
        })
    };
    let picture = json!({
        "type": "object",
        "description": "A picture.",
        "properties": {
            "b64": base64("The picture."),
            "image_bytes": {"type": "object", "required": ["b64"], "properties": {"b64": base64("The picture.")}},
        },
    });
    let row = json!({"type": "array", "description": "One row of the model's input, nested as its shape."});
    let predictions = json!({
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {
            "type": "array",
            "description": "One for each instance: classes of a picture, a row of the model's output for a tensor.",
        }},
    });
    let predict =
        Operation::new("predict", Tag::Classify, "Predict in the row form of TensorFlow Serving and KServe V1")
            .query::<Options>()
            .json_body(instances(json!({"anyOf": [picture, row]})))
            .answers_json("The predictions, in order.", predictions)
            .refused_with(&[415, 504]);
    let explain = Operation::new("explain_instances", Tag::Explain, "Explain in the form of KServe V1")
        .query::<explain::Options>()
        .json_body(instances(picture))
        .answers::<ExplanationsJson>("The explanations, in order.")
        .refused_with(&[409, 415, 501, 504]);
    [("predict", predict), ("explain", explain)]
}

/// `POST /v1/models/M[/versions/V]:predict` and `:explain`.
pub(super) async fn named_model(
    State(app): AppState,
    VerbTarget { target, verb }: VerbTarget,
    uri: Uri,
    payload: Payload,
) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    match verb {
        Verb::Predict => predict(&app, model, query(&uri)?, payload).await,
        Verb::Explain => explain(&app, model, &query(&uri)?, payload).await,
    }
}

/// KServe V1's `:explain`: an explanation for each picture, one after the other.
async fn explain(app: &App, model: Arc<Model>, options: &explain::Options, payload: Payload) -> HttpResult<Response> {
    let mut admission = options.admit(app, &model, &payload)?;
    let limits = ReadLimits::of(app);
    let data_type = model.input().data_type;
    let bytes = payload.bytes.clone();
    let read = off_worker(bytes.len(), move || read(&bytes, "an explain request", data_type, limits)).await;
    let (instances, parameters): (_, Option<explain::Options>) = admission.note(read)?;
    let options = parameters.as_ref().unwrap_or(options);
    admission.change(options.work(), options.deadline(&payload));
    let pictures = match instances {
        Instances::Pictures(pictures) => pictures,
        Instances::Tensor(tensor) if tensor.shape() == [0] => {
            admission.note(Err(Error::invalid("at least one picture must be given")))?
        }
        Instances::Tensor(_) => admission.note(Err(Error::invalid("pictures are explained, not tensors")))?,
    };
    let (mut explanations, mut numbers) = (Vec::new(), 0);
    for (index, picture) in pictures.into_iter().enumerate() {
        let explanation = admission.explain(options.request(picture)).await;
        let explanation =
            explanation.map_err(|error| error.map_message(|message| format!("picture {index}: {message}")))?;
        numbers += explanation.heatmap.data.len();
        explanations.push(OfModel::new(&model, explanation.into()));
    }
    json_response(numbers, move || ExplanationsJson { explanations }).await
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Explanations")]
struct ExplanationsJson {
    /// One for each picture, in order.
    explanations: Vec<OfModel<ExplanationJson>>,
}

/// Has `model` answer the instances of a request.
pub(super) async fn predict(
    app: &App,
    model: Arc<Model>,
    mut options: Options,
    payload: Payload,
) -> HttpResult<Response> {
    let mut admission = app.inference.admit_unparsed(Arc::clone(&model), options.context(&payload))?;
    let limits = ReadLimits::of(app);
    let data_type = model.input().data_type;
    let read =
        off_worker(payload.bytes.len(), move || read(&payload.bytes, "a predict request", data_type, limits)).await;
    let (instances, parameters) = match read {
        Ok(request) => request,
        Err(error) => {
            admission.reject(&error);
            return Err(error.into());
        }
    };
    if let Some(parameters) = parameters {
        options = parameters;
        admission.context_mut().priority = options.priority();
        admission.context_mut().timeout = options.timeout();
    }
    match instances {
        Instances::Pictures(pictures) => {
            let request = ClassifyRequest { pictures, top_k: options.top_k, aux: options.aux };
            let answer = app.inference.classify(admission, request).await?;
            let predictions = answer.predictions.iter().map(PredictionJson::from).collect::<Vec<_>>();
            Ok(Json(AnswerJson { predictions }).into_response())
        }
        Instances::Tensor(tensor) => {
            let rows = tensor.shape()[0];
            let inputs = vec![(model.input().name.clone(), tensor)];
            let answer =
                app.inference.infer(admission, InferRequest { inputs, outputs: Vec::new(), top_k: None }).await?;
            let bytes = answer.outputs.iter().map(|(_, tensor)| tensor.bytes().len()).sum();
            Ok(off_worker(bytes, move || write(&answer.outputs, rows)).await?)
        }
    }
}

/// The limits that reading a request obeys.
#[derive(Debug, Clone, Copy)]
struct ReadLimits {
    json_depth: usize,
    pictures: usize,
    tensor_bytes: usize,
}

impl ReadLimits {
    fn of(app: &App) -> Self {
        Self {
            json_depth: app.config.max_json_depth,
            pictures: app.inference.limits().max_pictures,
            tensor_bytes: app.inference.limits().max_tensor_bytes,
        }
    }
}

/// What a request brings: all of one kind.
#[derive(Debug)]
enum Instances {
    Pictures(Vec<Bytes>),
    /// One row for each instance.
    Tensor(Tensor),
}

/// Other keys, `signature_name` for instance, say nothing here and are ignored.
#[derive(Deserialize)]
struct RequestJson<'a, P> {
    #[serde(borrow)]
    instances: &'a RawValue,
    /// Vertex AI's place for options, which has no query. They go before the query's.
    parameters: Option<Object<P>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PictureJson<'a> {
    #[serde(borrow)]
    b64: Option<&'a RawValue>,
    #[serde(borrow)]
    image_bytes: Option<Object<Base64Json<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64Json<'a> {
    #[serde(borrow)]
    b64: &'a RawValue,
}

/// Reads a request's instances. Numbers become a tensor of `data_type`.
fn read<P: DeserializeOwned>(
    body: &[u8],
    what: &str,
    data_type: DataType,
    limits: ReadLimits,
) -> Result<(Instances, Option<P>)> {
    let request: RequestJson<P> = json::parse(body, limits.json_depth, what)?;
    let instances = request.instances.get();
    let first = instances.strip_prefix('[').map(str::trim_ascii_start);
    let instances = if first.is_some_and(|first| first.starts_with('{')) {
        Instances::Pictures(read_pictures(instances, limits.pictures)?)
    } else {
        let shape =
            shape_of(instances).map_err(|error| error.map_message(|message| format!("instances: {message}")))?;
        Instances::Tensor(read_tensor(instances, data_type, shape, limits.tensor_bytes)?)
    };
    Ok((instances, request.parameters.map(|Object(parameters)| parameters)))
}

fn read_pictures(instances: &str, max_pictures: usize) -> Result<Vec<Bytes>> {
    let list = AtMost::<Object<PictureJson>>::new(max_pictures + 1);
    let pictures = list.deserialize(&mut serde_json::Deserializer::from_str(instances)).map_err(|error| {
        Error::invalid(format!("the instances are not all pictures as the first is: {}", in_words(&error)))
    })?;
    if pictures.len() > max_pictures {
        return Err(Error::too_large(format!("there are more than {max_pictures} pictures in the request")));
    }
    let read = |(index, Object(picture)): (usize, &Object<PictureJson>)| match (&picture.b64, &picture.image_bytes) {
        (Some(b64), None) | (None, Some(Object(Base64Json { b64 }))) => read_base64(b64.get(), index),
        _ => Err(Error::invalid(format!(
            "instance {index} is neither {{\"b64\": …}} nor {{\"image_bytes\": {{\"b64\": …}}}}"
        ))),
    };
    pictures.iter().enumerate().map(read).collect()
}

/// The first so many elements of a list. Those behind are only skipped, so that a short body can't ask for much memory by
/// naming many small things.
struct AtMost<T> {
    count: usize,
    element: PhantomData<T>,
}

impl<T> AtMost<T> {
    fn new(count: usize) -> Self {
        Self { count, element: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while list.len() < self.count {
            let Some(element) = elements.next_element()? else { return Ok(list) };
            list.push(element);
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(list)
    }
}

#[derive(Serialize)]
struct AnswerJson<T> {
    predictions: T,
}

/// A model with one output answers its rows; one with several, an object of them for each row.
fn write(outputs: &[(String, Tensor)], rows: usize) -> Result<Response> {
    let outputs = outputs
        .iter()
        .map(|(name, tensor)| match tensor.shape().first() {
            Some(&found) if found == rows => Ok((name.as_str(), NestedJson::new(name, tensor)?)),
            _ => {
                Err(Error::invalid(format!("the output {name} has no row for each instance: ask for it by V2's infer")))
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let body = match outputs.as_slice() {
        [(_, output)] => serde_json::to_vec(&AnswerJson { predictions: output }),
        outputs => {
            let predictions = (0..rows).map(|row| RowJson { outputs, row }).collect::<Vec<_>>();
            serde_json::to_vec(&AnswerJson { predictions })
        }
    };
    let body = body.map_err(|error| Error::internal("the answer could not be written as JSON").with_source(error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// One row of several outputs.
struct RowJson<'a> {
    outputs: &'a [(&'a str, NestedJson)],
    row: usize,
}

impl Serialize for RowJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.outputs.len()))?;
        for (name, output) in self.outputs {
            map.serialize_entry(name, &output.row(self.row))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
