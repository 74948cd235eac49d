//! Where a load goes, and connections to it.

use anyhow::{Context, Result, bail};
use hyper::Uri;
use tokio::net::TcpStream;

use super::requests::{Answer, Requests};
use super::{grpc, http};

/// What is spoken to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// A server, and where on it requests are posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// `host:port`.
    pub(super) authority: String,
    /// The path that the URL names, beyond the server's own address; HTTP only.
    pub(super) path: Option<String>,
}

impl Target {
    /// Reads `http://host[:port][/path]` or `grpc://host[:port]`.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let (protocol, default_port) = match uri.scheme_str() {
            Some("http") => (Protocol::Http, 80),
            Some("grpc") => (Protocol::Grpc, 8001),
            Some(other) => bail!("{url}: http and grpc are spoken here, not {other}"),
            None => bail!("{url} has no scheme: write http://{url} or grpc://{url}"),
        };
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
        let authority = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(default_port));
        let path = uri.path_and_query().map(ToString::to_string).filter(|path| path != "/" && !path.is_empty());
        if protocol == Protocol::Grpc && path.is_some() {
            bail!("{url}: a gRPC address has no path; --model names the model");
        }
        Ok(Self { protocol, authority, path })
    }

    pub(super) async fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("there is no server at {}", self.authority))?;
        stream.set_nodelay(true)?;
        Ok(stream)
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
        let target = |url| Target::parse(url).unwrap();
        assert_eq!(target("http://localhost:8000").path, None);
        assert_eq!(target("http://localhost:8000/").path, None);
        let path = Some("/v1/models/m/classify?top_k=1".to_owned());
        assert_eq!(target("http://localhost:8000/v1/models/m/classify?top_k=1").path, path);
        assert_eq!(target("http://localhost").authority, "localhost:80");
        let grpc = Target { protocol: Protocol::Grpc, authority: "localhost:8001".to_owned(), path: None };
        assert_eq!(target("grpc://localhost"), grpc);
        for url in ["https://localhost", "localhost:8000", "http://", "", "grpc://localhost/v1/classify"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
