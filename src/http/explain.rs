//! Explanations: `explain`, `filters`, `features` and `exciting` below a model's path, and the verb `:explain`.

mod json;
mod options;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use self::json::{ExcitingJson, FeaturesJson, FiltersJson};
pub(super) use self::json::{ExplanationJson, OfModel};
use self::options::{ExcitingOptions, FeaturesOptions};
pub(super) use self::options::{NoOptions, Options};
use super::classify::read_pictures;
use super::error::HttpResult;
use super::extract::{Parameters, Payload, Target};
use super::json::off_worker;
use super::openapi::{Operation, Tag};
use super::{App, AppState};
use crate::error::{Error, Result};
use crate::explain::{ExcitingRequest, Method, Rule, Work};

/// Tells what keeps answers, a proxy for instance, that one for another `Accept` is another.
const VARIES: (HeaderName, &str) = (header::VARY, "accept");

/// What the document says of [`explain`].
pub(super) fn operation() -> Operation {
    answers_a_picture::<ExplanationJson>(
        Operation::new("explain", Tag::Explain, "Why a model answers what it does, or what a unit sees")
            .query::<Options>()
            .pictures()
            .refused_with(&[409, 501, 504]),
        "The explanation.",
    )
}

/// `operation` with an answer in JSON or, for `Accept: image/png`, the picture alone.
fn answers_a_picture<T: JsonSchema + Serialize>(operation: Operation, description: &'static str) -> Operation {
    operation
        .description("The picture alone where `Accept` ranks `image/png` above `application/json`, else JSON.")
        .answers::<OfModel<T>>(description)
        .answers_bytes(description, "image/png")
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
    let mut admission = options.admit(&app, &model, &payload)?;
    let picture = admission.note(read_picture(&app, &headers, payload.bytes).await)?;
    let explanation = admission.explain(options.request(picture)).await?;
    if prefers_png(&headers) {
        return Ok(picture_response(explanation.png));
    }
    let numbers = explanation.heatmap.data.len();
    numbers_response(numbers, move || OfModel::new(&model, ExplanationJson::from(explanation))).await
}

/// What the document says of [`filters`].
pub(super) fn filters_operation() -> Operation {
    answers_a_picture::<FiltersJson>(
        Operation::new("filters", Tag::Explain, "The filters of the first convolution")
            .query::<NoOptions>()
            .refused_with(&[409, 429]),
        "The weights, and a grid of the filters.",
    )
}

/// `GET /v1/models/M[/versions/V]/filters`.
pub(super) async fn filters(
    State(app): AppState,
    target: Target,
    Parameters(NoOptions {}): Parameters<NoOptions>,
    headers: HeaderMap,
) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    let filters = app.explainer.admit(Arc::clone(&model), Work::Filters, None)?.filters().await?;
    if prefers_png(&headers) {
        return Ok(picture_response(filters.png));
    }
    numbers_response(filters.weights.len(), move || OfModel::new(&model, FiltersJson::from(filters))).await
}

/// What the document says of [`features`].
pub(super) fn features_operation() -> Operation {
    answers_a_picture::<FeaturesJson>(
        Operation::new("features", Tag::Explain, "What a layer makes of a picture")
            .query::<FeaturesOptions>()
            .pictures()
            .refused_with(&[409, 501, 504]),
        "A grid of the layer's maps, and statistics of its channels.",
    )
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
    let layer = options.layer(&model)?;
    let deadline = options.deadline(&payload);
    let mut admission = app.explainer.admit(Arc::clone(&model), Work::Features, deadline)?;
    let picture = admission.note(read_picture(&app, &headers, payload.bytes).await)?;
    let features = admission.features(picture, layer).await?;
    if prefers_png(&headers) {
        return Ok(picture_response(features.png));
    }
    numbers_response(features.channels.len(), move || OfModel::new(&model, FeaturesJson::from(features))).await
}

/// What the document says of [`exciting`].
pub(super) fn exciting_operation() -> Operation {
    answers_a_picture::<ExcitingJson>(
        Operation::new("exciting", Tag::Explain, "Which of the pictures excite a unit most")
            .query::<ExcitingOptions>()
            .pictures()
            .refused_with(&[409, 501, 504]),
        "The most exciting first, each beside what came back of it.",
    )
}

/// `POST /v1/models/M[/versions/V]/exciting`.
pub(super) async fn exciting(
    State(app): AppState,
    target: Target,
    Parameters(options): Parameters<ExcitingOptions>,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    let rule = options.method.map_or(Ok(Rule::Deconvnet), Method::rule)?;
    let model = app.inference.model(&target.model, target.version)?;
    let (layer, unit) = options.unit(&model)?;
    let deadline = options.deadline(&payload);
    let mut admission = app.explainer.admit(Arc::clone(&model), Work::Exciting, deadline)?;
    let pictures = admission.note(read_pictures(&app, &headers, payload.bytes).await)?;
    let count = options.count.unwrap_or(ExcitingRequest::DEFAULT_COUNT);
    let request = ExcitingRequest { layer, unit, count, rule, leaves_out_broken: false };
    let pictures = pictures.into_iter().enumerate().map(|(index, bytes)| (format!("picture {index}"), Ok(bytes)));
    let exciting = admission.exciting(request, pictures).await?;
    if prefers_png(&headers) {
        let none = || {
            let message = format!("unit {unit} of {} is not above zero in any of the pictures", exciting.layer);
            Error::not_found(message)
        };
        return Ok(picture_response(exciting.png.ok_or_else(none)?));
    }
    numbers_response(0, move || OfModel::new(&model, ExcitingJson::new(unit, exciting))).await
}

async fn read_picture(app: &App, headers: &HeaderMap, body: Bytes) -> Result<Bytes> {
    let pictures = read_pictures(app, headers, body).await?;
    let count = pictures.len();
    let Ok([picture]) = <[Bytes; 1]>::try_from(pictures) else {
        return Err(Error::invalid(format!("one picture is explained at a time, but {count} were given")));
    };
    Ok(picture)
}

fn picture_response(png: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "image/png"), VARIES], png).into_response()
}

/// The other of the two forms of an answer.
async fn numbers_response<T: Serialize>(
    numbers: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> HttpResult<Response> {
    let mut response = json_response(numbers, body).await?;
    let (name, value) = VARIES;
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    Ok(response)
}

/// JSON of about so many numbers and a picture.
pub(super) async fn json_response<T: Serialize>(
    numbers: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> HttpResult<Response> {
    /// What a number takes as text, and more than a picture as a rule.
    const NUMBER_BYTES: usize = 12;
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
