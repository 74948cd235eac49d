//! The one error type that crosses module borders, and its kinds.
//!
//! An [`Error`] has two faces. `message` is a sentence for the client. `source` is the internal cause, which only the log
//! sees. The kind decides the status on each protocol; that mapping lives at the protocol's own edge (`http::error`,
//! `grpc::status`), so nothing here knows about HTTP or gRPC.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// What went wrong, as far as a client can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: malformed JSON, tensor or picture; wrong shape or datatype.
    InvalidArgument,
    /// A body, picture or tensor is over a configured limit.
    PayloadTooLarge,
    /// The bytes are not a picture of a format that is decoded here.
    UnsupportedMedia,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials without the right that the call needs.
    PermissionDenied,
    /// No such model, version, layer or path.
    NotFound,
    /// Right in itself, but not in the state that something here is in: to ask again is of no use until somebody has changed that.
    FailedPrecondition,
    /// The queue is full, or the deadline cannot be met.
    Overloaded,
    /// Loading, draining or shutting down.
    Unavailable,
    /// The request expired before it was answered.
    DeadlineExceeded,
    /// A valid call that this server does not offer.
    Unimplemented,
    /// A failure of the server's own, a failed run for instance.
    Internal,
}

impl ErrorKind {
    /// The kind in `snake_case`, as logs and metric labels spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::FailedPrecondition => "failed_precondition",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }
}

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// An error with a sentence for the client and, where there is one, a cause for the log.
///
/// Cheap to clone: one failed batch answers many requests.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    is_lasting: bool,
    #[source]
    source: Option<Cause>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that tells the client `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, is_lasting: false, source: None }
    }

    /// Attaches the internal cause, which is logged and never sent.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// An internal error of what panicked; the cause is the panic's message.
    pub fn of_panic(message: impl Into<String>, panic: &(dyn Any + Send)) -> Self {
        let cause = panic.downcast_ref::<&str>().copied();
        let cause = cause.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::internal(message).with_source(cause.unwrap_or("a panic"))
    }

    /// Attaches the time after which a retry makes sense.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Says that to ask again soon is of no use: somebody has to do something first.
    pub fn lasting(mut self) -> Self {
        self.is_lasting = true;
        self
    }

    /// The same error with its message rewritten, to say which part of a request is meant.
    pub fn map_message(mut self, rewrite: impl FnOnce(String) -> String) -> Self {
        self.message = rewrite(self.message);
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The time after which a retry makes sense, where it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether to ask again soon is of no use.
    pub fn is_lasting(&self) -> bool {
        self.is_lasting
    }

    /// The message and every cause behind it, joined by `: `, for the log and for a model's reason.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// [`ErrorKind::PayloadTooLarge`].
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::PayloadTooLarge, message)
    }

    /// [`ErrorKind::UnsupportedMedia`].
    pub fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::UnsupportedMedia, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::FailedPrecondition`].
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition, message)
    }

    /// [`ErrorKind::Overloaded`].
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Overloaded, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::DeadlineExceeded`].
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::DeadlineExceeded, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}
