//! The download of one large file whose hash is known: resumed where an earlier one broke off, and never taken on trust.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::sha256;

/// How long a server may take to accept a connection, and to begin its answer. How long the file takes is the network's affair.
const TIMEOUT: Duration = Duration::from_secs(30);

const BUFFER_BYTES: usize = 1 << 16;

/// Makes `path` the file at `url`, whose SHA-256 begins with the hexadecimal digits `digest` and which has at most `max_bytes`. What was downloaded stays in
/// `path` with `.part` appended until it is whole.
///
/// # Errors
/// When the file cannot be downloaded, or is another one. A file that broke off is kept for the next call, a wrong or too large
/// one is not.
pub(super) fn fetch(url: &str, path: &Path, digest: &str, max_bytes: u64) -> Result<()> {
    if path.exists() {
        let found = sha256::hex(&sha256::of_file(path)?);
        ensure!(
            found.starts_with(digest),
            "{} is damaged: its SHA-256 is {found}, where its name says {digest}; remove it to download it again",
            path.display()
        );
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    }
    let part_path = path.with_added_extension("part");
    let mut part = OpenOptions::new().read(true).append(true).create(true).open(&part_path);
    let part = part.as_mut().map_err(|error| anyhow::anyhow!("{} cannot be written: {error}", part_path.display()))?;
    let mut hash = Sha256::new();
    let offset = sha256::update(&mut hash, part)?;

    let mut response = request(url, offset)?;
    let nothing_more = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
    if nothing_more || is_other_part(&response, offset) {
        if nothing_more && sha256::hex(&hash.clone().finalize()).starts_with(digest) {
            part.sync_all()?;
            return rename(&part_path, path);
        }
        response = request(url, 0)?;
    }
    let offset = match response.status() {
        StatusCode::PARTIAL_CONTENT => offset,
        // Whoever does not know ranges sends everything.
        StatusCode::OK => {
            part.set_len(0)?;
            hash = Sha256::new();
            0
        }
        status => bail!("{url} answered {status}"),
    };
    if let Received::TooMuch = receive(response, part, &mut hash, offset, max_bytes)? {
        fs::remove_file(&part_path)?;
        bail!("{url} is not what its name says: it has more than {max_bytes} bytes; it was removed");
    }
    let found = sha256::hex(&hash.finalize());
    if !found.starts_with(digest) {
        fs::remove_file(&part_path)?;
        bail!("{url} is not what its name says: its SHA-256 is {found} and not {digest}…; it was removed");
    }
    part.sync_all()?;
    rename(&part_path, path)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("{} cannot be written", to.display()))
}

fn request(url: &str, offset: u64) -> Result<Response<Body>> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .user_agent(concat!("convoy/", env!("CARGO_PKG_VERSION")));
    let mut request = Agent::new_with_config(config.build()).get(url);
    if offset > 0 {
        request = request.header(header::RANGE, format!("bytes={offset}-"));
    }
    request.call().with_context(|| format!("{url} cannot be downloaded"))
}

/// Whether the server sends a part of the file that does not begin at `offset`.
fn is_other_part(response: &Response<Body>, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && start != Some(offset)
}

/// What came of a body.
enum Received {
    All,
    TooMuch,
}

/// Appends the body to `part`, of which `offset` bytes are there, up to `max_bytes`, and shows how far it is.
fn receive(
    response: Response<Body>,
    part: &mut File,
    hash: &mut Sha256,
    offset: u64,
    max_bytes: u64,
) -> Result<Received> {
    let total = response.body().content_length().map(|length| offset.saturating_add(length));
    if total.is_some_and(|total| total > max_bytes) {
        return Ok(Received::TooMuch);
    }
    let mut body = response.into_body().into_reader();
    let mut progress = Progress::new(offset, total);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let received = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(received) => &buffer[..received],
            Err(error) => {
                progress.end();
                return Err(error).context(broken_off(progress.bytes, total));
            }
        };
        if progress.bytes + received.len() as u64 > max_bytes {
            progress.end();
            return Ok(Received::TooMuch);
        }
        part.write_all(received).context("the downloaded file cannot be written")?;
        hash.update(received);
        progress.advance(received.len());
    }
    progress.end();
    ensure!(total.is_none_or(|total| total == progress.bytes), "{}", broken_off(progress.bytes, total));
    Ok(Received::All)
}

fn broken_off(bytes: u64, total: Option<u64>) -> String {
    let total = total.map_or(String::new(), |total| format!(" of {total}"));
    format!("the download broke off after {bytes}{total} bytes; the same command goes on from there")
}

/// A bar on standard error, where that is a terminal.
struct Progress {
    bytes: u64,
    total: Option<u64>,
    started: Instant,
    drawn: Option<Instant>,
    terminal: bool,
}

impl Progress {
    const WIDTH: u64 = 40;

    fn new(bytes: u64, total: Option<u64>) -> Self {
        Self { bytes, total, started: Instant::now(), drawn: None, terminal: io::stderr().is_terminal() }
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.terminal && self.drawn.is_none_or(|drawn| drawn.elapsed() >= Duration::from_millis(100)) {
            self.drawn = Some(Instant::now());
            self.draw();
        }
    }

    fn draw(&self) {
        // There is nobody to tell when standard error is gone.
        let _ = write!(io::stderr(), "\r{}", bar(self.bytes, self.total, self.started.elapsed()));
    }

    fn end(&self) {
        if self.terminal {
            self.draw();
            let _ = writeln!(io::stderr());
        }
    }
}

/// `[####    ]  12.3 of 97.8 MB, 45 s`.
fn bar(bytes: u64, total: Option<u64>, elapsed: Duration) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let seconds = elapsed.as_secs();
    let Some(total) = total else { return format!("{:.1} MB, {seconds} s", megabytes(bytes)) };
    let filled = (bytes.min(total) * Progress::WIDTH).checked_div(total).unwrap_or(Progress::WIDTH) as usize;
    let hashes = "#".repeat(filled);
    let width = Progress::WIDTH as usize;
    format!("[{hashes:width$}] {:>6.1} of {:.1} MB, {seconds} s", megabytes(bytes), megabytes(total))
}
