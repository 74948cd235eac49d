//! TLS with rustls, by certificates that are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Stream;
use crate::error::{Error, Result};
use crate::reload::Reloaded;

/// How long a handshake may take. A client that is silent meanwhile takes up a place among the connections.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The `[tls]` table of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate chain (PEM), its own certificate first. Without one there is no TLS.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    pub key: Option<PathBuf>,
    /// The certificates (PEM) by which clients' certificates must be signed. Without them, clients need none.
    pub client_ca: Option<PathBuf>,
}

impl TlsConfig {
    /// Refuses what is only half said.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        match (&self.certificate, &self.key, &self.client_ca) {
            (Some(_), None, _) | (None, Some(_), _) => {
                Err(Error::invalid("tls.certificate and tls.key must be given together"))
            }
            (None, None, Some(_)) => Err(Error::invalid("tls.client_ca needs tls.certificate and tls.key")),
            _ => Ok(()),
        }
    }
}

/// Says which cryptography the TLS of clients takes that cannot be told otherwise: this server's own, and no second one.
pub fn prepare_clients() {
    // An error says that it has been said before, which is as well.
    drop(ring::default_provider().install_default());
}

/// What is spoken on a connection, as the handshake settles it.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// Its name in the handshake (RFC 7301).
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// The server's side of TLS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls(Reloaded<Sides>);

/// One configuration for each protocol. Each has its own sessions too, and new ones forget the old's: a client whose
/// certificate is no longer taken cannot resume.
struct Sides {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl Tls {
    /// Reads certificates and key, where there are any.
    ///
    /// # Errors
    /// `InvalidArgument` naming the file that cannot be read, or that holds nothing of use.
    pub fn open(config: &TlsConfig) -> Result<Option<Self>> {
        let TlsConfig { certificate: Some(certificate), key: Some(key), client_ca } = config.clone() else {
            return Ok(None);
        };
        let paths = [Some(certificate.clone()), Some(key.clone()), client_ca.clone()];
        let load = move || load(&certificate, &key, client_ca.as_deref());
        Reloaded::open("the TLS certificates", paths.into_iter().flatten().collect(), load)
            .map(|sides| Some(Self(sides)))
    }

    /// What accepts connections that speak `protocol`.
    pub fn acceptor(&self, protocol: Protocol) -> Acceptor {
        Acceptor { tls: self.clone(), protocol }
    }

    /// Reads the files again whenever one changes, and never ends. Connections keep what they were made with.
    pub async fn watch(self) {
        self.0.watch().await;
    }
}

/// Makes connections encrypted ones. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Acceptor {
    tls: Tls,
    protocol: Protocol,
}

impl Acceptor {
    /// Shakes hands with the client.
    ///
    /// # Errors
    /// In words, why there is no connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<Stream, String> {
        let sides = self.tls.0.current();
        let config = match self.protocol {
            Protocol::Http1 => &sides.http1,
            Protocol::Http2 => &sides.http2,
        };
        let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(Stream::tls(stream)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the client was too slow".to_owned()),
        }
    }
}

fn load(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Sides> {
    let chain = read_certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "private key", error))?;
    let clients = client_ca.map(client_verifier).transpose()?;
    let side = |protocol: Protocol| {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain.clone(), private.clone_key()).map_err(|error| {
            let files = (certificate.display(), key.display());
            Error::invalid(format!("the certificate {} and the key {} do not work together", files.0, files.1))
                .with_source(error)
        })?;
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        Ok(Arc::new(config))
    };
    Ok(Sides { http1: side(Protocol::Http1)?, http2: side(Protocol::Http2)? })
}

fn client_verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>> {
    let unusable = |error: &dyn std::error::Error| {
        Error::invalid(format!("the certificates in {} cannot sign clients' certificates: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| unusable(&error))
}

pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, "certificate", error))?;
    if certificates.is_empty() {
        return Err(unreadable(path, "certificate", PemError::NoItemsFound));
    }
    Ok(certificates)
}

fn unreadable(path: &Path, what: &str, error: PemError) -> Error {
    Error::invalid(format!("there is no {what} to read in {}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_configuration_is_refused() {
        let config = |certificate: Option<&str>, key: Option<&str>, client_ca: Option<&str>| TlsConfig {
            certificate: certificate.map(Into::into),
            key: key.map(Into::into),
            client_ca: client_ca.map(Into::into),
        };
        for half in [
            config(Some("c"), None, None),
            config(None, Some("k"), None),
            config(None, None, Some("a")),
            config(Some("c"), None, Some("a")),
        ] {
            assert!(half.validate().unwrap_err().message().starts_with("tls."), "{half:?}");
        }
        config(Some("c"), Some("k"), Some("a")).validate().unwrap();
        assert!(Tls::open(&TlsConfig::default()).unwrap().is_none());
    }

    #[test]
    fn files_without_what_is_needed_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let certificate = write("certificate.pem", &made.cert.pem());
        let key = write("key.pem", &made.signing_key.serialize_pem());
        let other_key = write("other.pem", &other.serialize_pem());
        let empty = write("empty.pem", "no PEM");
        let missing = folder.path().join("missing.pem");
        load(&certificate, &key, Some(&certificate)).unwrap_or_else(|error| panic!("{}", error.chain()));
        for (certificate, key, client_ca, named) in [
            (&empty, &key, None, "empty.pem"),
            (&missing, &key, None, "missing.pem"),
            (&key, &key, None, "key.pem"),
            (&certificate, &empty, None, "empty.pem"),
            (&certificate, &certificate, None, "certificate.pem"),
            (&certificate, &other_key, None, "other.pem"),
            (&certificate, &key, Some(&*empty), "empty.pem"),
            (&certificate, &key, Some(&*key), "key.pem"),
        ] {
            let Err(error) = load(certificate, key, client_ca) else { panic!("{named}") };
            assert!(error.message().contains(named), "{error}");
        }
    }
}
