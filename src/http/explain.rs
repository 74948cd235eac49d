//! Explanations: `explain`, `filters`, `features` and `exciting` below a model's path.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::AppState;
use super::classify::read_pictures;
use super::error::HttpResult;
use super::extract::{Parameters, Payload, Target};
use super::json::off_worker;
use crate::error::{Error, Result};
use crate::explain::{ExcitingRequest, ExplainRequest, Explanation, Method, Rule, Unit};
use crate::preprocess::Frame;
use crate::repository::Model;

/// What may be said beside the picture, in the query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    #[serde(default, deserialize_with = "parsed")]
    method: Option<Method>,
    class: Option<usize>,
    layer: Option<String>,
    unit: Option<usize>,
    count: Option<usize>,
    patch: Option<usize>,
    stride: Option<usize>,
}

impl Options {
    pub(super) fn request(&self, picture: Bytes) -> ExplainRequest {
        ExplainRequest {
            picture,
            method: self.method,
            class: self.class,
            layer: self.layer.clone(),
            unit: self.unit,
            count: self.count.unwrap_or(1),
            patch: self.patch,
            stride: self.stride,
        }
    }
}

fn parsed<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

/// `POST /v1/models/M[/versions/V]/explain`.
pub(super) async fn explain(
    State(app): AppState,
    target: Target,
    Parameters(options): Parameters<Options>,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    let picture = single(read_pictures(&app, &headers, payload.bytes).await?)?;
    let explanation = app.explainer.explain(Arc::clone(&model), options.request(picture)).await?;
    if prefers_png(&headers) {
        return Ok(picture_response(explanation.png));
    }
    let numbers = explanation.heatmap.data.len();
    json_response(numbers, move || to_json(&model, &explanation)).await
}

/// `GET /v1/models/M[/versions/V]/filters`.
pub(super) async fn filters(State(app): AppState, target: Target, headers: HeaderMap) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    let filters = app.explainer.filters(Arc::clone(&model)).await?;
    if prefers_png(&headers) {
        return Ok(picture_response(filters.png));
    }
    json_response(filters.weights.len(), move || {
        let body = json!({
            "layer": filters.layer,
            "shape": filters.shape,
            "data": filters.weights,
            "png": STANDARD.encode(&filters.png),
        });
        of_model(&model, body)
    })
    .await
}

/// The layer that a request is about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeaturesOptions {
    layer: String,
}

/// `POST /v1/models/M[/versions/V]/features`.
pub(super) async fn features(
    State(app): AppState,
    target: Target,
    Parameters(options): Parameters<FeaturesOptions>,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    let picture = single(read_pictures(&app, &headers, payload.bytes).await?)?;
    let features = app.explainer.features(Arc::clone(&model), picture, options.layer).await?;
    if prefers_png(&headers) {
        return Ok(picture_response(features.png));
    }
    json_response(features.channels.len(), move || {
        let channels: Vec<_> = features
            .channels
            .iter()
            .map(|it| json!({"min": it.min, "max": it.max, "mean": it.mean, "std": it.std, "active": it.active}))
            .collect();
        let body = json!({
            "layer": features.layer,
            "shape": features.shape,
            "channels": channels,
            "png": STANDARD.encode(&features.png),
        });
        of_model(&model, body)
    })
    .await
}

/// The unit that a request is about, and how many pictures are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExcitingOptions {
    layer: String,
    unit: usize,
    #[serde(default = "default_count")]
    count: usize,
    #[serde(default, deserialize_with = "parsed")]
    method: Option<Method>,
}

/// The paper's figure has nine.
fn default_count() -> usize {
    9
}

