//! As much of an HTTP client as asking for a page takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(10);

/// The body of the answer to `GET path`.
///
/// # Errors
/// When there is none, or its status is not 200.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let (status, body) = ask(address, path, "")?;
    if status != 200 {
        bail!("{address}{path} answers {status}");
    }
    Ok(body)
}

/// The status of the answer to `GET path` with these headers, each with its line break.
///
/// # Errors
/// When there is none.
pub(super) fn status_of(address: SocketAddr, path: &str, headers: &str) -> Result<u16> {
    ask(address, path, headers).map(|(status, _)| status)
}

fn ask(address: SocketAddr, path: &str, headers: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("{address} answers with no head") };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("{address} answers {head}"))?, body.to_owned()))
}

/// `text` as it may stand in a query.
pub(super) fn escape(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped_by_bytes() {
        assert_eq!(escape(r#"up{job="a b"}"#), "up%7Bjob%3D%22a%20b%22%7D");
    }
}
