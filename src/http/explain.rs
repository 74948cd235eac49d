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
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::AppState;
use super::classify::read_pictures;
use super::error::HttpResult;
use super::extract::{Parameters, Payload, Target};
use super::json::off_worker;
use super::openapi::{Operation, Tag, png_schema};
use crate::error::{Error, Result};
use crate::explain::{
    ChannelStatistics, ExcitingPicture, ExcitingRequest, ExplainRequest, Explanation, Method, Rule, Unit,
};
use crate::preprocess::Frame;
use crate::repository::Model;

/// What may be said beside the picture, in the query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// `cam`, `gradcam`, `occlusion`, `deconvnet`, `guided` or `gradient`; `cam` where the head allows it, else `gradcam`.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(with = "Option<String>")]
    method: Option<Method>,
    /// The class that is asked about, by its index; the most probable one.
    class: Option<usize>,
    /// The layer whose maps are weighted, or whose units are taken back.
    layer: Option<String>,
    /// The unit of the layer that is taken back: a channel; the strongest.
    unit: Option<usize>,
    /// How many of the strongest units are taken back, each by itself.
    #[schemars(range(min = 1, max = 16))]
    count: Option<usize>,
    /// Of occlusion: the side of the square, in pixels of the network's input; a sixth of that.
    patch: Option<usize>,
    /// Of occlusion: how far the square moves; half of the patch.
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

/// What the document says of [`explain`].
pub(super) fn operation() -> Operation {
    Operation::new("explain", Tag::Explain, "Why a model answers what it does, or what a unit sees")
        .description("One picture. `Accept: image/png` asks for the picture alone.")
        .query::<Options>()
        .pictures()
        .answers::<ExplanationJson>("The explanation.")
        .answers_bytes("The explanation.", "image/png")
        .refused_with(&[501, 504])
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
    json_response(numbers, move || ExplanationJson::new(&model, &explanation)).await
}

/// What the document says of [`filters`].
pub(super) fn filters_operation() -> Operation {
    Operation::new("filters", Tag::Explain, "The filters of the first convolution")
        .description("For models whose first convolution sees three channels.")
        .answers::<FiltersJson>("The weights, and a grid of the filters.")
        .answers_bytes("The weights, and a grid of the filters.", "image/png")
        .refused_with(&[429])
}

/// `GET /v1/models/M[/versions/V]/filters`.
pub(super) async fn filters(State(app): AppState, target: Target, headers: HeaderMap) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    let filters = app.explainer.filters(Arc::clone(&model)).await?;
    if prefers_png(&headers) {
        return Ok(picture_response(filters.png));
    }
    json_response(filters.weights.len(), move || FiltersJson {
        model: ModelJson::of(&model),
        layer: filters.layer,
        shape: filters.shape,
        data: filters.weights,
        png: STANDARD.encode(&filters.png),
    })
    .await
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Filters")]
struct FiltersJson {
    #[serde(flatten)]
    model: ModelJson,
    layer: String,
    /// Filters, 3, height, width.
    shape: [usize; 4],
    /// The weights, row-major.
    data: Vec<f32>,
    #[schemars(schema_with = "png_schema")]
    png: String,
}

/// The layer that a request is about.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FeaturesOptions {
    /// Its name, as `/architecture` has it.
    layer: String,
}

/// What the document says of [`features`].
pub(super) fn features_operation() -> Operation {
    Operation::new("features", Tag::Explain, "What a layer makes of a picture")
        .query::<FeaturesOptions>()
        .pictures()
        .answers::<FeaturesJson>("A grid of the layer's maps, and statistics of its channels.")
        .answers_bytes("A grid of the layer's maps, and statistics of its channels.", "image/png")
        .refused_with(&[501])
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
    json_response(features.channels.len(), move || FeaturesJson {
        model: ModelJson::of(&model),
        layer: features.layer,
        shape: features.shape,
        channels: features.channels.iter().map(ChannelJson::from).collect(),
        png: STANDARD.encode(&features.png),
    })
    .await
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Features")]
struct FeaturesJson {
    #[serde(flatten)]
    model: ModelJson,
    layer: String,
    /// Channels, height, width.
    shape: Vec<usize>,
    channels: Vec<ChannelJson>,
    #[schemars(schema_with = "png_schema")]
    png: String,
}

/// The values of a channel.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Channel")]
struct ChannelJson {
    min: f32,
    max: f32,
    mean: f32,
    std: f32,
    /// The share of values above zero.
    active: f32,
}

impl From<&ChannelStatistics> for ChannelJson {
    fn from(&ChannelStatistics { min, max, mean, std, active }: &ChannelStatistics) -> Self {
        Self { min, max, mean, std, active }
    }
}

/// The unit that a request is about, and how many pictures are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExcitingOptions {
    /// The layer's name.
    layer: String,
    /// The unit: a channel of the layer.
    unit: usize,
    /// How many pictures are wanted.
    #[serde(default = "default_count")]
    count: usize,
    /// `deconvnet`, `guided` or `gradient`; `deconvnet`.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(with = "Option<String>")]
    method: Option<Method>,
}

