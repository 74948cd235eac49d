//! `GET /v1/models`: what there is to use.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::error::HttpResult;
use super::extract::Target;
use super::openapi::{Operation, Tag};
use super::{App, AppState};
use crate::error::Error;
use crate::repository::{Kind, ModelState};

/// `GET /v1/models`: the names, as KServe's V1 protocol lists them, and details.
pub(super) async fn list(State(app): AppState) -> Response {
    let details: Vec<Details> = all_details(&app).into_values().collect();
    let models = details.iter().map(|details| details.name.clone()).collect();
    Json(ListJson { models, details }).into_response()
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Models")]
struct ListJson {
    /// The names, as KServe's V1 protocol lists them.
    models: Vec<String>,
    details: Vec<Details>,
}

/// What the document says of [`list`].
pub(super) fn list_operation() -> Operation {
    Operation::new("models", Tag::Models, "The models and their states").answers::<ListJson>("Every model.")
}

/// `GET /v1/models/M`: whether it is ready, and its details.
pub(super) async fn show(State(app): AppState, target: Target) -> HttpResult<Response> {
    let details = all_details(&app)
        .remove(&target.model)
        .ok_or_else(|| Error::not_found(format!("there is no model called {}", target.model)))?;
    Ok(Json(ModelJson { ready: details.state == ModelState::Ready.as_str(), details }).into_response())
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
struct ModelJson {
    ready: bool,
    #[serde(flatten)]
    details: Details,
}

/// What the document says of [`show`].
pub(super) fn operation() -> Operation {
    Operation::new("model", Tag::Models, "One model").answers::<ModelJson>("Its details.")
}

/// One model. What its newest ready version knows of itself is absent while none is ready.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ModelDetails")]
struct Details {
    name: String,
    /// The versions that are ready, ascending.
    versions: Vec<String>,
    /// When each of these was loaded, in milliseconds since 1970; of an ensemble, when it or one of its members was last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    loaded_ms: BTreeMap<String, u64>,
    /// `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    state: &'static str,
    /// Why it, or one of its versions, is not ready, or why what is ready is not what the last load was to bring.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_size: Option<InputSize>,
    /// The execution provider that really runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
    /// An ensemble's members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<String>,
}

/// The network's input, in pixels.
#[derive(Debug, Serialize, JsonSchema)]
struct InputSize {
    height: usize,
    width: usize,
}

fn all_details(app: &App) -> BTreeMap<String, Details> {
    let mut all = BTreeMap::new();
    for entry in app.inference.index(false) {
        let details = all.entry(entry.name.clone()).or_insert_with(|| Details {
            name: entry.name,
            versions: Vec::new(),
            loaded_ms: BTreeMap::new(),
            state: entry.state.as_str(),
            reason: String::new(),
            classes: None,
            input_size: None,
            provider: None,
            members: Vec::new(),
        });
        if entry.state == ModelState::Ready {
            details.state = ModelState::Ready.as_str();
            details.versions.extend(entry.version.map(|version| version.to_string()));
        }
        if details.reason.is_empty() {
            details.reason = entry.reason;
        }
    }
    let mut ready = app.inference.ready_models();
    ready.sort_by_key(|model| model.version());
    for model in ready {
        if let Some(details) = all.get_mut(model.name()) {
            details.classes = model.class_count();
            details.loaded_ms.insert(model.version().to_string(), model.loaded_ms());
            match model.kind() {
                Kind::Graph(graph) => {
                    let (height, width) = graph.input_size();
                    details.input_size = Some(InputSize { height, width });
                    details.provider = Some(graph.provider());
                }
                Kind::Ensemble(ensemble) => {
                    details.members = ensemble.members().iter().map(|member| member.name.clone()).collect();
                }
            }
        }
    }
    all
}
