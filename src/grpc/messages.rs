//! A call's messages on their way in: their bytes count against the server's bound, and none may take for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::call::Call;
use super::compression::Decompressor;
use super::status::status_of;
use crate::error::Result;
use crate::inference::HeldBytes;

/// The bytes of a call's message, from the first that arrives until the message is answered.
#[derive(Debug, Clone)]
pub(super) struct MessageBytes(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    bytes: HeldBytes,
    /// How many of them the buffer has in which a stream's messages arrive. It stays as large as the largest was, until the
    /// stream ends.
    buffer: usize,
}

impl Held {
    /// How many the message has that is arriving.
    fn arriving(&self) -> usize {
        self.bytes.bytes() - self.buffer
    }
}

impl MessageBytes {
    pub(super) fn new(bytes: HeldBytes) -> Self {
        Self(Arc::new(Mutex::new(Held { bytes, buffer: 0 })))
    }

    /// Moves them out, for a message of a stream that is complete, but for those of the buffer, of which it is a part. The next
    /// one begins with none.
    pub(super) fn take(&self) -> Self {
        Self::new(self.with(|held| {
            held.buffer = held.buffer.max(held.arriving());
            let beyond = held.arriving();
            held.bytes.split(beyond)
        }))
    }

    /// Counts `bytes` more.
    ///
    /// # Errors
    /// `Overloaded` when there is no room for them.
    pub(super) fn grow(&self, bytes: usize) -> Result<()> {
        self.with(|held| held.bytes.grow(bytes))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        // It is a number, which is whole whatever panicked elsewhere.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The body of a call.
pub(super) struct Messages {
    inner: Incoming,
    call: Call,
    /// Where the client compresses its messages.
    decompressor: Option<Decompressor>,
    /// How long a message may take.
    timeout: Duration,
    /// Ends when the message that is arriving has taken too long.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Messages {
    pub(super) fn new(inner: Incoming, call: Call, decompressor: Option<Decompressor>, timeout: Duration) -> Self {
        Self { inner, call, decompressor, timeout, patience: None }
    }

    /// Completes when the message that is arriving has taken too long; pends while there is none.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.call.bytes.with(|held| held.arriving()) == 0 {
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

    /// The bytes as they come.
    fn poll_arriving(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => return self.poll_overdue(cx).map(|status| Some(Err(status))),
            Poll::Ready(frame) => frame,
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let (is_first, grown) = self.call.bytes.with(|held| (held.arriving() == 0, held.bytes.grow(data.len())));
            if is_first {
                self.patience = None;
            }
            if let Err(error) = grown {
                return Poll::Ready(Some(Err(status_of(&error, &self.call))));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(Box::new(error)))))
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let this = &mut *self;
            if let Some(decompressor) = &mut this.decompressor {
                match decompressor.next(&this.call.bytes) {
                    Ok(None) => {}
                    Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                    Err(error) => return Poll::Ready(Some(Err(status_of(&error, &this.call)))),
                }
            }
            let frame = ready!(this.poll_arriving(cx));
            let Some(decompressor) = &mut this.decompressor else { return Poll::Ready(frame) };
            match &frame {
                Some(Ok(frame)) if frame.is_data() => decompressor.push(frame.data_ref().expect("it is data")),
                // tonic says what is wrong with a message that broke off.
                None => return Poll::Ready(decompressor.rest().map(|rest| Ok(Frame::data(rest)))),
                _ => return Poll::Ready(frame),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decompressor.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.decompressor.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}
