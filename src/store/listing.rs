//! What lies in a store, and when a change of it is over. It knows no network and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use super::path::FilePath;
use super::tree::SUMS_FILE;

/// What is taken whole, by name: a model of a bucket, or an archive with all that is in it.
pub(super) type Listing = BTreeMap<String, Unit>;

/// The objects that make up a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit(pub(super) BTreeMap<FilePath, Object>);

/// An object, as it is listed.
#[derive(Debug, Clone, Eq)]
pub(super) struct Object {
    pub(super) bytes: u64,
    /// What tells it from others that have been at its place.
    pub(super) version: String,
    /// The same as the store has it, where the store tells one by its bytes.
    pub(super) e_tag: Option<String>,
    pub(super) modified: Option<SystemTime>,
}

impl PartialEq for Object {
    /// An object that was written again with the same bytes has not changed.
    fn eq(&self, other: &Self) -> bool {
        (self.bytes, &self.version) == (other.bytes, &other.version)
    }
}

impl Unit {
    /// Whether it says itself when it is whole.
    fn has_sums(&self) -> bool {
        self.0.keys().any(|path| path.as_str() == SUMS_FILE)
    }

    fn newest(&self) -> Option<SystemTime> {
        self.0.values().filter_map(|object| object.modified).max()
    }
}

/// A unit that is to be taken, or `None` where it is gone.
pub(super) type Change = (String, Option<Unit>);

/// Decides when a change is over. No store can say that an upload has begun or ended, so a unit without a list of checksums must
/// be listed the same for the settle time.
#[derive(Debug)]
pub(super) struct Settling {
    settle: Duration,
    units: BTreeMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What was acted on last.
    acted: Option<Unit>,
    /// What it has changed to, and since when it is so.
    pending: Option<(Option<Unit>, Instant)>,
}

impl Settling {
    pub(super) fn new(settle: Duration) -> Self {
        Self { settle, units: BTreeMap::new() }
    }

