//! Waiting for something that is looked at again and again.

use std::time::Duration;

use crate::server::within_a_minute;

/// Waits until `holds` is true of what `look` sees.
pub(crate) async fn until<T, F: Future<Output = T>>(mut look: impl FnMut() -> F, holds: impl Fn(&T) -> bool) -> T {
    within_a_minute(async {
        loop {
            let seen = look().await;
            if holds(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
