//! What an instance does: waits for work, takes its turn on the device, and only then the batch, so that what arrives while it
//! waits for the turn still joins, and priorities hold to the end.
//!
//! It knows no backend. `tests/interleavings.rs` checks every interleaving of it.

use std::time::Duration;

use super::device::Share;
use super::queue::Queue;

/// How an instance treats what it takes off the queue.
pub(super) trait Work<T> {
    /// Runs and answers a batch, for which other models were waited for as long as `waited`. Returns how long the device was
    /// used.
    fn run(&mut self, batch: Vec<T>, waited: Duration) -> Duration;

    /// Answers entries whose deadline has passed.
    fn expire(&mut self, expired: Vec<T>);
}

/// Works until the queue is closed and empty.
pub(super) fn work<T>(queue: &Queue<T>, share: &Share, work: &mut impl Work<T>) {
    while queue.wait() {
        let mut turn = share.try_take().unwrap_or_else(|| {
            // An instance on another device may have its turn at once.
            queue.pass_on();
            share.take()
        });
        loop {
            let taken = queue.take(turn.sharers());
            if !taken.expired.is_empty() {
                work.expire(taken.expired);
            }
            if !taken.batch.is_empty() {
                turn.charge(work.run(taken.batch, turn.waited()));
            }
            drop(taken.running);
            if !queue.is_due() {
                break;
            }
            turn.renew();
        }
    }
}
