use std::collections::HashSet;
use std::io::Read as _;
use std::sync::Mutex;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use bytes::Bytes;
use prometheus::Registry;
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::http::error::{HttpResult, method_not_allowed, no_such_path};

/// Routes that succeed, fail and panic, under the middleware of the real router.
fn router(cors_origins: &[&str]) -> (Router, Registry) {
    let registry = Registry::new();
    let metrics = HttpMetrics::register(&registry).unwrap();
    let origins: Vec<_> = cors_origins.iter().map(ToString::to_string).collect();
    let failing =
        async || -> HttpResult<()> { Err(Error::internal("the run failed").with_source("the secret cause").into()) };
    let panicking = async || assert!(std::hint::black_box(false), "the secret cause");
    let routes = Router::new()
        .route("/short", get(async || "short"))
        .route("/probe", get(async || (Extension(Probe), "alive")))
        .route("/long", get(async || "long ".repeat(1000)))
        .route("/echo", post(async |body: Bytes| body))
        .route("/failing", get(failing))
        .route("/panicking", get(panicking))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed);
    (wrap(routes, &Observer::new(metrics, Tracing::default(), None), cors(&origins).unwrap().as_ref()), registry)
}

async fn send(router: &Router, request: Request) -> (StatusCode, HeaderMap, Bytes) {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap())
}