/// `POST /v1/models/M[/versions/V]/exciting`.
pub(super) async fn exciting(
    State(app): AppState,
    target: Target,
    Parameters(options): Parameters<ExcitingOptions>,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let rule = match options.method {
        None => Rule::Deconvnet,
        Some(Method::Projection(rule)) => rule,
        Some(_) => return Err(Error::invalid("method must be deconvnet, guided or gradient here").into()),
    };
    let model = app.inference.model(&target.model, target.version)?;
    let pictures = read_pictures(&app, &headers, payload.bytes).await?;
    let request = ExcitingRequest { pictures, layer: options.layer, unit: options.unit, count: options.count, rule };
    let exciting = app.explainer.exciting(Arc::clone(&model), request).await?;
    if prefers_png(&headers) {
        return Ok(picture_response(exciting.png));
    }
    json_response(exciting.pictures.len(), move || {
        let pictures = exciting.pictures.iter().map(|it| {
            json!({
                "index": it.index,
                "activation": it.unit.activation,
                "row": it.unit.row,
                "column": it.unit.column,
                "frame": FrameJson(it.frame),
            })
        });
        let body = json!({
            "layer": exciting.layer,
            "unit": options.unit,
            "pictures": pictures.collect::<Vec<_>>(),
            "png": STANDARD.encode(&exciting.png),
        });
        of_model(&model, body)
    })
    .await
}

fn single(pictures: Vec<Bytes>) -> Result<Bytes> {
    let count = pictures.len();
    let Ok([picture]) = <[Bytes; 1]>::try_from(pictures) else {
        return Err(Error::invalid(format!("one picture is explained at a time, but {count} were given")));
    };
    Ok(picture)
}

/// The explanation as JSON.
pub(super) fn to_json(model: &Model, explanation: &Explanation) -> Value {
    let class = explanation.class.as_ref();
    let body = json!({
        "method": explanation.method.as_str(),
        "class": class.map(|it| json!({"index": it.index, "label": it.label.as_deref(), "score": it.score})),
        "layer": explanation.layer,
        "units": explanation.units.iter().map(unit_json).collect::<Vec<_>>(),
        "heatmap": {
            "shape": [explanation.heatmap.height, explanation.heatmap.width],
            "data": explanation.heatmap.data,
        },
        "frame": FrameJson(explanation.frame),
        "png": STANDARD.encode(&explanation.png),
    });
    of_model(model, body)
}

fn unit_json(unit: &Unit) -> Value {
    json!({"unit": unit.unit, "row": unit.row, "column": unit.column, "activation": unit.activation})
}

struct FrameJson(Frame);

impl Serialize for FrameJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Frame { picture_width, picture_height, x, y, width, height } = self.0;
        let frame = json!({
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "picture_width": picture_width,
            "picture_height": picture_height,
        });
        frame.serialize(serializer)
    }
}

fn of_model(model: &Model, mut body: Value) -> Value {
    body["model_name"] = model.name().into();
    body["model_version"] = model.version().to_string().into();
    body
}

fn picture_response(png: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "image/png")], png).into_response()
}

/// JSON of about so many numbers and a picture.
async fn json_response(numbers: usize, body: impl FnOnce() -> Value + Send + 'static) -> HttpResult<Response> {
    /// What a number takes as text, and more than a picture as a rule.
    const NUMBER_BYTES: usize = 20;
    const PICTURE_BYTES: usize = 128 << 10;
    Ok(off_worker(numbers * NUMBER_BYTES + PICTURE_BYTES, move || Ok(Json(body()).into_response())).await?)
}

/// Whether `Accept` ranks PNG before JSON.
fn prefers_png(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<(&str, f32)> = values
        .flat_map(|value| value.split(','))
        .map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|quality| quality.parse().ok());
            (name, quality.unwrap_or(1.0))
        })
        .collect();
    // As in RFC 9110, the most specific range that holds counts.
    let quality = |names: [&str; 3]| {
        let of = |name| ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, quality)| *quality);
        names.into_iter().find_map(of).unwrap_or(0.0)
    };
    quality(["image/png", "image/*", "*/*"]) > quality(["application/json", "application/*", "*/*"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_is_answered_where_it_is_preferred() {
        for (accept, png) in [
            ("image/png", true),
            ("image/*", true),
            ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", true),
            ("application/json;q=0.5, image/png", true),
            ("*/*", false),
            ("application/json, image/png;q=0.9", false),
            ("application/json, image/png", false),
            ("text/html", false),
            ("image/png;q=0, */*", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(prefers_png(&headers), png, "{accept}");
        }
        assert!(!prefers_png(&HeaderMap::new()));
    }
}
