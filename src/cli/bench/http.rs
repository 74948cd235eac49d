//! The load's HTTP client: one keep-alive connection of HTTP/1.1, as thin as hyper allows, because the client's own CPU time
//! is taken from the server's on the same machine.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

use super::requests::{Answer, Requests};
use super::target::Target;

/// One connection to the server.
pub(super) struct Connection {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(target.connect().await?)).await?;
        // The connection's own task ends with the connection; what went wrong shows in the request that it breaks.
        tokio::spawn(connection);
        Ok(Self { authority: target.authority.clone(), sender })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Posts one request and reads the whole answer.
    pub(super) async fn post(&mut self, requests: &Requests, body: Bytes) -> Result<Answer> {
        let mut request = Request::post(requests.path()).header(HOST, &self.authority).body(Full::new(body))?;
        request.headers_mut().extend(requests.headers().clone());
        let (status, _) = self.exchange(request).await?;
        Ok(match status.as_u16() {
            200..=299 => Answer::Success,
            code @ (429 | 503) => Answer::Refused(format!("status {code}")),
            code @ 504 => Answer::Expired(format!("status {code}")),
            code => Answer::Failed(format!("status {code}")),
        })
    }

    /// The JSON that `path` answers with.
    pub(super) async fn get_json(&mut self, path: &str, requests: &Requests) -> Result<serde_json::Value> {
        let mut request =
            Request::builder().method(Method::GET).uri(path).header(HOST, &self.authority).body(Full::default())?;
        request.headers_mut().extend(requests.headers().clone());
        let (status, body) = self.exchange(request).await?;
        anyhow::ensure!(status.is_success(), "{path} answers {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).with_context(|| format!("{path} does not answer with JSON"))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
