//! TLS: who is let in, and how certificates are renewed.

use std::path::Path;

use convoy::server::Server;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::client::{Client, Grpc, Http};
use crate::server::{Repository, config, start, within_a_minute};
use crate::{repository, until};

/// The versions of TLS, one by one.
const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

/// A server whose certificate is of `authority`, in the folder that comes with it.
async fn server(authority: &Authority, client_authority: Option<&Authority>) -> (Server, TempDir, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository();
    let mut config = config(&repository);
    let (certificate, key) = authority.issue("localhost").write(folder.path());
    config.tls.certificate = Some(certificate);
    config.tls.key = Some(key);
    config.tls.client_ca = client_authority.map(|authority| authority.write(folder.path()));
    (start(config).await, folder, repository)
}

/// Whether the server answers `client` over HTTP, and whether over gRPC.
async fn is_answered(server: &Server, client: &Client) -> [bool; 2] {
    let http = match client.connect(server.http_address()).await {
        Ok(stream) => Http::over(stream).await.send("GET", "/v2", &[]).await.is_ok_and(|(status, _)| status == 200),
        Err(_) => false,
    };
    let grpc = match client.connect(server.grpc_address()).await {
        // A refusal after the handshake, as TLS 1.3 has it, ends the connection with the first read.
        Ok(stream) => {
            is_greeted(stream).await
                && Grpc::over(client.connect(server.grpc_address()).await.unwrap()).await.is_alive().await
        }
        Err(_) => false,
    };
    [http, grpc]
}

/// Whether the server greets as HTTP/2 has it.
async fn is_greeted(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> bool {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.is_ok() && stream.flush().await.is_ok() && stream.read_u8().await.is_ok()
}

#[tokio::test]
async fn both_interfaces_are_encrypted() {
    let authority = Authority::new();
    let (server, _folder, _repository) = server(&authority, None).await;
    for versions in VERSIONS {
        let client = Client { versions, ..Client::of(&authority) };
        assert_eq!(is_answered(&server, &client).await, [true; 2], "{versions:?}");
    }
    let stranger = Client::of(&Authority::new());
    assert_eq!(is_answered(&server, &stranger).await, [false; 2]);
}

#[tokio::test]
async fn the_protocol_is_settled_by_the_handshake() {
    let authority = Authority::new();
    let (server, _folder, _repository) = server(&authority, None).await;
    let all: &[&[u8]] = &[b"h2", b"http/1.1"];
    let client = Client { protocols: all, ..Client::of(&authority) };
    let stream = client.connect(server.http_address()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let stream = client.connect(server.grpc_address()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // Who speaks something else only is told so, and not misunderstood.
    let client = Client { protocols: &[b"http/1.1"], ..Client::of(&authority) };
    assert!(client.connect(server.grpc_address()).await.is_err());
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_are_let_in() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (server, _folder, _repository) = server(&authority, Some(&clients)).await;
    for versions in VERSIONS {
        for (identity, expected) in [
            (None, false),
            (Some(Authority::new().issue("client")), false),
            // That a certificate is good for the server says nothing of clients.
            (Some(authority.issue("client")), false),
            (Some(clients.issue("client")), true),
        ] {
            let client = Client { is: identity, versions, ..Client::of(&authority) };
            assert_eq!(is_answered(&server, &client).await, [expected; 2], "{versions:?}");
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_while_connections_go_on() {
    let authority = Authority::new();
    let (server, folder, _repository) = server(&authority, None).await;
    let client = Client::of(&authority);
    let mut http = Http::over(client.connect(server.http_address()).await.unwrap()).await;
    let mut grpc = Grpc::over(client.connect(server.grpc_address()).await.unwrap()).await;
    assert!(grpc.is_alive().await);

    let renewed = authority.issue("localhost");
    renewed.write(folder.path());
    for address in [server.http_address(), server.grpc_address()] {
        until(async || {
            let stream = client.connect(address).await.unwrap();
            stream.get_ref().1.peer_certificates().unwrap()[0] == renewed.certificate
        })
        .await;
    }
    assert_eq!(http.send("GET", "/v2", &[]).await.unwrap().0, 200);
    assert!(grpc.is_alive().await);
}

#[tokio::test]
async fn a_client_authority_that_is_replaced_lets_its_clients_in_and_the_others_out() {
    let (authority, before, after) = (Authority::new(), Authority::new(), Authority::new());
    let (server, folder, _repository) = server(&authority, Some(&before)).await;
    let old = Client { is: Some(before.issue("client")), ..Client::of(&authority) };
    let new = Client { is: Some(after.issue("client")), ..Client::of(&authority) };
    assert_eq!(is_answered(&server, &old).await, [true; 2]);
    after.write(folder.path());
    until(async || Box::pin(is_answered(&server, &new)).await == [true; 2]).await;
    assert_eq!(is_answered(&server, &old).await, [false; 2]);
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_sent_away_and_the_others_served() {
    let authority = Authority::new();
    let (server, _folder, _repository) = server(&authority, None).await;
    for address in [server.http_address(), server.grpc_address()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // Ended or reset, but with nothing that was meant for someone who can decrypt it.
        let _ = within_a_minute(stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    // One that says nothing at all holds nobody up.
    let _silent = TcpStream::connect(server.http_address()).await.unwrap();
    assert_eq!(is_answered(&server, &Client::of(&authority)).await, [true; 2]);
}

#[tokio::test]
async fn metrics_and_their_ports_probes_are_in_the_clear() {
    let authority = Authority::new();
    let (server, _folder, _repository) = server(&authority, Some(&authority)).await;
    let mut http = Http::over(TcpStream::connect(server.metrics_address()).await.unwrap()).await;
    for (path, status) in
        [("/metrics", 200), ("/v2/health/live", 200), ("/v2/health/ready", 200), ("/v2", 404), ("/", 404)]
    {
        assert_eq!(http.send("GET", path, &[]).await.unwrap().0, status, "{path}");
    }
}

#[tokio::test]
async fn a_silent_client_does_not_hold_up_the_end() {
    let (server, _folder, _repository) = server(&Authority::new(), None).await;
    let _silent = TcpStream::connect(server.http_address()).await.unwrap();
    within_a_minute(server.shutdown()).await;
}

#[tokio::test]
async fn files_that_are_not_there_are_named_at_the_start() {
    let repository = repository();
    let mut config = config(&repository);
    config.tls.certificate = Some(Path::new("/nonexistent/certificate.pem").to_owned());
    config.tls.key = Some(Path::new("/nonexistent/key.pem").to_owned());
    let error = Server::start(config).await.unwrap_err();
    assert!(error.message().contains("/nonexistent/certificate.pem"), "{error}");
}
