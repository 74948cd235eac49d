//! Errors at the edge of HTTP: their status codes and their one body form, `{"error": "<sentence>"}`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// What handlers and extractors fail with.
///
/// The response carries the [`Error`] in its extensions too, where the middleware finds it: it logs the cause, and gives the
/// client of an internal error the request id.
#[derive(Debug)]
pub(super) struct HttpError(pub(super) Error);

/// A handler's result.
pub(super) type HttpResult<T> = Result<T, HttpError>;

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = error_response(status_of(self.0.kind()), self.0.message());
        if matches!(self.0.kind(), ErrorKind::Overloaded | ErrorKind::Unavailable) && !self.0.is_lasting() {
            let seconds = retry_after_seconds(self.0.retry_after());
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.kind() == ErrorKind::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self.0);
        response
    }
}

/// The status code of an error kind.
pub(super) fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::FailedPrecondition => StatusCode::CONFLICT,
        ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The body of every error.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct ErrorJson<'a> {
    /// What went wrong, in a sentence.
    error: &'a str,
}

/// A response of `status` whose body says `message`.
pub(super) fn error_response(status: StatusCode, message: &str) -> Response {
    (status, Json(ErrorJson { error: message })).into_response()
}

/// The fallback of every router.
pub(super) async fn no_such_path(uri: Uri) -> HttpError {
    HttpError(Error::not_found(format!("there is nothing at {}", uri.path())))
}

/// The answer to a known path under another method. The router adds the `Allow` header.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    error_response(StatusCode::METHOD_NOT_ALLOWED, &format!("{} does not take {method}", uri.path()))
}

/// `Retry-After` has whole seconds: rounded up, and at least 1, so that "soon" never reads as "now".
fn retry_after_seconds(retry_after: Option<Duration>) -> u64 {
    let duration = retry_after.unwrap_or_default();
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_status_of_the_wire_contract() {
        let table = [
            (ErrorKind::InvalidArgument, 400),
            (ErrorKind::PayloadTooLarge, 413),
            (ErrorKind::UnsupportedMedia, 415),
            (ErrorKind::Unauthenticated, 401),
            (ErrorKind::PermissionDenied, 403),
            (ErrorKind::NotFound, 404),
            (ErrorKind::FailedPrecondition, 409),
            (ErrorKind::Overloaded, 429),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::DeadlineExceeded, 504),
            (ErrorKind::Unimplemented, 501),
            (ErrorKind::Internal, 500),
        ];
        for (kind, status) in table {
            let response = HttpError(Error::new(kind, "no")).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 429 || status == 503);
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
        }
        let lasting = HttpError(Error::unavailable("no").lasting()).into_response();
        assert!(!lasting.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn retry_after_is_rounded_up_and_at_least_a_second() {
        for (given, expected) in [
            (None, 1),
            (Some(Duration::ZERO), 1),
            (Some(Duration::from_millis(1)), 1),
            (Some(Duration::from_secs(2)), 2),
            (Some(Duration::from_millis(2001)), 3),
            (Some(Duration::MAX), u64::MAX),
        ] {
            assert_eq!(retry_after_seconds(given), expected);
        }
    }
}
