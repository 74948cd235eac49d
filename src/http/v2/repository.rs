//! The repository extension: the index, loading and unloading.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::http::AppState;
use crate::http::error::HttpResult;
use crate::http::extract::{Payload, Target};
use crate::http::json;

/// `POST /v2/repository/index`: every model and version with its state. The body may be empty.
pub(super) async fn index(State(app): AppState, payload: Payload) -> HttpResult<Response> {
    #[derive(Deserialize, Default)]
    struct Query {
        #[serde(default)]
        ready: bool,
    }
    #[derive(Serialize)]
    struct Row {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        state: &'static str,
        reason: String,
    }
    let query = if payload.bytes.is_empty() {
        Query::default()
    } else {
        json::parse(&payload.bytes, app.config.max_json_depth, "an index request")?
    };
    let rows = app.inference.index(query.ready).into_iter().map(|entry| Row {
        name: entry.name,
        version: entry.version.map(|version| version.to_string()),
        state: entry.state.as_str(),
        reason: entry.reason,
    });
    Ok(Json(rows.collect::<Vec<_>>()).into_response())
}

/// `POST /v2/repository/models/M/load`.
pub(super) async fn load(State(app): AppState, target: Target) -> HttpResult<()> {
    Ok(app.inference.load_model(&target.model)?)
}

/// `POST /v2/repository/models/M/unload`.
pub(super) async fn unload(State(app): AppState, target: Target) -> HttpResult<()> {
    Ok(app.inference.unload_model(&target.model)?)
}
