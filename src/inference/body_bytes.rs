//! The bytes of request bodies that are in memory, over all requests and protocols.
//!
//! A model bounds what it has admitted. This bounds what comes before: bodies that are being read, which nothing else would
//! keep from adding up over many connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};

/// When a retry makes sense: bodies are in memory for about as long as their requests take, which is seldom longer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bound. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyBytes {
    limit: usize,
    held: Arc<AtomicUsize>,
}

/// Bytes that one request holds. Dropping it gives them back.
#[derive(Debug)]
pub struct HeldBytes {
    all: BodyBytes,
    bytes: usize,
}

impl BodyBytes {
    /// A bound of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: Arc::default() }
    }

    /// The bound itself.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What a request holds before its body comes: nothing.
    pub fn open(&self) -> HeldBytes {
        HeldBytes { all: self.clone(), bytes: 0 }
    }

    /// Looks whether a body of a `declared` size would fit now. What is declared is not held: whoever says much and sends nothing
    /// takes nothing from the others.
    ///
    /// # Errors
    /// `Overloaded` when it would not.
    pub fn check(&self, declared: u64) -> Result<()> {
        let free = self.limit.saturating_sub(self.held());
        if declared > free as u64 { Err(full()) } else { Ok(()) }
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl HeldBytes {
    /// Holds `bytes` more.
    ///
    /// # Errors
    /// `Overloaded` at once when they do not fit.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let add = |held: usize| held.checked_add(bytes).filter(|&held| held <= self.all.limit);
        self.all.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| full())?;
        self.bytes += bytes;
        Ok(())
    }

    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves `bytes` of them out, or all where there are fewer, for a part of the request that ends on its own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { all: self.all.clone(), bytes }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn full() -> Error {
    Error::overloaded("the server holds as many bytes of requests as it may").with_retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn bytes_are_held_as_they_come_and_given_back() {
        let all = BodyBytes::new(10);
        let (mut first, mut second) = (all.open(), all.open());
        first.grow(6).unwrap();
        second.grow(4).unwrap();
        let refused = second.grow(1).unwrap_err();
        assert_eq!((refused.kind(), refused.retry_after()), (ErrorKind::Overloaded, Some(RETRY_AFTER)));
        assert_eq!((first.bytes(), second.bytes(), all.held()), (6, 4, 10));
        let part = first.split(5);
        assert_eq!((part.bytes(), first.bytes(), all.held()), (5, 1, 10));
        drop(first);
        assert_eq!(all.held(), 9);
        drop(part);
        assert_eq!((all.held(), second.split(5).bytes()), (4, 4));
        second.grow(4).unwrap();
        all.check(6).unwrap();
        assert_eq!(all.check(7).unwrap_err().kind(), ErrorKind::Overloaded);
        assert!(second.grow(usize::MAX).is_err());
        drop(second);
        assert_eq!(all.held(), 0);
    }
}
