//! The load's HTTP client: one keep-alive connection of HTTP/1.1, as thin as hyper allows, because the client's own CPU time
//! is taken from the server's on the same machine.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where pictures are posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    authority: String,
    path: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => bail!("{url}: only http is spoken here, not {other}"),
            None => bail!("{url} has no scheme: write http://{url}"),
        }
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let path = match uri.path_and_query().map(hyper::http::uri::PathAndQuery::as_str) {
            None | Some("/") => "/v1/classify",
            Some(path) => path,
        };
        Ok(Self { authority: format!("{}:{port}", authority.host()), path: path.to_owned() })
    }
}

/// One connection to the server.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.authority)
            .await
            .with_context(|| format!("there is no server at {}", target.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The connection's own task ends with the connection; what went wrong shows in the request that it breaks.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Posts one picture and reads the whole answer.
    pub(super) async fn post(&mut self, target: &Target, picture: Bytes) -> Result<StatusCode> {
        let request = Request::post(&target.path)
            .header(HOST, &target.authority)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(picture))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_means_classify() {
        let target = |url| Target::parse(url).unwrap();
        assert_eq!(target("http://localhost:8000").path, "/v1/classify");
        assert_eq!(target("http://localhost:8000/").path, "/v1/classify");
        assert_eq!(target("http://localhost:8000/v1/models/m/classify?top_k=1").path, "/v1/models/m/classify?top_k=1");
        assert_eq!(target("http://localhost").authority, "localhost:80");
        for url in ["https://localhost", "localhost:8000", "http://", ""] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
