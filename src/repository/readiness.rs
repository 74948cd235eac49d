//! Strict readiness: whether what serves is enough for the server to get traffic.
//!
//! At first that takes every model that is to be served. From then on a server is of use, and what has not served yet takes
//! nothing from it: a new model that is broken must not take out every replica that follows the same folder. A model that has
//! served and no longer can does.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use tracing::warn;

use super::Repository;
use super::served::{self, Models};

/// What has served, and what is missing. It knows names only.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// Nothing at all to serve is enough, too.
    may_be_empty: bool,
    /// All that is loaded at the start is known, loaded or not.
    is_started: bool,
    /// Every model served at some moment after the start.
    was_complete: bool,
    /// Those that have served and were not taken out of service on purpose.
    served: BTreeSet<String>,
    /// Those that keep the server from being ready.
    missing: Vec<String>,
}

impl Readiness {
    pub(super) fn new(may_be_empty: bool) -> Self {
        Self { may_be_empty, ..Self::default() }
    }

    /// From now on what is observed is all that there is.
    fn start(&mut self) {
        self.is_started = true;
    }

    /// Takes in every model that is to be served, with whether it does.
    fn observe<'n>(&mut self, models: impl Iterator<Item = (&'n str, bool)>) {
        let models: Vec<_> = models.collect();
        self.served.retain(|name| models.iter().any(|(known, _)| known == name));
        self.served.extend(models.iter().filter(|(_, serves)| *serves).map(|(name, _)| (*name).to_owned()));
        let is_missing =
            |(name, serves): &&(&str, bool)| !serves && (!self.was_complete || self.served.contains(*name));
        self.missing = models.iter().filter(is_missing).map(|(name, _)| (*name).to_owned()).collect();
        self.was_complete |= self.is_started && self.missing.is_empty() && (self.may_be_empty || !models.is_empty());
    }

    /// Whether the server should get traffic.
    fn is_sufficient(&self) -> bool {
        self.was_complete && self.missing.is_empty()
    }

    /// Why it should not, or an empty sentence.
    fn reason(&self) -> String {
        match () {
            () if self.is_sufficient() => String::new(),
            () if self.missing.is_empty() => "there is no model to serve".to_owned(),
            () => format!("these do not serve: {}", self.missing.join(", ")),
        }
    }
}

impl Repository {
    /// Whether what serves is enough for the server to get traffic. Without strict readiness it always is; with it, see
    /// [`super::ModelControlConfig::strict_readiness`].
    pub fn is_sufficient(&self) -> bool {
        !self.control.strict_readiness || self.readiness().is_sufficient()
    }

    /// What the start was to load is known: from now on the server may be ready.
    pub(super) fn note_start(&self) {
        let models = self.models.read();
        self.readiness().start();
        self.observe(&models);
        let reason = self.readiness().reason();
        if self.control.strict_readiness && !reason.is_empty() {
            warn!(reason, "not ready");
        }
    }

    /// Has readiness see what serves. To be called while nobody can change it.
    pub(super) fn observe(&self, models: &Models) {
        let wanted = models.iter().filter(|(_, entry)| !entry.is_unloaded());
        let serves = |name: &str| served::find(models, name, None).is_ok_and(|served| served.model(models).is_ok());
        let mut readiness = self.readiness();
        let was_sufficient = readiness.is_sufficient();
        readiness.observe(wanted.map(|(name, _)| (name.as_str(), serves(name))));
        if self.control.strict_readiness && was_sufficient && !readiness.is_sufficient() {
            warn!(reason = readiness.reason(), "no longer ready");
        }
    }

    fn readiness(&self) -> MutexGuard<'_, Readiness> {
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(models: &[(&str, bool)]) -> Readiness {
        let mut readiness = Readiness::new(false);
        readiness.start();
        readiness.observe(models.iter().copied());
        readiness
    }

    #[test]
    fn at_first_every_model_must_serve() {
        let mut readiness = Readiness::new(false);
        // While the start goes on, what is known may be a part only.
        readiness.observe([("a", true)].into_iter());
        assert!(!readiness.is_sufficient());
        readiness.start();
        readiness.observe([("a", true), ("b", false)].into_iter());
        assert!(!readiness.is_sufficient());
        assert_eq!(readiness.reason(), "these do not serve: b");
        readiness.observe([("a", true), ("b", true)].into_iter());
        assert!(readiness.is_sufficient());
        assert_eq!(readiness.reason(), "");
    }

    #[test]
    fn a_new_model_takes_nothing_from_a_server_that_was_ready() {
        let mut readiness = started(&[("a", true)]);
        readiness.observe([("a", true), ("new", false)].into_iter());
        assert!(readiness.is_sufficient());
        // It has served now, and is missed once it does not.
        readiness.observe([("a", true), ("new", true)].into_iter());
        readiness.observe([("a", true), ("new", false)].into_iter());
        assert!(!readiness.is_sufficient());
        assert_eq!(readiness.reason(), "these do not serve: new");
    }

    #[test]
    fn what_is_no_longer_to_be_served_is_not_missed() {
        let mut readiness = started(&[("a", true), ("b", true)]);
        readiness.observe([("a", true)].into_iter());
        assert!(readiness.is_sufficient());
        // It comes back as a new one.
        readiness.observe([("a", true), ("b", false)].into_iter());
        assert!(readiness.is_sufficient());
    }

    #[test]
    fn nothing_to_serve_is_enough_only_where_it_is_meant() {
        assert_eq!(started(&[]).reason(), "there is no model to serve");
        let mut readiness = Readiness::new(true);
        readiness.start();
        readiness.observe(std::iter::empty());
        assert!(readiness.is_sufficient());
        // The last one was removed on purpose.
        let mut readiness = started(&[("a", true)]);
        readiness.observe(std::iter::empty());
        assert!(readiness.is_sufficient());
    }
}
