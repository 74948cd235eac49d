//! The models that are known, behind the one lock at which requests, loads and drains meet.
//!
//! A request takes a handle of what serves while it holds the lock for reading, and keeps that until it is answered. A load
//! replaces what serves while it holds the lock for writing. So what was replaced gets no new holder, and can be ended as soon as
//! [`is_shared`] says that the old ones are gone. It knows neither models nor files. `tests/swap_and_drain.rs` checks every
//! interleaving of it.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::state::{Entry, Loaded, Row};
use super::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Entries by the names of their models. `S` is what serves a version.
pub(super) type Entries<S> = BTreeMap<String, Entry<S>>;

/// The entries of all models.
#[derive(Debug)]
pub(super) struct Registry<S>(RwLock<Known<S>>);

#[derive(Debug)]
struct Known<S> {
    entries: Entries<S>,
    is_closed: bool,
}

/// The entries as they are: nothing changes them until it is dropped.
#[derive(Debug)]
pub(super) struct Reading<'r, S>(RwLockReadGuard<'r, Known<S>>);

/// What a load came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended<S> {
    /// What it loaded serves, as far as it could be; this has to be drained.
    Swapped(Vec<S>),
    /// Everything is being ended. This was loaded in vain.
    Refused(Vec<S>),
}

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Self(RwLock::new(Known { entries: BTreeMap::new(), is_closed: false }))
    }
}

impl<S> Registry<S> {
    /// Holds the entries as they are.
    pub(super) fn read(&self) -> Reading<'_, S> {
        Reading(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the entry of the model called `name`, and shows all entries to `see` while nobody else can change them, with the
    /// rows that the entry had before. An entry of which nothing is known any more is removed.
    pub(super) fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Entry<S>) -> T,
        see: impl FnOnce(&Entries<S>, &[Row]),
    ) -> T {
        self.change_unless_closed(name, |entry, _| change(entry), see)
    }

    /// Ends a load of the model called `name`. Once the registry is closed, nothing that was loaded comes to serve: either a
    /// load is refused, or what it brings is there for whoever has closed the registry and ends all that serves.
    pub(super) fn finish_load(
        &self,
        name: &str,
        loaded: Vec<(u64, Loaded<S>)>,
        see: impl FnOnce(&Entries<S>, &[Row]),
    ) -> Ended<S> {
        let finish = |entry: &mut Entry<S>, is_closed| {
            if is_closed {
                entry.abandon();
                Ended::Refused(loaded.into_iter().filter_map(|(_, loaded)| loaded.into_new()).collect())
            } else {
                Ended::Swapped(entry.finish_load(loaded))
            }
        };
        self.change_unless_closed(name, finish, see)
    }

    fn change_unless_closed<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Entry<S>, bool) -> T,
        see: impl FnOnce(&Entries<S>, &[Row]),
    ) -> T {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Known { entries, is_closed } = &mut *known;
        let entry = entries.entry(name.to_owned()).or_default();
        let before = entry.rows();
        let changed = change(entry, *is_closed);
        if entry.rows().is_empty() {
            entries.remove(name);
        }
        see(entries, &before);
        changed
    }

    /// Lets nothing come to serve any more.
    pub(super) fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).is_closed = true;
    }
}

impl<S> Deref for Reading<'_, S> {
    type Target = Entries<S>;

    fn deref(&self) -> &Entries<S> {
        &self.0.entries
    }
}

/// Whether anybody else holds what `handle` does. Once it says no of what nobody can get any more, that is so for ever.
pub(super) fn is_shared<T>(handle: &Arc<T>) -> bool {
    Arc::strong_count(handle) > 1
}

/// Whether anybody else holds `outer`, or `inner`, of which `outer` holds one handle. Who exchanges a handle of the first for one of
/// the second takes the second before it lets go of the first, so looking in this order misses nobody.
pub(super) fn is_either_shared<A, B>(outer: &Arc<A>, inner: &Arc<B>) -> bool {
    is_shared(outer) || is_shared(inner)
}
