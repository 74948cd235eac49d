//! Connections, byte by byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{config, start, within_a_minute};
use crate::{repository, server};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types and flags of RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call of the health check, in HPACK's plainest form (RFC 7541, sections 6.1 and 6.2.2).
fn head() -> Vec<u8> {
    let path = b"/grpc.health.v1.Health/Check";
    let content_type = b"application/grpc";
    // POST, http; the names `:path` and `content-type` by their index, the name `te` by its letters.
    [
        &[0x83, 0x86, 0x04, path.len() as u8][..],
        path,
        &[0x0f, 0x10, content_type.len() as u8],
        content_type,
        b"\0\x02te\x08trailers",
    ]
    .concat()
}

#[tokio::test]
async fn a_burst_of_cancelled_calls_costs_the_connections_other_calls_nothing() {
    let (server, _repository) = server().await;
    let mut stream = TcpStream::connect(server.grpc_address()).await.unwrap();
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let cancelled = 500;
    for call in 0..cancelled {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * call + 1, &head()));
        bytes.extend(frame(RST_STREAM, 0, 2 * call + 1, &8u32.to_be_bytes()));
    }
    let last = 2 * cancelled + 1;
    bytes.extend(frame(HEADERS, END_HEADERS, last, &head()));
    bytes.extend(frame(DATA, END_STREAM, last, &[0; 5]));
    stream.write_all(&bytes).await.unwrap();

    let answered = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("the connection goes on");
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            assert_ne!(head[3], GO_AWAY, "{}", String::from_utf8_lossy(&payload));
            let id = u32::from_be_bytes(head[5..].try_into().unwrap());
            if (head[3], id) == (HEADERS, last) && head[4] & END_STREAM != 0 {
                return;
            }
        }
    };
    within_a_minute(answered).await;
}

#[tokio::test]
async fn a_client_that_never_begins_is_sent_away() {
    let repository = repository();
    let mut config = config(&repository);
    config.grpc.keep_alive_interval_ms = 100;
    config.grpc.keep_alive_timeout_ms = 100;
    let server = start(config).await;
    for begun in [&[][..], &PREFACE[..10]] {
        let mut stream = TcpStream::connect(server.grpc_address()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut answer = Vec::new();
        within_a_minute(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty());
    }
    // One that begins piece by piece is served.
    let mut stream = TcpStream::connect(server.grpc_address()).await.unwrap();
    stream.write_all(&PREFACE[..10]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(&[&PREFACE[10..], &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let mut head = [0; 9];
    within_a_minute(stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], SETTINGS);
}
