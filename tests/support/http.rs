//! A client of the HTTP interface.

use std::net::SocketAddr;

use bytes::Bytes;
use convoy::server::Server;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

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
pub(crate) struct Connection(pub(crate) SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(server: &Server) -> Self {
        Self::open_at(server.http_address()).await
    }

    pub(crate) async fn open_at(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.0.send_request(request).await.unwrap().into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
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
    send_to(server.http_address(), method, path, headers, body).await
}

/// Sends one request to the server at `address`, which may be another process.
pub(crate) async fn send_to(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Connection::open_at(address).await.send(request.body(Full::new(body.into())).unwrap()).await
}

/// `GET path`.
pub(crate) async fn get(server: &Server, path: &str) -> Answer {
    send(server, "GET", path, &[], "").await
}
