//! `GET /debug`: what the server is and does at this moment, for its operators; as a page, or as JSON for whoever asks for none.

mod page;

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::openapi::{Operation, Tag};
use super::page::sealed;
use super::routes::Routes;
use super::{App, AppState};
use crate::net::Places;
use crate::repository::{GraphModel, IndexEntry, Kind, Model};
use crate::scheduler::Snapshot;
use crate::telemetry::BuildInfo;

/// What only the server's composition root knows.
#[derive(Debug)]
pub struct ServerFacts {
    /// When the server started.
    pub started: Instant,
    /// What it was built from.
    pub build: BuildInfo,
    /// The file of the ONNX Runtime library.
    pub onnxruntime_library: String,
    /// Its configuration without what is secret.
    pub config: Value,
    /// The connections of the HTTP port.
    pub http: Places,
    /// Those of the gRPC port.
    pub grpc: Places,
}

/// The route.
pub(super) fn routes() -> Routes {
    let operation = Operation::new("debug", Tag::Management, "What the server is and does at this moment")
        .description("A page where the client takes `text/html`, as browsers do.")
        .answers::<Debug>("Its build, models, queues and configuration, without secrets.")
        .answers_bytes("Its build, models, queues and configuration, without secrets.", "text/html");
    Routes::new().get("/debug", show, operation)
}

async fn show(State(app): AppState, headers: HeaderMap) -> Response {
    let debug = debug(&app);
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let mut response = if accept.is_some_and(|accept| accept.contains("text/html")) {
        sealed(page::render(&debug)).into_response()
    } else {
        Json(debug).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    response
}

#[derive(Serialize, JsonSchema)]
struct Debug<'a> {
    build: BuildJson<'a>,
    uptime_s: f64,
    /// Whether it should get traffic.
    ready: bool,
    connections: Connections,
    /// Bytes of request bodies in memory.
    body_bytes: Used,
    /// Bytes of kept answers, where any are kept.
    response_cache: Option<Used>,
    models: Vec<ModelJson>,
    config: &'a Value,
}

#[derive(Serialize, JsonSchema)]
struct BuildJson<'a> {
    version: &'static str,
    /// The commit, where the build was told.
    commit: Option<&'static str>,
    rustc: &'static str,
    target: &'static str,
    /// What ONNX Runtime says of its own build.
    onnxruntime: &'a str,
    onnxruntime_library: &'a str,
}

/// How many are open on the port, the one that asks included.
#[derive(Serialize, JsonSchema)]
struct Connections {
    http: usize,
    grpc: usize,
}

#[derive(Serialize, JsonSchema)]
struct Used {
    used: usize,
    limit: usize,
}

/// A version of a model.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DebugModel")]
struct ModelJson {
    name: String,
    version: Option<String>,
    state: &'static str,
    /// Why it is not ready, or why what is ready is not what the last load was to bring.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// Requests that were answered, and that failed.
    requests: Option<Requests>,
    /// What runs it, where it is ready and no ensemble.
    graph: Option<GraphJson>,
    /// An ensemble's members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Requests {
    succeeded: u64,
    failed: u64,
}

#[derive(Serialize, JsonSchema)]
struct GraphJson {
    /// The execution provider that really runs it.
    provider: &'static str,
    max_batch_size: usize,
    instances: Instances,
    queue: Queue,
    /// The average time of a batch, by the sizes that have been run.
    batch_times: Vec<BatchTime>,
    /// What a batch waits for other models' runs.
    turn_wait_ms: f64,
    last_failure: Option<Failure>,
}

#[derive(Serialize, JsonSchema)]
struct Instances {
    count: usize,
    /// Those that run a batch.
    busy: usize,
    panics: u64,
    /// Runs that failed since one succeeded.
    consecutive_failures: u32,
}

#[derive(Serialize, JsonSchema)]
struct Queue {
    /// Rows that wait for an instance.
    rows: usize,
    /// Rows that are admitted and not yet answered: decoding, waiting or running.
    admitted_rows: Used,
    /// Bytes that they hold.
    bytes: Used,
}

#[derive(Serialize, JsonSchema)]
struct BatchTime {
    size: usize,
    ms: f64,
}

#[derive(Serialize, JsonSchema)]
struct Failure {
    /// Seconds since then.
    ago_s: f64,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    reason: String,
}

fn debug(app: &App) -> Debug<'_> {
    let ServerFacts { started, build, onnxruntime_library, config, http, grpc } = &app.facts;
    let inference = &app.inference;
    let ready = inference.ready_models();
    let body_bytes = inference.body_bytes();
    Debug {
        build: BuildJson {
            version: build.version,
            commit: build.commit,
            rustc: build.rustc,
            target: build.target,
            onnxruntime: build.onnxruntime,
            onnxruntime_library,
        },
        uptime_s: started.elapsed().as_secs_f64(),
        ready: inference.is_ready(),
        connections: Connections { http: http.taken(), grpc: grpc.taken() },
        body_bytes: Used { used: body_bytes.held(), limit: body_bytes.limit() },
        response_cache: inference.response_cache().map(|cache| Used { used: cache.bytes(), limit: cache.max_bytes() }),
        models: inference.index(false).into_iter().map(|entry| model(entry, &ready)).collect(),
        config,
    }
}

fn model(entry: IndexEntry, ready: &[Arc<Model>]) -> ModelJson {
    let IndexEntry { name, version, state, reason } = entry;
    let model = ready.iter().find(|model| model.name() == name && Some(model.version()) == version);
    let (graph, members) = match model.map(|model| model.kind()) {
        Some(Kind::Graph(model)) => (Some(graph(model)), Vec::new()),
        Some(Kind::Ensemble(ensemble)) => (None, ensemble.members().iter().map(|it| it.name.clone()).collect()),
        None => (None, Vec::new()),
    };
    let requests = model.map(|model| {
        let statistics = model.statistics();
        Requests { succeeded: statistics.success.count, failed: statistics.fail.count }
    });
    let version = version.map(|version| version.to_string());
    ModelJson { name, version, state: state.as_str(), reason, requests, graph, members }
}

fn graph(graph: &GraphModel) -> GraphJson {
    let snapshot: Snapshot = graph.scheduler().snapshot();
    GraphJson {
        provider: graph.provider(),
        max_batch_size: graph.max_batch_size(),
        instances: Instances {
            count: snapshot.instances,
            busy: snapshot.busy_instances,
            panics: snapshot.panics,
            consecutive_failures: snapshot.consecutive_failures,
        },
        queue: Queue {
            rows: snapshot.queued_rows,
            admitted_rows: Used { used: snapshot.admitted_rows, limit: snapshot.places },
            bytes: Used { used: snapshot.held_bytes, limit: snapshot.max_bytes },
        },
        batch_times: snapshot.batch_times.iter().map(|&(size, took)| BatchTime { size, ms: ms(took) }).collect(),
        turn_wait_ms: ms(snapshot.turn_wait),
        last_failure: snapshot.last_failure.map(|failure| Failure {
            ago_s: failure.at.elapsed().unwrap_or_default().as_secs_f64(),
            at_ms: failure.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            reason: failure.reason,
        }),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
