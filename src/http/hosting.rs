//! What hosting platforms ask of a container: SageMaker's two paths, and the two that Vertex AI names when it starts one.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::AppState;
use super::classify::{Form, Options, classify};
use super::error::HttpResult;
use super::extract::{Parameters, Payload};
use super::json;
use super::openapi::{Operation, Tag};
use super::predict::predict;

/// What the document says of [`invoke`].
pub(super) fn operation() -> Operation {
    Operation::new("invoke", Tag::Classify, "Classify or predict with the default model, as hosting platforms ask")
        .description("The form of classify or, for JSON with `instances`, of predict.")
        .query::<Options>()
        .pictures()
        .answers_json("The answer of classify or of predict.", json!({"type": "object", "required": ["predictions"]}))
        .refused_with(&[404, 503, 504])
}

/// `POST /invocations` and Vertex AI's predict route: the default model, in the form of `/v1/classify` or, for JSON with
/// instances, of `:predict`.
pub(super) async fn invoke(
    State(app): AppState,
    Parameters(options): Parameters<Options>,
    headers: HeaderMap,
    payload: Payload,
) -> HttpResult<Response> {
    #[derive(Deserialize)]
    struct Keys {
        instances: Option<IgnoredAny>,
    }
    let model = app.inference.default_model("configure a default, since this path names none")?;
    if Form::of(headers.get(header::CONTENT_TYPE))? == Form::Json {
        let keys: Keys = json::parse(&payload.bytes, app.config.max_json_depth, "a request with images or instances")?;
        if keys.instances.is_some() {
            return predict(&app, model, options, payload).await;
        }
    }
    classify(&app, model, &options, &headers, payload).await
}
