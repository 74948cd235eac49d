//! Where a load goes, and connections to it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::requests::{Answer, Requests};
use super::{grpc, http};
use crate::net::{self, Connector};

/// What is spoken to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// The bytes of a connection, in the clear or encrypted.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A server, and where on it requests are posted.
pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// `host:port`.
    pub(super) authority: String,
    /// The path that the URL names, beyond the server's own address; HTTP only.
    pub(super) path: Option<String>,
    /// Where the connections are encrypted.
    tls: Option<Connector>,
}

impl Target {
    /// Reads `http://host[:port][/path]` or `grpc://host[:port]`, or `https` or `grpcs` for a server whose certificate one of
    /// those in the file `authorities` has signed.
    pub(super) fn parse(url: &str, authorities: Option<&Path>) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let (protocol, is_encrypted, default_port) = match uri.scheme_str() {
            Some("http") => (Protocol::Http, false, 80),
            Some("https") => (Protocol::Http, true, 443),
            Some("grpc") => (Protocol::Grpc, false, 8001),
            Some("grpcs") => (Protocol::Grpc, true, 8001),
            Some(other) => bail!("{url}: http, https, grpc and grpcs are spoken here, not {other}"),
            None => bail!("{url} has no scheme: write http://{url} or grpc://{url}"),
        };
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
        let host = authority.host();
        let tls = match (is_encrypted, authorities) {
            (true, Some(authorities)) => {
                let spoken = match protocol {
                    Protocol::Http => net::Protocol::Http1,
                    Protocol::Grpc => net::Protocol::Http2,
                };
                Some(Connector::new(authorities, host, spoken)?)
            }
            (false, None) => None,
            (true, None) => bail!("{url}: --ca must name the certificate that has signed the server's"),
            (false, Some(_)) => bail!("{url} is not encrypted: --ca goes with https and grpcs"),
        };
        let authority = format!("{host}:{}", authority.port_u16().unwrap_or(default_port));
        let path = uri.path_and_query().map(ToString::to_string).filter(|path| path != "/" && !path.is_empty());
        if protocol == Protocol::Grpc && path.is_some() {
            bail!("{url}: a gRPC address has no path; --model names the model");
        }
        Ok(Self { protocol, authority, path, tls })
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn ByteStream>> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("there is no server at {}", self.authority))?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let stream = tls
            .connect(stream)
            .await
            .with_context(|| format!("there is no encrypted connection to {}", self.authority))?;
        Ok(Box::new(stream))
    }
}

/// One connection, which carries one request at a time.
pub(super) enum Connection {
    Http(http::Connection),
    Grpc(grpc::Connection),
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Self> {
        Ok(match target.protocol {
            Protocol::Http => Self::Http(http::Connection::open(target).await?),
            Protocol::Grpc => Self::Grpc(grpc::Connection::open(target).await?),
        })
    }

    /// Whether the server is known to have closed it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http(connection) => connection.is_closed(),
            Self::Grpc(connection) => connection.is_closed(),
        }
    }

    /// Sends the request whose turn it is and reads the whole answer.
    ///
    /// # Errors
    /// When the connection broke; an answer that says that the request failed is none.
    pub(super) async fn send(&mut self, requests: &Requests, turn: usize) -> Result<Answer> {
        let body = requests.body(turn, "");
        match self {
            Self::Http(connection) => connection.post(requests, body).await,
            Self::Grpc(connection) => connection.call(requests, body).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_says_what_is_spoken() {
        let target = |url| Target::parse(url, None).unwrap();
        assert_eq!(target("http://localhost:8000").path, None);
        assert_eq!(target("http://localhost:8000/").path, None);
        let path = Some("/v1/models/m/classify?top_k=1".to_owned());
        assert_eq!(target("http://localhost:8000/v1/models/m/classify?top_k=1").path, path);
        assert_eq!(target("http://localhost").authority, "localhost:80");
        let grpc = target("grpc://localhost");
        assert_eq!((grpc.protocol, &*grpc.authority, grpc.path), (Protocol::Grpc, "localhost:8001", None));
        for url in ["https://localhost", "localhost:8000", "http://", "", "grpc://localhost/v1/classify"] {
            assert!(Target::parse(url, None).is_err(), "{url}");
        }
    }
}
