//! `GET /v1/models/M/architecture`: the layers of a model and what they cost.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::AppState;
use super::error::HttpResult;
use super::explain::NoOptions;
use super::extract::{Parameters, Target};
use super::openapi::{Operation, Tag};
use crate::error::Error;
use crate::zoo::describe::Description;

/// The costs for one picture, of the version that the path names or else of the newest.
pub(super) async fn show(
    State(app): AppState,
    target: Target,
    Parameters(NoOptions {}): Parameters<NoOptions>,
) -> HttpResult<Response> {
    let model = app.inference.model(&target.model, target.version)?;
    let Some(graph) = model.graph() else {
        let members: Vec<_> = model.members().into_iter().map(|member| member.name).collect();
        let message = format!("the model {} is an ensemble: ask for its members, {}", model.name(), members.join(", "));
        return Err(Error::invalid(message).into());
    };
    let version = model.version().to_string();
    Ok(Json(AnswerJson { model: model.name(), version, description: graph.description() }).into_response())
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Architecture")]
struct AnswerJson<'a> {
    model: &'a str,
    version: String,
    #[serde(flatten)]
    description: &'a Description,
}

/// What the document says of [`show`].
pub(super) fn operation() -> Operation {
    Operation::new("architecture", Tag::Explain, "The layers of a model and what they cost")
        .query::<NoOptions>()
        .answers::<AnswerJson>("The costs for one picture, layer by layer.")
}
