//! Calls byte by byte, for what no proper client sends.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use convoy::server::Server;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tonic::Code;

pub(crate) const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// Those of the head, and the trailers.
    pub(crate) headers: HeaderMap,
    /// The messages with their five bytes before each.
    pub(crate) body: Bytes,
}

/// A message in its frame.
pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    framed(0, &message.encode_to_vec())
}

/// Bytes in a frame with these flags.
pub(crate) fn framed(flags: u8, message: &[u8]) -> Vec<u8> {
    [&[flags][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// A body that begins with these bytes and never ends.
pub(crate) fn open(bytes: Vec<u8>) -> BoxBody<Bytes, Infallible> {
    let first = stream::iter([Ok(Frame::data(Bytes::from(bytes)))]);
    BoxBody::new(StreamBody::new(first.chain(stream::pending())))
}

/// A body that begins with these bytes and ends with `end`.
pub(crate) fn open_until(bytes: Vec<u8>, end: oneshot::Receiver<()>) -> BoxBody<Bytes, Infallible> {
    let first = stream::iter([Ok(Frame::data(Bytes::from(bytes)))]);
    BoxBody::new(StreamBody::new(first.chain(stream::once(end).filter_map(async |_| None))))
}

/// Calls `path` with these headers beside the usual and this body, on a connection of its own.
pub(crate) async fn call(server: &Server, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    send(server, path, headers, Full::new(body.into()).boxed()).await
}

/// As [`call`], with any body.
pub(crate) async fn send(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
    body: BoxBody<Bytes, Infallible>,
) -> Answer {
    send_to(server.grpc_address(), path, headers, body).await
}

/// As [`send`], to an address, for a task of its own.
pub(crate) async fn send_to(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: BoxBody<Bytes, Infallible>,
) -> Answer {
    let mut connection = connect(address).await;
    let request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = connection.send_request(request.body(body).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    assert_eq!(head.status, 200);
    let body = body.collect().await.unwrap();
    let mut headers = head.headers;
    if let Some(trailers) = body.trailers() {
        headers.extend(trailers.clone());
    }
    let status = tonic::Status::from_header_map(&headers).expect("every call ends with a status");
    Answer { code: status.code(), message: status.message().to_owned(), headers, body: body.to_bytes() }
}

async fn connect(address: SocketAddr) -> SendRequest<BoxBody<Bytes, Infallible>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
