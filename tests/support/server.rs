//! A server in this process, on free ports, over a repository in a temporary folder; and a client for it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use convoy::config::ServerConfig;
use convoy::onnx::ModelProto;
use convoy::server::Server;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::graphs;

/// The recipe under which a picture's channel means are its colour over 255.
pub(crate) const PLAIN_RECIPE: &str = "[preprocess]\nscale = 0.00392156862745098\n";

/// A model repository in a temporary folder.
pub(crate) struct Repository(tempfile::TempDir);

impl Repository {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds version 1 of a model, with a `config.toml` and `labels.txt` where they are not empty.
    pub(crate) fn with(self, name: &str, model: &ModelProto, config: &str, labels: &str) -> Self {
        graphs::write(&self.folder(&format!("{name}/1")), model);
        for (file, text) in [("config.toml", config), ("labels.txt", labels)] {
            if !text.is_empty() {
                std::fs::write(self.path().join(name).join(file), text).unwrap();
            }
        }
        self
    }

    /// Adds a model whose file is not one.
    pub(crate) fn with_broken(self, name: &str) -> Self {
        std::fs::write(self.folder(&format!("{name}/1")).join("model.onnx"), "not a graph").unwrap();
        self
    }

    fn folder(&self, path: &str) -> PathBuf {
        let folder = self.path().join(path);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// The configuration of a server on free ports, which ends without a grace.
pub(crate) fn config(repository: &Repository) -> ServerConfig {
    let mut config = ServerConfig { model_repository: repository.path().to_owned(), ..ServerConfig::default() };
    config.http.address = "127.0.0.1:0".parse().unwrap();
    config.metrics.address = "127.0.0.1:0".parse().unwrap();
    config.shutdown.grace_ms = 0;
    config
}

/// Starts a server and loads its models.
pub(crate) async fn start(config: ServerConfig) -> Server {
    let server = Server::start(config).await.unwrap();
    server.load().await.unwrap();
    server
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The message of an error's body, which must have no other form.
    pub(crate) fn error(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        let body = self.json();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        body["error"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    }
}

/// A connection that is kept alive.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.http_address()).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.0.send_request(request).await.unwrap().into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    /// Completes when the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        while self.0.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let request = Request::builder().method(method).uri(path).header("host", "test");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Connection::open(server).await.send(request.body(Full::new(body.into())).unwrap()).await
}

/// `GET path`.
pub(crate) async fn get(server: &Server, path: &str) -> Answer {
    send(server, "GET", path, &[], "").await
}

/// Waits for what must come, but not for ever.
pub(crate) async fn within_a_minute<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("it has not come within a minute")
}

/// Sends the head of a classify request with a body of `length` bytes, and waits until the server is reading that body.
pub(crate) async fn begin_classify(server: &Server, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.http_address()).await.unwrap();
    let head =
        format!("POST /v1/classify HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// A PNG of one colour.
pub(crate) fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(8, 8, image::Rgb(colour)).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}
