//! What is known of a call beside its messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use tonic::Extensions;

use super::messages::MessageBytes;
use crate::error::{Error, Result};
use crate::inference::RequestContext;
use crate::net::Draining;
use crate::telemetry::Trace;

/// The header with the time that the client gives a call.
const TIMEOUT: &str = "grpc-timeout";

/// A call, from its head on. The listener puts one into every request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The id in the log and in the client's copy of internal errors.
    pub(super) id: Arc<str>,
    /// The client's deadline.
    pub(super) deadline: Option<Instant>,
    /// Tells a stream that the server is about to end.
    pub(super) draining: Draining,
    /// What the message that is arriving or being answered holds.
    pub(super) bytes: MessageBytes,
    /// Where the spans of what the call asks for are put.
    pub(super) trace: Trace,
}

impl Call {
    /// The call that a request belongs to.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().expect("the listener gives every request its call")
    }

    /// The call as one message of a stream sees it that has arrived.
    pub(super) fn of_message(&self) -> Self {
        Self { bytes: self.bytes.take(), ..self.clone() }
    }

    /// The context of a request of this call: the earlier of `timeout`, which counts from now, and the call's deadline holds.
    pub(super) fn context(&self, timeout: Option<Duration>, priority: Option<u32>) -> RequestContext {
        let received = Instant::now();
        // A deadline that has passed is the shortest timeout; none at all would be "no timeout".
        let left =
            self.deadline.map(|deadline| deadline.saturating_duration_since(received).max(Duration::from_nanos(1)));
        let timeout = match (timeout, left) {
            (Some(timeout), Some(left)) => Some(timeout.min(left)),
            (timeout, left) => timeout.or(left),
        };
        RequestContext { protocol: "grpc", received, priority, timeout, trace: self.trace.clone() }
    }
}

/// The time that the client gives a call: up to eight digits and a unit.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let parse = || {
        let (unit, digits) = value.as_bytes().split_last()?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| (1..=8).contains(&digits.len()))?;
        let count: u64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
        Some(match unit {
            b'H' => Duration::from_hours(count),
            b'M' => Duration::from_mins(count),
            b'S' => Duration::from_secs(count),
            b'm' => Duration::from_millis(count),
            b'u' => Duration::from_micros(count),
            b'n' => Duration::from_nanos(count),
            _ => return None,
        })
    };
    parse().map(Some).ok_or_else(|| Error::invalid("grpc-timeout is not up to eight digits and a unit, as in 100m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, text.parse().unwrap());
            timeout(&headers)
        };
        for (text, expected) in [
            ("3H", Duration::from_hours(3)),
            ("99999999H", Duration::from_hours(99_999_999)),
            ("2M", Duration::from_mins(2)),
            ("42S", Duration::from_secs(42)),
            ("100m", Duration::from_millis(100)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["", "m", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1 S"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }
}
