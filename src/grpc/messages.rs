//! A call's messages on their way in: their bytes count against the server's bound, and none may take for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use prost::Message;
use tokio::time::Sleep;
use tonic::Status;

use super::call::Call;
use super::status::status_of;
use crate::error::Result;
use crate::inference::HeldBytes;

/// The bytes of a call's message, from the first that arrives until the message is answered.
#[derive(Debug, Clone)]
pub(super) struct MessageBytes(Arc<Mutex<HeldBytes>>);

impl MessageBytes {
    pub(super) fn new(held: HeldBytes) -> Self {
        Self(Arc::new(Mutex::new(held)))
    }

    /// Moves them out, for a message of a stream that is complete. The next one begins with none.
    pub(super) fn take(&self) -> Self {
        Self::new(self.with(HeldBytes::take))
    }

    /// Counts a message that came compressed by its own size.
    ///
    /// # Errors
    /// `Overloaded` when there is no room for it.
    pub(super) fn count_decompressed(&self, message: &impl Message) -> Result<()> {
        self.with(|held| held.grow(message.encoded_len().saturating_sub(held.bytes())))
    }

    fn with<T>(&self, change: impl FnOnce(&mut HeldBytes) -> T) -> T {
        // It is a number, which is whole whatever panicked elsewhere.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The body of a call.
pub(super) struct Messages {
    inner: Incoming,
    call: Call,
    /// How long a message may take.
    timeout: Duration,
    /// Ends when the message that is arriving has taken too long.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Messages {
    pub(super) fn new(inner: Incoming, call: Call, timeout: Duration) -> Self {
        Self { inner, call, timeout, patience: None }
    }

    /// Completes when the message that is arriving has taken too long; pends while there is none.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.call.bytes.with(|held| held.bytes()) == 0 {
            self.patience = None;
            return Poll::Pending;
        }
        let timeout = self.timeout;
        ready!(self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout))).as_mut().poll(cx));
        Poll::Ready(Status::deadline_exceeded(format!(
            "a message took longer than {} ms to arrive",
            timeout.as_millis()
        )))
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => return self.poll_overdue(cx).map(|status| Some(Err(status))),
            Poll::Ready(frame) => frame,
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let (is_first, grown) = self.call.bytes.with(|held| (held.bytes() == 0, held.grow(data.len())));
            if is_first {
                self.patience = None;
            }
            if let Err(error) = grown {
                return Poll::Ready(Some(Err(status_of(&error, &self.call))));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(Box::new(error)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