/// The paper's figure has nine.
fn default_count() -> usize {
    9
}

/// What the document says of [`exciting`].
pub(super) fn exciting_operation() -> Operation {
    Operation::new("exciting", Tag::Explain, "Which of the pictures excite a unit most")
        .query::<ExcitingOptions>()
        .pictures()
        .answers::<ExcitingJson>("The most exciting first, each beside what came back of it.")
        .answers_bytes("The most exciting first, each beside what came back of it.", "image/png")
        .refused_with(&[501])
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
    json_response(exciting.pictures.len(), move || ExcitingJson {
        model: ModelJson::of(&model),
        layer: exciting.layer,
        unit: options.unit,
        pictures: exciting.pictures.iter().map(ExcitingPictureJson::from).collect(),
        png: STANDARD.encode(&exciting.png),
    })
    .await
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Exciting")]
struct ExcitingJson {
    #[serde(flatten)]
    model: ModelJson,
    layer: String,
    unit: usize,
    pictures: Vec<ExcitingPictureJson>,
    #[schemars(schema_with = "png_schema")]
    png: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExcitingPicture")]
struct ExcitingPictureJson {
    /// Its place in the request.
    index: usize,
    activation: f32,
    /// The row of the layer's map in which the unit is strongest.
    row: usize,
    /// Its column.
    column: usize,
    /// What the unit sees.
    frame: FrameJson,
}

impl From<&ExcitingPicture> for ExcitingPictureJson {
    fn from(ExcitingPicture { index, unit, frame, .. }: &ExcitingPicture) -> Self {
        Self { index: *index, activation: unit.activation, row: unit.row, column: unit.column, frame: (*frame).into() }
    }
}

fn single(pictures: Vec<Bytes>) -> Result<Bytes> {
    let count = pictures.len();
    let Ok([picture]) = <[Bytes; 1]>::try_from(pictures) else {
        return Err(Error::invalid(format!("one picture is explained at a time, but {count} were given")));
    };
    Ok(picture)
}

/// The explanation as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Explanation")]
pub(super) struct ExplanationJson {
    #[serde(flatten)]
    model: ModelJson,
    method: &'static str,
    /// The class that was explained; `null` for the units of a layer.
    class: Option<ClassJson>,
    /// The layer that was used; `null` for occlusion.
    layer: Option<String>,
    /// The units that were taken back.
    units: Vec<UnitJson>,
    heatmap: HeatmapJson,
    frame: FrameJson,
    #[schemars(schema_with = "png_schema")]
    png: String,
}

impl ExplanationJson {
    pub(super) fn new(model: &Model, explanation: &Explanation) -> Self {
        let class = explanation.class.as_ref();
        Self {
            model: ModelJson::of(model),
            method: explanation.method.as_str(),
            class: class.map(|it| ClassJson {
                index: it.index,
                label: it.label.as_deref().map(ToOwned::to_owned),
                score: it.score,
            }),
            layer: explanation.layer.clone(),
            units: explanation.units.iter().map(UnitJson::from).collect(),
            heatmap: HeatmapJson {
                shape: [explanation.heatmap.height, explanation.heatmap.width],
                data: explanation.heatmap.data.clone(),
            },
            frame: explanation.frame.into(),
            png: STANDARD.encode(&explanation.png),
        }
    }
}

/// The model that answered.
#[derive(Serialize, JsonSchema)]
struct ModelJson {
    model_name: String,
    model_version: String,
}

impl ModelJson {
    fn of(model: &Model) -> Self {
        Self { model_name: model.name().to_owned(), model_version: model.version().to_string() }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExplainedClass")]
struct ClassJson {
    index: usize,
    /// `null` for a model without labels.
    label: Option<String>,
    score: f32,
}

/// A unit that was taken back: a channel of a layer, where it is strongest.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Unit")]
struct UnitJson {
    unit: usize,
    row: usize,
    column: usize,
    activation: f32,
}

impl From<&Unit> for UnitJson {
    fn from(&Unit { unit, row, column, activation, .. }: &Unit) -> Self {
        Self { unit, row, column, activation }
    }
}

/// Values that lie evenly over the frame.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Heatmap")]
struct HeatmapJson {
    /// Height and width.
    shape: [usize; 2],
    /// The rows, one after the other.
    data: Vec<f32>,
}

/// A part of the picture that has been turned upright, in its pixels; it may reach beyond.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Frame")]
struct FrameJson {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    picture_width: u32,
    picture_height: u32,
}

impl From<Frame> for FrameJson {
    fn from(Frame { picture_width, picture_height, x, y, width, height }: Frame) -> Self {
        Self { x, y, width, height, picture_width, picture_height }
    }
}

fn picture_response(png: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "image/png")], png).into_response()
}

/// JSON of about so many numbers and a picture.
async fn json_response<T: Serialize>(
    numbers: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> HttpResult<Response> {
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
