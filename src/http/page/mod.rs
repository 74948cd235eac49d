//! The page in the browser and the documentation of the API: files that are part of the binary, and the headers that keep them
//! harmless.
//!
//! The files speak to the server through its API alone, as any client. They are served to everybody, since nothing in them is secret.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::{HttpResult, no_such_path};
use super::openapi::{Operation, Tag};
use super::routes::Routes;

/// What a page of ours may do: run its own scripts, look as its own style says, show pictures that it has made, and speak to this
/// server. No text ever becomes markup, which trusted types see to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
struct File {
    name: &'static str,
    media_type: &'static str,
    content: &'static str,
    /// Changes with the content.
    tag: LazyLock<HeaderValue>,
}

macro_rules! file {
    ($name:literal, $media_type:literal) => {{
        const CONTENT: &str = include_str!(concat!("files/", $name));
        File {
            name: $name,
            media_type: concat!($media_type, "; charset=utf-8"),
            content: CONTENT,
            tag: LazyLock::new(|| tag_of(CONTENT)),
        }
    }};
}

static INDEX: File = file!("index.html", "text/html");
static DOCS: File = file!("docs.html", "text/html");
static FILES: [File; 22] = [
    file!("api.js", "text/javascript"),
    file!("app.js", "text/javascript"),
    file!("card.js", "text/javascript"),
    file!("chart.js", "text/javascript"),
    file!("choice.js", "text/javascript"),
    file!("classify.js", "text/javascript"),
    file!("docs.css", "text/css"),
    file!("docs.js", "text/javascript"),
    file!("dom.js", "text/javascript"),
    file!("exciting.js", "text/javascript"),
    file!("features.js", "text/javascript"),
    file!("format.js", "text/javascript"),
    file!("icon.svg", "image/svg+xml"),
    file!("metrics.js", "text/javascript"),
    file!("network.js", "text/javascript"),
    file!("opaque.js", "text/javascript"),
    file!("page.css", "text/css"),
    file!("picture.js", "text/javascript"),
    file!("queue.js", "text/javascript"),
    file!("schema.js", "text/javascript"),
    file!("server.js", "text/javascript"),
    file!("why.js", "text/javascript"),
];

/// The routes of the page, but for one that is `taken`.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(taken: Option<&str>) -> Routes<S> {
    let mut routes = Routes::new();
    for (path, file, operation) in [
        ("/", &INDEX, Operation::new("page", Tag::Page, "The page in the browser")),
        ("/docs", &DOCS, Operation::new("docs", Tag::Page, "This document for people")),
    ] {
        if taken != Some(path) {
            let show = async move |headers: HeaderMap| answer(file, &headers);
            routes = routes.get(path, show, operation.answers_bytes("The page.", "text/html"));
        }
    }
    let operation = Operation::new("page_file", Tag::Page, "What the page is made of").refused_with(&[404]);
    routes.get("/page/{file}", file, operation.answers_bytes("A script, a style or a picture.", "*/*"))
}

async fn file(Path(name): Path<String>, uri: Uri, headers: HeaderMap) -> HttpResult<Response> {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => Ok(answer(file, &headers)),
        None => Err(no_such_path(uri).await),
    }
}

/// The file, or that the browser has it already. Browsers ask each time, so that no page runs with scripts of another version.
fn answer(file: &File, headers: &HeaderMap) -> Response {
    let headers_out = [
        (header::ETAG, file.tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_TYPE, HeaderValue::from_static(file.media_type)),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().as_bytes() == file.tag.as_bytes()));
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers_out, seals()).into_response();
    }
    (headers_out, seals(), file.content).into_response()
}

/// A page that is made for the one who asks, under the same rules.
pub(super) fn sealed(html: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], seals(), html)
}

/// The headers that keep a page harmless.
fn seals() -> [(HeaderName, HeaderValue); 4] {
    [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ]
}

/// A weak tag, because what is sent may be compressed.
fn tag_of(content: &str) -> HeaderValue {
    let digest = Sha256::digest(content);
    let tag = format!("W/\"{:016x}\"", u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes")));
    HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes are a header's value")
}
