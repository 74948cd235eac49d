//! Clients of both interfaces over any connection, and connections with TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};

use crate::authority::{Authority, Identity};

/// What a TLS client has and takes.
pub(crate) struct Client {
    pub(crate) trusts: CertificateDer<'static>,
    pub(crate) is: Option<Identity>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) protocols: &'static [&'static [u8]],
}

impl Client {
    pub(crate) fn of(authority: &Authority) -> Self {
        Self { trusts: authority.certificate(), is: None, versions: rustls::ALL_VERSIONS, protocols: &[] }
    }

    /// Shakes hands with the server. What it finds wrong with the client may show only when something is read.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusts.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.is {
            Some(identity) => {
                builder.with_client_auth_cert(vec![identity.certificate.clone()], identity.key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

/// Sends HTTP requests without a body.
pub(crate) struct Http(http1::SendRequest<Full<Bytes>>);

impl Http {
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// The status and headers of the answer, unless the connection ends instead.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Result<(u16, HeaderMap)> {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (head, body) = self.0.send_request(request.body(Full::default()).unwrap()).await?.into_parts();
        body.collect().await?;
        Ok((head.status.as_u16(), head.headers))
    }
}

/// Makes gRPC calls.
pub(crate) struct Grpc(http2::SendRequest<Full<Bytes>>);

impl Grpc {
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// The status of the answer to `message`.
    pub(crate) async fn call(&mut self, path: &str, headers: &[(&str, &str)], message: &impl Message) -> Status {
        let message = message.encode_to_vec();
        let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::new(Bytes::from(framed))).unwrap();
        let (head, body) = self.0.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let mut headers = head.headers;
        headers.extend(body.trailers().cloned().unwrap_or_default());
        Status::from_header_map(&headers).expect("every call ends with a status")
    }

    /// Whether the server says that it lives.
    pub(crate) async fn is_alive(&mut self) -> bool {
        let request = convoy::grpc::proto::inference::ServerLiveRequest {};
        self.call("/inference.GRPCInferenceService/ServerLive", &[], &request).await.code() == Code::Ok
    }
}
