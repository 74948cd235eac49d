//! What is known of one model: a state machine without a clock, a file or a thread.
//!
//! It holds what serves, of whatever type that is, and decides what a load or an unload changes. It must not know how a model
//! is read, nor who waits for it.

use std::collections::BTreeMap;

/// Where a model version is in its life, as the repository index spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelState {
    /// Nothing is known of it.
    Unknown,
    /// It takes requests.
    Ready,
    /// It takes none, for a reason that is known.
    Unavailable,
    /// It is being loaded, and nothing of it serves yet.
    Loading,
    /// It takes no more requests; those that it has are being answered.
    Unloading,
}

impl ModelState {
    /// The index's spelling, `"READY"` for instance.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
        }
    }
}

/// The reason of a version that was unloaded on request.
const UNLOADED: &str = "unloaded";

/// What [`state_in_metrics`] may be.
pub(super) const STATES_IN_METRICS: &[&str] =
    &["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING", UNLOADED_IN_METRICS];
const UNLOADED_IN_METRICS: &str = "UNLOADED";

/// The state as the metrics have it: what was unloaded on request is told apart from what fails, which somebody is to be called for.
pub(super) fn state_in_metrics(state: ModelState, reason: &str) -> &'static str {
    if state == ModelState::Unavailable && reason == UNLOADED { UNLOADED_IN_METRICS } else { state.as_str() }
}

/// One model: its versions, or why none is known. `S` is what serves a version.
#[derive(Debug)]
pub(super) struct Entry<S> {
    versions: BTreeMap<u64, Version<S>>,
    /// Why no version is known.
    failure: Option<String>,
    is_loading: bool,
}

#[derive(Debug)]
struct Version<S> {
    serving: Option<S>,
    /// What serves has turned out to be broken: it gets no more requests.
    is_broken: bool,
    activity: Activity,
    /// What is done with it while it is loaded, where that takes long; else empty.
    progress: &'static str,
    /// Why it does not serve, or why the last attempt to load it again failed; empty where neither is so.
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    None,
    Loading,
    Unloading,
}

/// What became of a version in a load.
#[derive(Debug)]
pub(super) enum Loaded<S> {
    /// This is to serve.
    New(S),
    /// Nothing of it has changed: what serves goes on.
    Kept,
    /// It could not be loaded, for this reason.
    Failed(String),
}

