//! The client's side of TLS, for the load that `convoy bench` puts on a server.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::{Protocol, read_certificates};
use crate::error::{Error, Result};

/// Makes connections to one server encrypted ones.
pub struct Connector {
    tls: TlsConnector,
    /// Who the server must prove to be.
    name: ServerName<'static>,
}

impl Connector {
    /// For the server at `host`, as a URL names it, whose certificate one of those in the file `authorities` has signed.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no certificate in the file, or `host` is not a name or an address.
    pub fn new(authorities: &Path, host: &str, protocol: Protocol) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(authorities)? {
            roots.add(certificate).map_err(|error| {
                Error::invalid(format!("the certificates in {} cannot sign a server's", authorities.display()))
                    .with_source(error)
            })?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        // An IPv6 address has brackets in a URL, and none elsewhere.
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name)
            .map_err(|error| Error::invalid(format!("{host} is not a host's name")).with_source(error))?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), name })
    }

    /// Shakes hands with the server.
    ///
    /// # Errors
    /// When it does not speak TLS, or is not who it should be.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        self.tls.connect(self.name.clone(), stream).await
    }
}
