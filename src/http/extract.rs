//! What handlers take out of a request: the body under its limits, the model that the path names, and query parameters.
//!
//! Axum's own extractors answer a bad request in plain text; these answer it as every other error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Uri, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::HttpError;
use super::{App, HttpConfig};
use crate::error::{Error, Result};
use crate::inference::{HeldBytes, RequestContext, parse_version};
use crate::serde_words::in_words;
use crate::telemetry::Trace;

/// A request's whole body, decompressed, and when it was complete.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) bytes: Bytes,
    /// The request's arrival: deadlines count from here, so that a slow upload does not use up the time to answer it.
    pub(super) received: Instant,
    /// The request's, which the middleware began.
    trace: Trace,
    /// Counts the bytes as long as the request is not answered. Handlers keep it, and move only the bytes on.
    _held: HeldBytes,
}

impl Payload {
    /// The context of a request that came with this body, with the model's default priority and timeout.
    pub(super) fn context(&self) -> RequestContext {
        let trace = self.trace.clone();
        RequestContext { protocol: "http", received: self.received, priority: None, timeout: None, trace }
    }
}

impl FromRequest<Arc<App>> for Payload {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, HttpError> {
        let (parts, body) = request.into_parts();
        // The decompression layer removes the encodings that it undoes: one that is still here is one that it does not know.
        if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            return Err(HttpError(Error::unsupported_media(format!(
                "a body may be compressed with gzip or deflate, not with `{}`",
                String::from_utf8_lossy(encoding.as_bytes())
            ))));
        }
        let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let limits = BodyLimits::from(&app.config);
        let body_bytes = app.inference.body_bytes();
        if let Some(declared) = declared.filter(|&declared| declared <= limits.bytes as u64) {
            body_bytes.check(declared)?;
        }
        let mut held = body_bytes.open();
        let bytes =
            tokio::time::timeout(limits.deadline, read_body(body, declared, limits, &mut held)).await.unwrap_or_else(
                |_| Err(Error::invalid(format!("the body took longer than {} ms", limits.deadline.as_millis()))),
            )?;
        let trace = parts.extensions.get::<Trace>().cloned().unwrap_or_default();
        Ok(Self { bytes, received: Instant::now(), trace, _held: held })
    }
}

/// How large a body may be, and how slow.
#[derive(Debug, Clone, Copy)]
struct BodyLimits {
    bytes: usize,
    /// The longest that it may stand still.
    timeout: Duration,
    /// The longest that it may take in all.
    deadline: Duration,
}

impl From<&HttpConfig> for BodyLimits {
    fn from(config: &HttpConfig) -> Self {
        Self {
            bytes: config.max_body_bytes,
            timeout: Duration::from_millis(config.body_timeout_ms),
            deadline: Duration::from_millis(config.body_deadline_ms),
        }
    }
}

/// Reads `body` into one piece, counting in `held` what has come.
async fn read_body(mut body: Body, declared: Option<u64>, limits: BodyLimits, held: &mut HeldBytes) -> Result<Bytes> {
    let BodyLimits { bytes: limit, timeout, .. } = limits;
    let too_large = || Error::too_large(format!("the body is over the limit of {limit} bytes"));
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut next = async || match tokio::time::timeout(timeout, body.frame()).await {
        Ok(None) => Ok(None),
        // Trailers are not data and mean nothing here.
        Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
        Ok(Some(Err(error))) => {
            Err(Error::invalid("the body broke off, or is not compressed as its headers say").with_source(error))
        }
        Err(_) => Err(Error::invalid(format!("the body stood still for {} ms", timeout.as_millis()))),
    };

    let Some(first) = next().await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(too_large());
    }
    held.grow(first.len())?;
    // Most bodies arrive in one piece, which is then not copied.
    let Some(mut piece) = next().await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(declared.map_or(2 * first.len(), |length| length as usize));
    whole.extend_from_slice(&first);
    loop {
        if piece.len() > limit - whole.len() {
            return Err(too_large());
        }
        held.grow(piece.len())?;
        whole.extend_from_slice(&piece);
        match next().await? {
            Some(following) => piece = following,
            None => return Ok(whole.freeze()),
        }
    }
}