fn get_request(path: &str, headers: &[(&str, &str)]) -> Request {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

fn exposed(registry: &Registry) -> String {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let (router, _) = router(&[]);
    let (_, headers, _) = send(&router, get_request("/short", &[("x-request-id", "trace-1.a:b/c=")])).await;
    assert_eq!(headers[REQUEST_ID], "trace-1.a:b/c=");

    let long = "x".repeat(129);
    let mut seen = HashSet::new();
    for id in [None, Some(""), Some("two words"), Some("a\"b"), Some(&long)] {
        let headers: Vec<_> = id.map(|id| ("x-request-id", id)).into_iter().collect();
        let (_, headers, _) = send(&router, get_request("/short", &headers)).await;
        let made = headers[REQUEST_ID].to_str().unwrap().to_owned();
        assert_ne!(Some(made.as_str()), id);
        assert!(seen.insert(made));
    }
}

#[tokio::test]
async fn internal_errors_and_panics_show_a_request_id_and_hide_the_cause() {
    let (router, _) = router(&[]);
    for (path, message) in [("/failing", "the run failed"), ("/panicking", "the server failed on this request")] {
        let (status, headers, body) = send(&router, get_request(path, &[("x-request-id", "abc")])).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(body, format!(r#"{{"error":"{message} (request id abc)"}}"#));
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_answered_in_json() {
    let (router, _) = router(&[]);
    let (status, _, body) = send(&router, get_request("/nowhere", &[])).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body, r#"{"error":"there is nothing at /nowhere"}"#);
    let (status, headers, body) = send(&router, get_request("/echo", &[])).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(headers[header::ALLOW], "POST");
    assert_eq!(body, r#"{"error":"/echo does not take GET"}"#);
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_ask() {
    let (router, _) = router(&[]);
    let gzip = [("accept-encoding", "gzip")];
    let (_, headers, body) = send(&router, get_request("/long", &gzip)).await;
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, "long ".repeat(1000));

    let (_, headers, body) = send(&router, get_request("/long", &[])).await;
    assert_eq!((headers.get(header::CONTENT_ENCODING), body.len()), (None, 5000));
    let (_, headers, _) = send(&router, get_request("/short", &gzip)).await;
    assert_eq!(headers.get(header::CONTENT_ENCODING), None);
}

#[tokio::test]
async fn compressed_requests_are_decompressed() {
    let (router, _) = router(&[]);
    let plain = b"a request".as_slice();
    let (mut gzipped, mut deflated) = (Vec::new(), Vec::new());
    flate2::read::GzEncoder::new(plain, flate2::Compression::fast()).read_to_end(&mut gzipped).unwrap();
    flate2::read::ZlibEncoder::new(plain, flate2::Compression::fast()).read_to_end(&mut deflated).unwrap();
    for (encoding, body) in [("gzip", gzipped), ("deflate", deflated)] {
        let request = Request::post("/echo").header("content-encoding", encoding).body(Body::from(body)).unwrap();
        let (status, _, body) = send(&router, request).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, plain));
    }
}

#[tokio::test]
async fn cors_is_off_unless_an_origin_is_named() {
    let from = |origin| get_request("/short", &[("origin", origin)]);
    let allowed = |headers: &HeaderMap| headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned();

    let (closed, _) = router(&[]);
    assert_eq!(allowed(&send(&closed, from("https://a.example")).await.1), None);
    let (open, _) = router(&["https://a.example", "http://localhost:3000"]);
    assert_eq!(allowed(&send(&open, from("https://a.example")).await.1).unwrap(), "https://a.example");
    assert_eq!(allowed(&send(&open, from("https://b.example")).await.1), None);
    let (any, _) = router(&["*"]);
    assert_eq!(allowed(&send(&any, from("https://b.example")).await.1).unwrap(), "*");

    let preflight =
        Request::options("/echo").header("origin", "https://a.example").header("access-control-request-method", "POST");
    let (status, headers, _) = send(&open, preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET,POST");
}

#[test]
fn what_is_no_origin_is_refused_by_name() {
    for origin in ["example.org", "https://", "https://a.example/", "https://a.example/path", "nonsense \n"] {
        let error = cors(&[origin.to_owned()]).unwrap_err();
        assert!(error.message().contains(origin) && error.message().contains("cors_origins"), "{error}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let (router, registry) = router(&[]);
    for path in ["/short?x=1", "/panicking", "/made/up"] {
        send(&router, get_request(path, &[])).await;
    }
    let text = exposed(&registry);
    for (route, status) in [("/short", 200), ("/panicking", 500), ("unmatched", 404)] {
        let line = format!(r#"convoy_http_requests_total{{method="GET",route="{route}",status="{status}"}} 1"#);
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_too() {
    let registry = Registry::new();
    let slow = Router::new().route("/slow", get(async || std::future::pending::<()>().await));
    let router = wrap(slow, &Observer::new(HttpMetrics::register(&registry).unwrap(), Tracing::default(), None), None);
    assert!(router.oneshot(get_request("/slow", &[])).now_or_never().is_none());
    let text = exposed(&registry);
    assert!(text.contains(r#"route="/slow",status="499"} 1"#), "{text}");
}

/// Collects the log of the current thread as JSON lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn events(&self) -> Vec<serde_json::Value> {
        let text = self.0.lock().unwrap();
        text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[tokio::test]
async fn each_request_has_one_line_and_an_internal_error_its_cause_once() {
    // While there is one subscriber only, a log line that another test's thread comes to first is settled by that thread, which
    // has none, and is off for good.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (router, _) = router(&[]);
    // The answer to a probe is no line.
    for path in ["/short?secret=1", "/probe", "/failing", "/nowhere"] {
        send(&router, get_request(path, &[("x-request-id", "abc")])).await;
    }

    let events = log.events();
    let seen: Vec<_> = events.iter().map(|event| (event["target"].as_str(), event["level"].as_str())).collect();
    let (access, failure) =
        ((Some("convoy::access"), Some("DEBUG")), (Some("convoy::http::middleware"), Some("ERROR")));
    assert_eq!(seen, [access, failure, access, access], "{events:?}");
    assert_eq!((&events[0]["path"], &events[0]["status"]), (&json!("/short"), &json!(200)));
    assert_eq!((&events[0]["method"], &events[0]["id"]), (&json!("GET"), &json!("abc")));
    assert_eq!(events[1]["error"], json!("the run failed: the secret cause"));
    assert_eq!(events[1]["span"]["id"], json!("abc"));
    assert_eq!((&events[2]["status"], &events[2]["error"]), (&json!(500), &json!("the run failed")));
    assert_eq!((&events[3]["status"], &events[3]["error"]), (&json!(404), &json!("there is nothing at /nowhere")));
}