/// What asking for a version finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a, S> {
    Serving(&'a S),
    Loading,
    Unloading,
    /// With the reason.
    Unavailable(&'a str),
    /// No such version is known.
    Nothing,
}

/// A row of the index: the version, `None` where none is known, its state and the reason.
pub(super) type Row = (Option<u64>, ModelState, String);

impl<S> Loaded<S> {
    /// What was loaded.
    pub(super) fn into_new(self) -> Option<S> {
        match self {
            Self::New(serving) => Some(serving),
            Self::Kept | Self::Failed(_) => None,
        }
    }
}

impl<S> Default for Entry<S> {
    fn default() -> Self {
        Self { versions: BTreeMap::new(), failure: None, is_loading: false }
    }
}

impl<S> Default for Version<S> {
    fn default() -> Self {
        Self { serving: None, is_broken: false, activity: Activity::None, progress: "", reason: String::new() }
    }
}

impl<S> Version<S> {
    /// What takes requests.
    fn usable(&self) -> Option<&S> {
        self.serving.as_ref().filter(|_| !self.is_broken)
    }

    fn state(&self) -> ModelState {
        match (self.usable(), self.activity) {
            // A version that serves is ready, whatever else is done with it: readiness is about the next request.
            (Some(_), _) => ModelState::Ready,
            (None, Activity::Loading) => ModelState::Loading,
            (None, Activity::Unloading) => ModelState::Unloading,
            (None, Activity::None) => ModelState::Unavailable,
        }
    }

    fn shown_reason(&self) -> String {
        match (self.usable(), self.activity) {
            (Some(_), Activity::Loading) => "it is being loaded again".to_owned(),
            (None, Activity::Loading) => self.progress.to_owned(),
            (None, Activity::Unloading) => String::new(),
            _ => self.reason.clone(),
        }
    }
}

impl<S> Entry<S> {
    /// A load has begun; which versions it is about is not known yet.
    pub(super) fn begin_load(&mut self) {
        self.is_loading = true;
    }

    /// The load is about `versions`. What is known of others that do not serve is out of date.
    pub(super) fn begin_versions(&mut self, versions: &[u64]) {
        self.versions.retain(|number, version| version.serving.is_some() || versions.contains(number));
        for &number in versions {
            let version = self.versions.entry(number).or_default();
            (version.activity, version.progress) = (Activity::Loading, "");
        }
    }

    /// While `version` is being loaded, its reason is `progress`.
    pub(super) fn show_progress(&mut self, version: u64, progress: &'static str) {
        if let Some(version) = self.versions.get_mut(&version) {
            version.progress = progress;
        }
    }

    /// The load failed as a whole. What serves goes on serving, and shows why it is not newer.
    pub(super) fn fail(&mut self, reason: &str) {
        self.is_loading = false;
        self.versions.retain(|_, version| version.serving.is_some());
        self.failure = self.versions.is_empty().then(|| reason.to_owned());
        for version in self.versions.values_mut() {
            version.activity = Activity::None;
            version.reason = last_load_failed(reason);
        }
    }

    /// The load was given up, because another will follow.
    pub(super) fn abandon(&mut self) {
        self.is_loading = false;
        self.versions.retain(|_, version| {
            let begun = version.activity == Activity::Loading && version.serving.is_none() && version.reason.is_empty();
            version.activity = Activity::None;
            !begun
        });
    }

    /// Ends a load with what became of each version, and returns what has to be drained: what was replaced, or what was
    /// loaded in vain. Versions that are not among them are no longer wanted.
    ///
    /// While anything serves, it is all or nothing: one version that fails leaves every other as it was, so that a model's
    /// versions always come from one state of its folder. Where nothing serves, what could be loaded does.
    pub(super) fn finish_load(&mut self, loaded: Vec<(u64, Loaded<S>)>) -> Vec<S> {
        let is_failure = |(_, loaded): &&(u64, Loaded<S>)| matches!(loaded, Loaded::Failed(_));
        let failed: Vec<u64> = loaded.iter().filter(is_failure).map(|(number, _)| *number).collect();
        if !failed.is_empty() && self.is_serving() {
            return self.refuse(loaded, &failed);
        }
        self.is_loading = false;
        self.failure = None;
        let mut retired = Vec::new();
        for (&number, version) in &mut self.versions {
            if !loaded.iter().any(|(other, _)| *other == number) {
                retired.extend(version.serving.take());
                *version = Version { activity: Activity::Unloading, ..Version::default() };
            }
        }
        for (number, result) in loaded {
            let version = self.versions.entry(number).or_default();
            let old = version.serving.take();
            *version = match result {
                Loaded::Kept => Version { serving: old, ..Version::default() },
                Loaded::New(serving) => {
                    retired.extend(old);
                    Version { serving: Some(serving), ..Version::default() }
                }
                Loaded::Failed(reason) => {
                    retired.extend(old);
                    Version { reason, ..Version::default() }
                }
            };
        }
        retired
    }

    fn refuse(&mut self, loaded: Vec<(u64, Loaded<S>)>, failed: &[u64]) -> Vec<S> {
        self.is_loading = false;
        let mut retired = Vec::new();
        for (number, result) in loaded {
            let version = self.versions.entry(number).or_default();
            version.activity = Activity::None;
            let unchanged = || format!("version {} could not be loaded, so nothing was changed", list(failed));
            let reason = match result {
                Loaded::New(serving) => {
                    retired.push(serving);
                    unchanged()
                }
                Loaded::Kept => unchanged(),
                Loaded::Failed(reason) => reason,
            };
            version.reason = if version.usable().is_some() { last_load_failed(&reason) } else { reason };
        }
        retired
    }

    /// Gives `version` no more requests, if what serves it is what `is_it` knows, and returns whether it was. Loading it again mends
    /// that.
    pub(super) fn condemn(&mut self, version: u64, reason: String, is_it: impl FnOnce(&S) -> bool) -> bool {
        if let Some(version) = self.versions.get_mut(&version)
            && version.usable().is_some_and(is_it)
        {
            version.is_broken = true;
            version.reason = reason;
            return true;
        }
        false
    }

    /// Takes the model out of service and returns what has to be drained.
    pub(super) fn begin_unload(&mut self) -> Vec<S> {
        let mut retired = Vec::new();
        self.failure = self.versions.is_empty().then(|| UNLOADED.to_owned());
        for version in self.versions.values_mut() {
            retired.extend(version.serving.take());
            *version = Version { activity: Activity::Unloading, reason: UNLOADED.to_owned(), ..Version::default() };
        }
        retired
    }

    /// Everything that was retired has ended. Versions that were unloaded on request stay known; those that a load no longer
    /// wanted do not.
    pub(super) fn finish_drain(&mut self) {
        self.versions.retain(|_, version| version.activity != Activity::Unloading || !version.reason.is_empty());
        for version in self.versions.values_mut().filter(|version| version.activity == Activity::Unloading) {
            version.activity = Activity::None;
        }
    }

    /// Whether any version serves.
    pub(super) fn is_serving(&self) -> bool {
        self.serving().next().is_some()
    }

    /// Whether it was taken out of service on request.
    pub(super) fn is_unloaded(&self) -> bool {
        self.failure.as_deref() == Some(UNLOADED)
            || (!self.versions.is_empty() && self.versions.values().all(|version| version.reason == UNLOADED))
    }

    /// What serves, by version, ascending.
    pub(super) fn serving(&self) -> impl Iterator<Item = (u64, &S)> {
        self.versions.iter().filter_map(|(&number, version)| Some((number, version.usable()?)))
    }

    /// What asking for `version` finds, or without one for the highest that serves.
    pub(super) fn find(&self, version: Option<u64>) -> Found<'_, S> {
        let found = match version {
            Some(number) => self.versions.get(&number),
            None => {
                let serving = self.versions.values().rfind(|version| version.usable().is_some());
                serving.or_else(|| self.versions.values().next_back())
            }
        };
        match (found, &self.failure) {
            (Some(version), _) => match (version.usable(), version.activity) {
                (Some(serving), _) => Found::Serving(serving),
                (None, Activity::Loading) => Found::Loading,
                (None, Activity::Unloading) => Found::Unloading,
                (None, Activity::None) => Found::Unavailable(&version.reason),
            },
            (None, _) if self.is_loading && self.versions.is_empty() => Found::Loading,
            (None, Some(reason)) => Found::Unavailable(reason),
            (None, None) => Found::Nothing,
        }
    }

    /// The rows of the index: one for each version, or a single one where none is known.
    pub(super) fn rows(&self) -> Vec<Row> {
        if !self.versions.is_empty() {
            let rows = self.versions.iter();
            return rows.map(|(&number, version)| (Some(number), version.state(), version.shown_reason())).collect();
        }
        match &self.failure {
            _ if self.is_loading => vec![(None, ModelState::Loading, String::new())],
            Some(reason) => vec![(None, ModelState::Unavailable, reason.clone())],
            None => Vec::new(),
        }
    }
}

fn last_load_failed(reason: &str) -> String {
    format!("the last load failed: {reason}")
}

fn list(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

// The path is spelled out for `tests/swap_and_drain.rs`, which has this file under another module.
#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
