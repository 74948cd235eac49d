//! The threads that explanations are worked out on.

use std::thread;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// How much less urgent a thread is than those that serve, in the kernel's steps. At 15 it gets a thirtieth of a core that one of them
/// wants (a weight of 36 beside 1024), and all of one that none does. docs/benchmarks.md has what requests lose.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 15;

/// Does `work` on a thread of its own, which gives way to all others. What it answers comes through the channel, which closes without
/// when it panics.
///
/// # Errors
/// `Internal` when no thread can be started.
pub(super) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<oneshot::Receiver<T>> {
    let (sender, answer) = oneshot::channel();
    // Not one of a pool's: a thread that has become less urgent cannot become as urgent again.
    let started = thread::Builder::new().name("explain".to_owned()).spawn(move || {
        give_way();
        // Nobody waits for it any more where this fails.
        let _ = sender.send(work());
    });
    started.map_err(|error| Error::internal("no thread can be started for the explanation").with_source(error))?;
    Ok(answer)
}

/// On Linux a thread has a niceness of its own. Elsewhere the process has, and must keep it.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "explanations run as urgently as requests");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_thread_gives_way_and_no_other_does() {
        let now = || rustix::process::getpriority_process(None).unwrap();
        let before = now();
        let then = spawn(now).unwrap().blocking_recv().unwrap();
        assert_eq!((then, now()), ((before + NICENESS).min(19), before));
    }
}
