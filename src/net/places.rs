//! How many connections there may be, and how many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a listener's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Arc<AtomicUsize>,
}

/// A place that a connection may take.
pub(super) struct Free {
    permit: OwnedSemaphorePermit,
    taken: Arc<AtomicUsize>,
}

/// A place that a connection has. Dropping it gives it back.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    taken: Arc<AtomicUsize>,
}

impl Places {
    /// At most `limit` places; without one, as many as there can be.
    pub fn new(limit: Option<usize>) -> Self {
        let limit = limit.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(limit)), taken: Arc::default() }
    }

    /// How many connections are open.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits for a place.
    pub(super) async fn free(&self) -> Free {
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        Free { permit, taken: Arc::clone(&self.taken) }
    }
}

impl Free {
    pub(super) fn take(self) -> Place {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place { _permit: self.permit, taken: self.taken }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
