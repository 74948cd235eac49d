//! The load's gRPC client, as thin as hyper allows: HTTP/2, five bytes before a message, and a status in the trailers.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, TE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use prost::Message;
use tokio::sync::mpsc;

use super::requests::{Answer, Requests};
use super::target::Target;

const FRAME_HEADER: usize = 5;
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const STATUS_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The codes that a server answers with which is well but has too much to do: `RESOURCE_EXHAUSTED` and `UNAVAILABLE`.
const REFUSALS: [i32; 2] = [8, 14];
const DEADLINE_EXCEEDED: i32 = 4;

/// One HTTP/2 connection.
pub(super) struct Connection {
    authority: String,
    sender: SendRequest<BoxBody<Bytes, Infallible>>,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Self> {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(target.connect().await?)).await?;
        // As in the HTTP client, the connection's task ends with the connection.
        tokio::spawn(connection);
        Ok(Self { authority: target.authority.clone(), sender })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Calls a unary method with a framed message and reads the whole answer.
    pub(super) async fn call(&mut self, requests: &Requests, message: Bytes) -> Result<Answer> {
        let (status, _) = self.exchange(requests.path(), requests.headers(), message).await?;
        Ok(status.into_answer())
    }

    /// Calls a unary method with a message, and decodes its answer.
    pub(super) async fn ask<A: Message + Default>(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        message: &impl Message,
    ) -> Result<A> {
        let (status, mut body) = self.exchange(path, headers, frame(message)).await?;
        ensure!(status.code == 0, "{path} answers with the status {}: {}", status.code, status.message);
        ensure!(body.len() >= FRAME_HEADER, "{path} answers with no message");
        body.advance(FRAME_HEADER);
        Ok(A::decode(body)?)
    }

    async fn exchange(&mut self, path: &str, headers: &HeaderMap, message: Bytes) -> Result<(Status, Bytes)> {
        let response = self.start(path, headers, Full::new(message).boxed()).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        // An answer without a message has its status in the head.
        let status = Status::of(head.status, body.trailers().unwrap_or(&head.headers))?;
        Ok((status, body.to_bytes()))
    }

    async fn start(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        body: BoxBody<Bytes, Infallible>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::post(format!("http://{}{path}", self.authority))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(body)?;
        request.headers_mut().extend(headers.clone());
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// One bidirectional stream, with many requests on their way.
pub(super) struct Stream {
    outgoing: mpsc::UnboundedSender<Bytes>,
    incoming: Incoming,
    received: BytesMut,
    waiting: Waiting,
    sent: u64,
}

/// When each request that waits for its answer was sent.
enum Waiting {
    /// Answers come in any order and say which is theirs.
    ById(HashMap<String, Instant>),
    /// Answers come in the order of the requests.
    InOrder(VecDeque<Instant>),
}

impl Stream {
    /// Opens the stream that `requests` go on.
    pub(super) async fn open(target: &Target, requests: &Requests) -> Result<Self> {
        let mut connection = Connection::open(target).await?;
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let frames = stream::unfold(receiver, async |mut receiver: mpsc::UnboundedReceiver<Bytes>| {
            let frame = receiver.recv().await?;
            Some((Ok(Frame::data(frame)), receiver))
        });
        let response =
            connection.start(requests.path(), requests.headers(), BoxBody::new(StreamBody::new(frames))).await?;
        if let Ok(status) = Status::of(response.status(), response.headers()) {
            bail!("{} ends with the status {}: {}", requests.path(), status.code, status.message);
        }
        let waiting =
            if requests.answers_have_ids() { Waiting::ById(HashMap::new()) } else { Waiting::InOrder(VecDeque::new()) };
        Ok(Self { outgoing, incoming: response.into_body(), received: BytesMut::new(), waiting, sent: 0 })
    }

    /// Sends the request whose turn it is. How many are on their way at once is the caller's to bound.
    pub(super) fn send(&mut self, requests: &Requests, turn: usize) -> Result<()> {
        let id = self.sent.to_string();
        self.sent += 1;
        let frame = requests.body(turn, &id);
        let now = Instant::now();
        match &mut self.waiting {
            Waiting::ById(waiting) => drop(waiting.insert(id, now)),
            Waiting::InOrder(waiting) => waiting.push_back(now),
        }
        self.outgoing.send(frame).ok().context("the stream's connection ended")
    }

    /// The next answer, and when its request was sent.
    pub(super) async fn next(&mut self, requests: &Requests) -> Result<(Answer, Instant)> {
        let message = self.next_message().await?;
        let (id, status) = requests.stream_answer(message)?;
        let sent = match &mut self.waiting {
            Waiting::ById(waiting) => waiting.remove(&id),
            Waiting::InOrder(waiting) => waiting.pop_front(),
        };
        let sent = sent.with_context(|| format!("an answer came for the request `{id}`, which does not wait"))?;
        Ok((status.into_answer(), sent))
    }

    async fn next_message(&mut self) -> Result<Bytes> {
        loop {
            if let Some(header) = self.received.first_chunk::<FRAME_HEADER>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if self.received.len() >= FRAME_HEADER + length {
                    self.received.advance(FRAME_HEADER);
                    return Ok(self.received.split_to(length).freeze());
                }
            }
            let frame = self.incoming.frame().await.context("the stream ended before every answer was there")??;
            match frame.into_data() {
                Ok(data) => self.received.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.trailers_ref().context("a frame of an unknown kind")?;
                    let status = Status::of(StatusCode::OK, trailers)?;
                    bail!("the stream ended with the status {}: {}", status.code, status.message);
                }
            }
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: i32,
    pub(super) message: String,
}

impl Status {
    /// The status in `headers`, or the one that gRPC has for the HTTP status of who does not speak it, a load balancer without a replica for
    /// instance.
    fn of(http: StatusCode, headers: &HeaderMap) -> Result<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if http != StatusCode::OK && text(STATUS).is_none() {
            let message = format!("HTTP {http}, which is no answer of a gRPC server but of a load balancer before it");
            return Ok(Self { code: code_of(http), message });
        }
        let code = text(STATUS).context("the call ended without a status")?;
        let message = percent_decode_str(text(STATUS_MESSAGE).unwrap_or_default());
        Ok(Self { code: code.parse()?, message: message.decode_utf8_lossy().into_owned() })
    }

    fn into_answer(self) -> Answer {
        let said = format!("status {}: {}", self.code, self.message);
        match self.code {
            0 => Answer::Success,
            DEADLINE_EXCEEDED => Answer::Expired(said),
            code if REFUSALS.contains(&code) => Answer::Refused(said),
            _ => Answer::Failed(said),
        }
    }
}

/// The code that gRPC's specification has for an HTTP status (`http-grpc-status-mapping.md`).
fn code_of(http: StatusCode) -> i32 {
    match http.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// A message with the five bytes before it: not compressed, and its length.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEADER + length);
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode(&mut frame).expect("the buffer grows as it must");
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_speak_grpc_is_named_with_its_http_status() {
        let status = Status::of(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new()).unwrap();
        assert_eq!(status.code, 14);
        assert!(status.message.contains("503 Service Unavailable") && status.message.contains("load balancer"));
        assert!(matches!(status.into_answer(), Answer::Refused(_)));
        let own = HeaderMap::from_iter([(STATUS, "3".parse().unwrap()), (STATUS_MESSAGE, "no%20".parse().unwrap())]);
        let status = Status::of(StatusCode::OK, &own).unwrap();
        assert_eq!((status.code, &*status.message), (3, "no "));
        assert!(Status::of(StatusCode::OK, &HeaderMap::new()).is_err());
    }
}
