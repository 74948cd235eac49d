//! Strict readiness: whether what serves is enough for the server to get traffic.
//!
//! At first that takes every model that is to be served. From then on a server is of use, and what has not served yet takes
//! nothing from it: a new model that is broken must not take out every replica that follows the same folder. A model that has
//! served and no longer can does.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{MutexGuard, PoisonError};

use tracing::{info, warn};

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

    /// What the server lacks to get traffic; `None` where it should.
    fn lack(&self) -> Option<Lack> {
        match self.missing.as_slice() {
            [] if self.was_complete => None,
            [] => Some(Lack::Models),
            missing => Some(Lack::These(missing.to_vec())),
        }
    }
}

/// What the server lacks to get traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// There is no model to serve.
    Models,
    /// These do not serve.
    These(Vec<String>),
}

/// How many models a sentence names.
const NAMED: usize = 10;

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Models => f.write_str("there is no model to serve"),
            Self::These(names) => {
                write!(f, "these models do not serve: {}", names[..names.len().min(NAMED)].join(", "))?;
                match names.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl Repository {
    /// What the server lacks to get traffic. Without strict readiness that is nothing; with it, see
    /// [`super::ModelControlConfig::strict_readiness`].
    pub fn lack(&self) -> Option<Lack> {
        if self.control.strict_readiness { self.readiness().lack() } else { None }
    }

    /// What the start was to load is known: from now on the server may be ready.
    pub(super) fn note_start(&self) {
        let models = self.models.read();
        let mut readiness = self.readiness();
        readiness.start();
        readiness.observe(wanted(&models));
    }

    /// Has readiness see what serves. To be called while nobody can change it.
    pub(super) fn observe(&self, models: &Models) {
        let mut readiness = self.readiness();
        let before = readiness.lack();
        readiness.observe(wanted(models));
        // What the start has come to is said when it is over.
        if !self.control.strict_readiness || !readiness.is_started {
            return;
        }
        match (before, readiness.lack()) {
            (None, Some(lack)) => warn!(reason = %lack, "no longer ready"),
            (Some(_), None) => info!("ready: every model that is to be served does"),
            _ => {}
        }
    }

    fn readiness(&self) -> MutexGuard<'_, Readiness> {
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every model that is to be served, with whether it does.
fn wanted(models: &Models) -> impl Iterator<Item = (&str, bool)> {
    let serves = |name: &str| served::find(models, name, None).is_ok_and(|served| served.model(models).is_ok());
    let wanted = models.iter().filter(|(_, entry)| !entry.is_unloaded());
    wanted.map(move |(name, _)| (name.as_str(), serves(name)))
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
        assert!(readiness.lack().is_some());
        readiness.start();
        readiness.observe([("a", true), ("b", false)].into_iter());
        assert!(readiness.lack().is_some());
        assert_eq!(readiness.lack(), Some(Lack::These(vec!["b".to_owned()])));
        readiness.observe([("a", true), ("b", true)].into_iter());
        assert_eq!(readiness.lack(), None);
    }

    #[test]
    fn a_new_model_takes_nothing_from_a_server_that_was_ready() {
        let mut readiness = started(&[("a", true)]);
        readiness.observe([("a", true), ("new", false)].into_iter());
        assert_eq!(readiness.lack(), None);
        // It has served now, and is missed once it does not.
        readiness.observe([("a", true), ("new", true)].into_iter());
        readiness.observe([("a", true), ("new", false)].into_iter());
        assert!(readiness.lack().is_some());
        assert_eq!(readiness.lack(), Some(Lack::These(vec!["new".to_owned()])));
    }

    #[test]
    fn what_is_no_longer_to_be_served_is_not_missed() {
        let mut readiness = started(&[("a", true), ("b", true)]);
        readiness.observe([("a", true)].into_iter());
        assert_eq!(readiness.lack(), None);
        // It comes back as a new one.
        readiness.observe([("a", true), ("b", false)].into_iter());
        assert_eq!(readiness.lack(), None);
    }

    #[test]
    fn nothing_to_serve_is_enough_only_where_it_is_meant() {
        assert_eq!(started(&[]).lack(), Some(Lack::Models));
        let mut readiness = Readiness::new(true);
        readiness.start();
        readiness.observe(std::iter::empty());
        assert_eq!(readiness.lack(), None);
        // The last one was removed on purpose.
        let mut readiness = started(&[("a", true)]);
        readiness.observe(std::iter::empty());
        assert_eq!(readiness.lack(), None);
    }

    #[test]
    fn a_sentence_names_some_models() {
        let these = |count: usize| Lack::These((0..count).map(|number| format!("m{number}")).collect()).to_string();
        assert_eq!(these(2), "these models do not serve: m0, m1");
        assert!(these(10).ends_with(", m9"));
        assert!(these(12).ends_with(", m9 and 2 more"));
    }
}
