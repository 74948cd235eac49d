//! Errors at the edge of gRPC: their status codes.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::call::Call;
use crate::error::{Error, ErrorKind};

/// The trailer by which a server tells a client's retry policy how many milliseconds to wait (gRFC A6).
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The status code of an error kind.
pub(super) fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument | ErrorKind::UnsupportedMedia => Code::InvalidArgument,
        ErrorKind::PayloadTooLarge | ErrorKind::Overloaded => Code::ResourceExhausted,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The sentence that the client of `call` gets. The cause of an internal error goes to the log, the request id to both.
pub(super) fn message_of(error: &Error, call: &Call) -> String {
    if error.kind() != ErrorKind::Internal {
        return error.message().to_owned();
    }
    let trace_id = call.trace.id().map(tracing::field::display);
    tracing::error!(id = %call.id, trace_id, error = %error.chain(), "a request failed");
    format!("{error} (request id {})", call.id)
}

/// The status that ends `call` with `error`.
pub(super) fn status_of(error: &Error, call: &Call) -> Status {
    let mut status = Status::new(code_of(error.kind()), message_of(error, call));
    if let (Some(retry_after), ErrorKind::Overloaded | ErrorKind::Unavailable) = (error.retry_after(), error.kind()) {
        let milliseconds = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert(RETRY_PUSHBACK, MetadataValue::from(milliseconds));
    }
    status
}

/// A status of tonic's own, under the code that the error table has for it: tonic says `OUT_OF_RANGE` of a message over the
/// limit.
pub(super) fn corrected(code: Code) -> Code {
    if code == Code::OutOfRange { Code::ResourceExhausted } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_code_of_the_wire_contract() {
        let table = [
            (ErrorKind::InvalidArgument, Code::InvalidArgument),
            (ErrorKind::PayloadTooLarge, Code::ResourceExhausted),
            (ErrorKind::UnsupportedMedia, Code::InvalidArgument),
            (ErrorKind::Unauthenticated, Code::Unauthenticated),
            (ErrorKind::PermissionDenied, Code::PermissionDenied),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::FailedPrecondition, Code::FailedPrecondition),
            (ErrorKind::Overloaded, Code::ResourceExhausted),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::DeadlineExceeded, Code::DeadlineExceeded),
            (ErrorKind::Unimplemented, Code::Unimplemented),
            (ErrorKind::Internal, Code::Internal),
        ];
        for (kind, code) in table {
            assert_eq!(code_of(kind), code, "{kind:?}");
        }
    }
}
