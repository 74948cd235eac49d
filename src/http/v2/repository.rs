//! The repository extension: the index, loading and unloading.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::{Payload, Target};
use crate::http::json::{self, off_worker};
use crate::http::openapi::{Operation, Tag};
use crate::repository::{Overrides, unloads_members};

/// `POST /v2/repository/index`: every model and version with its state. The body may be empty.
pub(super) async fn index(State(app): AppState, payload: Payload) -> HttpResult<Response> {
    #[derive(Deserialize, Default)]
    struct Query {
        #[serde(default)]
        ready: bool,
    }
    let query = if payload.bytes.is_empty() {
        Query::default()
    } else {
        json::parse(&payload.bytes, app.config.max_json_depth, "an index request")?
    };
    let rows = app.inference.full_index(query.ready).await?.into_iter().map(|entry| RowJson {
        name: entry.name,
        version: entry.version.map(|version| version.to_string()),
        state: entry.state.as_str(),
        reason: entry.reason,
    });
    Ok(Json(rows.collect::<Vec<_>>()).into_response())
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "IndexRow")]
struct RowJson {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// `READY`, `UNAVAILABLE`, `LOADING`, `UNLOADING` or `UNKNOWN`.
    state: &'static str,
    /// Why it is not ready, where something is to be said.
    reason: String,
}

/// What the document says of [`index`].
pub(super) fn index_operation() -> Operation {
    Operation::new("repository_index", Tag::Management, "Every model and version with its state")
        .json_body(json!({
            "type": "object",
            "properties": {"ready": {"type": "boolean", "default": false, "description": "Only what is ready."}},
        }))
        .optional_body()
        .answers::<Vec<RowJson>>("The models and versions.")
}

#[derive(Deserialize, Default)]
struct Request {
    #[serde(default)]
    parameters: BTreeMap<String, serde_json::Value>,
}

impl Request {
    fn read(payload: &[u8], max_depth: usize, what: &str) -> Result<Self> {
        if payload.is_empty() { Ok(Self::default()) } else { json::parse(payload, max_depth, what) }
    }
}

/// What the document says of [`load`].
pub(super) fn load_operation() -> Operation {
    let parameters = json!({
        "type": "object",
        "description": "`config`, the model's configuration as text, and `file:<version>/<name>`, files in base64.",
        "additionalProperties": {"type": "string"},
    });
    Operation::new("load_model", Tag::Management, "Load a model, or load it again")
        .json_body(json!({"type": "object", "properties": {"parameters": parameters}}))
        .optional_body()
        .refused_with(&[501])
}

/// What the document says of [`unload`].
pub(super) fn unload_operation() -> Operation {
    let parameters = json!({
        "type": "object",
        "properties": {"unload_dependents": {"type": "boolean", "description": "An ensemble's members, too."}},
    });
    Operation::new("unload_model", Tag::Management, "Unload a model")
        .json_body(json!({"type": "object", "properties": {"parameters": parameters}}))
        .optional_body()
        .refused_with(&[501])
}

/// `POST /v2/repository/models/M/load`: the body may be empty, or have a configuration and files that override the model's.
pub(super) async fn load(State(app): AppState, target: Target, payload: Payload) -> HttpResult<()> {
    let max_depth = app.config.max_json_depth;
    let overrides = off_worker(payload.bytes.len(), move || {
        read_overrides(Request::read(&payload.bytes, max_depth, "a load request")?.parameters)
    });
    Ok(app.inference.load_model(&target.model, overrides.await?).await?)
}

/// `POST /v2/repository/models/M/unload`, with an ensemble's members where `unload_dependents` says so.
pub(super) async fn unload(State(app): AppState, target: Target, payload: Payload) -> HttpResult<()> {
    let request = Request::read(&payload.bytes, app.config.max_json_depth, "an unload request")?;
    let and_members = unloads_members(request.parameters.into_iter().map(|(name, value)| (name, value.as_bool())))?;
    Ok(app.inference.unload_model(&target.model, and_members).await?)
}

/// The overrides among a load's parameters: `config`, the model's configuration as text, and `file:<version>/<name>` in base64.
fn read_overrides(parameters: BTreeMap<String, serde_json::Value>) -> Result<Overrides> {
    let mut overrides = Overrides::default();
    for (name, value) in parameters {
        let serde_json::Value::String(text) = value else {
            return Err(Error::invalid(format!("the parameter {name} of a load must be a string")));
        };
        let file = || {
            let file = STANDARD.decode(&text).map_err(|error| {
                Error::invalid(format!("the parameter {name} of a load is not base64")).with_source(error)
            })?;
            Ok(file.into())
        };
        overrides.set(&name, || Ok(text.clone()), file)?;
    }
    Ok(overrides)
}
