//! Models that come from a store: what lies there is brought into the repository's folder, and loaded and followed there like any.
//!
//! In the mode `none` that is done once, in `explicit` for each model when it is to be loaded, in `poll` time and again.

use std::sync::Arc;
use std::time::Instant;

use tracing::{error, info, warn};

use super::control::ModelControlMode;
use super::fingerprint::Fingerprint;
use super::loader::Action;
use super::overrides::Overrides;
use super::{Repository, layout};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Synced;

impl Repository {
    /// Brings what is loaded at the start into the folder, where there is a store.
    pub(super) async fn stock_at_start(self: &Arc<Self>) -> Result<()> {
        let synced = self.blocking(|repository| match &repository.store {
            // An archive is one piece, and of a bucket only that is fetched which is to be loaded.
            Some(store) => store.start(|name| repository.control.loads_at_start(name)),
            None => Ok(Synced::default()),
        });
        self.show_refused(&synced.await?);
        Ok(())
    }

    /// Brings what the store has of one model into its folder. Blocks.
    pub(super) fn restock(&self, name: &str, overrides: &Overrides) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let Err(error) = store.fetch(name) else { return Ok(()) };
        // A client may bring all of a model itself.
        if error.kind() == ErrorKind::NotFound && !overrides.is_empty() {
            return Ok(());
        }
        if self.knows(name) {
            self.fail(name, &error);
        } else {
            warn!(model = name, cause = error.chain(), "the model cannot be taken from the model store");
        }
        Err(match error.kind() {
            // It is the server that is not let in, not who called it.
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => Error::unavailable(error.message()),
            _ => error,
        })
    }

    /// The names of the models that there are to be loaded. Blocks.
    pub(super) fn present(&self) -> Result<Vec<String>> {
        let mut names: Vec<_> = layout::models(&self.root)?.into_iter().map(|(name, _)| name).collect();
        names.extend(self.store.iter().flat_map(crate::store::Store::names));
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Says that there is nothing to load at the start. Models may come later, but what is misspelt looks the same.
    pub(super) fn say_empty(&self) {
        // There, only what clients ask for is fetched.
        if self.control.mode == ModelControlMode::Explicit && self.control.load.is_empty() {
            return;
        }
        match &self.store {
            Some(store) => {
                error!(store = %store.location(), "there is no model in the model store, as <name>/<version>/model.onnx: {}", store.hint());
            }
            None => {
                let folder = self.root.display();
                error!(%folder, "there is no model in the model repository, as <name>/<version>/model.onnx: is it the right folder?");
            }
        }
    }

    /// Notes in the index why a model of the store was not taken.
    fn show_refused(&self, synced: &Synced) {
        for (name, error) in synced.refused.iter().filter(|(name, _)| !name.is_empty()) {
            // What could only not be got is got later, and has nothing to do with what serves.
            if error.kind() == ErrorKind::InvalidArgument || !self.knows(name) {
                self.fail(name, error);
            }
        }
    }
}

/// Looks at the store until the repository is closed. What serves never changes because the store is away.
pub(super) async fn follow(repository: Arc<Repository>) {
    let Some(mut pause) = repository.store.as_ref().map(crate::store::Store::pause) else { return };
    debug_assert_eq!(repository.control.mode, ModelControlMode::Poll);
    let mut closed = repository.closed.subscribe();
    let mut wait = pause.after(true);
    let mut is_away = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // An error says that the repository is gone, which cannot be while this holds it.
            _ = closed.wait_for(|&closed| closed) => return,
        }
        let synced = repository.blocking(|repository| match &repository.store {
            Some(store) => store.sync(),
            None => Ok(Synced::default()),
        });
        match synced.await {
            Ok(synced) => {
                if std::mem::take(&mut is_away) {
                    info!("the model store can be read again");
                }
                repository.show_refused(&synced);
                for name in &synced.recovered {
                    // Its folder may be what it was, which whoever follows that does not see as a change.
                    if let Ok(Some(found)) = Fingerprint::of(&repository.root.join(name)) {
                        drop(repository.enqueue(name, Action::Follow(found)));
                    }
                }
                for name in &synced.removed {
                    // Whoever follows the folder sees it too, but not where it never served.
                    drop(repository.enqueue(name, Action::Remove));
                }
                wait = pause.after(synced.refused.is_empty());
                if let Some(due) = synced.next_due {
                    wait = wait.min(due.saturating_duration_since(Instant::now()));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_away, true) {
                    warn!(cause = error.chain(), "the model store cannot be read: what is loaded goes on serving");
                }
                wait = pause.after(false);
            }
        }
    }
}