    /// Takes in what is there at the start, of which that has rested which was not written to within the settle time. `published`
    /// are the units of an earlier start: those that have gone since are gone at once, as they would be without that start.
    pub(super) fn begin<'a>(
        &mut self,
        listing: &Listing,
        published: impl Iterator<Item = &'a String>,
        now: Instant,
        wall_clock: SystemTime,
    ) -> Vec<Change> {
        let gone = published.filter(|name| !listing.contains_key(*name)).map(|name| (name.clone(), None));
        let mut changes: Vec<_> = gone.collect();
        for (name, unit) in listing {
            let age = unit.newest().and_then(|newest| wall_clock.duration_since(newest).ok());
            // What is from the future says nothing of its age: the clocks differ.
            if age.is_none_or(|age| age >= self.settle) {
                let since = now.checked_sub(self.settle).unwrap_or(now);
                self.units.insert(name.clone(), Seen { acted: None, pending: Some((Some(unit.clone()), since)) });
            }
        }
        changes.extend(self.observe(listing, now));
        changes
    }

    /// Takes in a listing, and returns what is to be done now.
    pub(super) fn observe(&mut self, listing: &Listing, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let names: BTreeSet<String> = self.units.keys().chain(listing.keys()).cloned().collect();
        for name in names {
            let seen = self.units.entry(name.clone()).or_default();
            let found = listing.get(&name);
            if found == seen.acted.as_ref() {
                seen.pending = None;
                continue;
            }
            let has_rested = match &seen.pending {
                Some((pending, since)) if pending.as_ref() == found => {
                    now.saturating_duration_since(*since) >= self.settle
                }
                _ => {
                    seen.pending = Some((found.cloned(), now));
                    false
                }
            };
            if has_rested || found.is_some_and(Unit::has_sums) {
                seen.acted = found.cloned();
                seen.pending = None;
                changes.push((name, found.cloned()));
            }
        }
        self.units.retain(|_, seen| seen.acted.is_some() || seen.pending.is_some());
        changes
    }

    /// Has a unit tried again that could not be fetched, though it does not change.
    pub(super) fn retry(&mut self, name: &str) {
        if let Some(seen) = self.units.get_mut(name) {
            seen.acted = None;
        }
    }

    /// When the next change will be over, if it lasts.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.units.values().filter_map(|seen| Some(seen.pending.as_ref()?.1 + self.settle)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(30);

    fn unit(objects: &[(&str, &str)]) -> Unit {
        let object = |version: &str| Object { bytes: 1, version: version.into(), e_tag: None, modified: None };
        Unit(objects.iter().map(|(path, version)| (FilePath::parse(path).unwrap(), object(version))).collect())
    }

    fn listing(units: &[(&str, &Unit)]) -> Listing {
        units.iter().map(|(name, unit)| ((*name).to_owned(), (*unit).clone())).collect()
    }

    #[test]
    fn an_upload_is_taken_when_it_has_rested_and_only_once() {
        let mut settling = Settling::new(SETTLE);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let half = unit(&[("config.toml", "a")]);
        let whole = unit(&[("config.toml", "a"), ("1/model.onnx", "b")]);
        assert_eq!(settling.observe(&listing(&[("m", &half)]), at(0)), []);
        assert_eq!(settling.observe(&listing(&[("m", &half)]), at(29)), []);
        assert_eq!(settling.observe(&listing(&[("m", &whole)]), at(31)), [], "it has changed since");
        assert_eq!(settling.next_due(), Some(at(61)));
        assert_eq!(settling.observe(&listing(&[("m", &whole)]), at(61)), [("m".into(), Some(whole.clone()))]);
        assert_eq!(settling.observe(&listing(&[("m", &whole)]), at(99)), []);
        // Gone for one look is not gone.
        assert_eq!(settling.observe(&listing(&[]), at(100)), []);
        assert_eq!(settling.observe(&listing(&[("m", &whole)]), at(129)), []);
        assert_eq!(settling.observe(&listing(&[]), at(131)), []);
        assert_eq!(settling.observe(&listing(&[]), at(161)), [("m".into(), None)]);
        assert!(settling.units.is_empty());
    }

    #[test]
    fn a_list_of_checksums_says_that_there_is_nothing_to_wait_for() {
        let mut settling = Settling::new(SETTLE);
        let now = Instant::now();
        let (with, other) = (unit(&[("SHA256SUMS", "a")]), unit(&[("1/model.onnx", "a")]));
        assert_eq!(settling.observe(&listing(&[("m", &with), ("n", &other)]), now), [("m".into(), Some(with.clone()))]);
        assert_eq!(settling.observe(&listing(&[("m", &with), ("n", &other)]), now), []);
        // What could not be fetched is tried again, without a change.
        settling.retry("m");
        assert_eq!(settling.observe(&listing(&[("m", &with), ("n", &other)]), now).len(), 1);
    }

    #[test]
    fn at_the_start_what_is_old_is_taken_and_what_has_gone_goes() {
        let mut settling = Settling::new(SETTLE);
        let (now, wall_clock) = (Instant::now(), SystemTime::now());
        let aged = |age: Option<Duration>| {
            let mut unit = unit(&[("1/model.onnx", "a")]);
            unit.0.values_mut().for_each(|object| object.modified = age.map(|age| wall_clock - age));
            unit
        };
        let (old, new, unknown) = (aged(Some(SETTLE)), aged(Some(Duration::from_secs(1))), aged(None));
        let found = listing(&[("new", &new), ("old", &old), ("unknown", &unknown)]);
        let published = ["gone".to_owned(), "old".to_owned()];
        let taken = settling.begin(&found, published.iter(), now, wall_clock);
        assert_eq!(taken.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["gone", "old", "unknown"]);
        assert_eq!(taken[0].1, None);
        assert_eq!(settling.observe(&found, now + SETTLE), [("new".into(), Some(new))]);
    }
}