/// The model, and perhaps version, that a path names.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) model: String,
    pub(super) version: Option<u64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        Ok(Segments::of(parts, state).await?.parse()?)
    }
}

/// The model, and perhaps version, that a path names before a verb. The router can't tell a verb from the name that it stands
/// behind, so that is done here.
#[derive(Debug)]
pub(super) struct VerbTarget {
    pub(super) target: Target,
    pub(super) verb: Verb,
}

/// What may stand behind a colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Predict,
    Explain,
}

impl<S: Send + Sync> FromRequestParts<S> for VerbTarget {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let mut segments = Segments::of(parts, state).await?;
        let last = segments.version.as_mut().unwrap_or(&mut segments.model);
        let (name, verb) = match last.rsplit_once(':') {
            Some((name, "predict")) => (name.to_owned(), Verb::Predict),
            Some((name, "explain")) => (name.to_owned(), Verb::Explain),
            _ => {
                let path = parts.uri.path();
                return Err(HttpError(Error::not_found(format!(
                    "there is nothing to post to at {path}: `:predict`, `:explain` or `/classify` must follow"
                ))));
            }
        };
        *last = name;
        Ok(Self { target: segments.parse()?, verb })
    }
}

/// What a path has in the places of model and version.
#[derive(Deserialize)]
struct Segments {
    model: String,
    version: Option<String>,
}

impl Segments {
    async fn of<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self> {
        let segments = Path::from_request_parts(parts, state).await;
        segments
            .map(|Path(segments)| segments)
            .map_err(|rejection| Error::invalid("the path is not percent-encoded UTF-8").with_source(rejection))
    }

    fn parse(self) -> Result<Target> {
        let version = self.version.map(|version| parse_version(&self.model, &version)).transpose()?;
        Ok(Target { model: self.model, version })
    }
}

/// Query parameters.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        Ok(Self(query(&parts.uri)?))
    }
}

/// The query of `uri`.
///
/// # Errors
/// `InvalidArgument` saying what is wrong in it.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T> {
    let Query(parameters) = Query::try_from_uri(uri).map_err(|rejection| {
        let reason = std::error::Error::source(&rejection).map(in_words).unwrap_or_default();
        Error::invalid(format!("the query string is wrong: {reason}"))
    })?;
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;
    use crate::error::ErrorKind;
    use crate::inference::BodyBytes;

    fn limits(bytes: usize) -> BodyLimits {
        BodyLimits { bytes, timeout: Duration::from_secs(30), deadline: Duration::from_mins(5) }
    }

    /// Reads a body where `room` bytes may be in memory.
    async fn read(body: Body, declared: Option<u64>, limit: usize, room: usize) -> Result<Bytes> {
        read_body(body, declared, limits(limit), &mut BodyBytes::new(room).open()).await
    }

    fn body_of(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece))).collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_joined_up_to_its_limit() {
        for (pieces, whole) in
            [(vec![], "".as_bytes()), (vec![b"abc".as_slice()], b"abc"), (vec![b"ab", b"", b"cd", b"e"], b"abcde")]
        {
            let length = whole.len();
            assert_eq!(read(body_of(&pieces), None, 5, 5).await.unwrap(), whole);
            assert_eq!(read(body_of(&pieces), Some(length as u64), 5, 5).await.unwrap(), whole);
            if length > 0 {
                let error = read(body_of(&pieces), None, length - 1, 5).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
                let error = read(body_of(&pieces), None, length, length - 1).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Overloaded);
            }
        }
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_refused_unread() {
        let unread = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(unread, Some(u64::MAX), 5, 5).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_refused() {
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(stalled, None, 5, 5).await.unwrap_err();
        assert_eq!(error.message(), "the body stood still for 30000 ms");
    }

    #[tokio::test]
    async fn a_single_piece_is_not_copied() {
        let piece = Bytes::from_static(b"picture");
        let whole = read(Body::from(piece.clone()), Some(7), 10, 10).await.unwrap();
        assert_eq!(whole.as_ptr(), piece.as_ptr());
    }
}
