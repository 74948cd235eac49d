//! Bringing what is in the cache into step with what is in the store.

mod archive;
mod bucket;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use self::archive::{keep, single};
use super::listing::{Change, Listing, Settling};
use super::location::Location;
use super::path::FilePath;
use super::tree::{Digest, File, Tree};
use super::{Source, Store};
use crate::error::{Error, ErrorKind, Result};

/// At the start, how many settle times what does not come to rest is waited for.
const PATIENCE: u32 = 10;

/// What is known of the store.
#[derive(Debug)]
pub(super) struct Held {
    settling: Settling,
    state: State,
    /// What was fetched of models that could not be taken yet, so that it need not be fetched again.
    fetched: BTreeMap<String, BTreeMap<FilePath, Kept>>,
    refused: BTreeSet<String>,
    /// The store's models have been listed since the start.
    has_begun: bool,
    /// The last listing had no model any more, which was not believed.
    is_emptied: bool,
}

/// What is kept between starts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// The form of this.
    format: u32,
    /// When this was last in step with the store, in seconds since 1970.
    in_step: u64,
    models: BTreeMap<String, BTreeMap<FilePath, Kept>>,
}

const FORMAT: u32 = 1;

/// A published file, and which object of the store it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    file: File,
    version: String,
}

/// What a look at the store came to.
#[derive(Debug, Default)]
pub struct Synced {
    /// The models that could not be taken, and why.
    pub refused: Vec<(String, Error)>,
    /// The models that had been refused and are taken now, be it as they were before.
    pub recovered: Vec<String>,
    /// The models that are in the store no more.
    pub removed: Vec<String>,
    /// When a change will be over, if it lasts.
    pub next_due: Option<Instant>,
}

impl Held {
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            settling: Settling::new(settle),
            state: State::default(),
            fetched: BTreeMap::new(),
            refused: BTreeSet::new(),
            has_begun: false,
            is_emptied: false,
        }
    }

    /// The digests of all files that are published, or kept for models that are not.
    fn needed(&self) -> BTreeSet<&Digest> {
        let models = self.state.models.values().chain(self.fetched.values());
        models.flat_map(BTreeMap::values).map(|kept| &kept.file.sha256).collect()
    }

    fn tree(&self, model: &str) -> Option<Tree> {
        let files = self.state.models.get(model)?;
        Some(files.iter().map(|(path, kept)| (path.clone(), kept.file.clone())).collect())
    }
}

impl Store {
    /// Fetches the models that `wanted` picks, and waits for what is just being uploaded, within bounds. Where the store is away,
    /// what an earlier start has fetched is taken, if there is something.
    ///
    /// # Errors
    /// Why the store cannot be read, where nothing of it is in the cache either.
    pub fn start(&self, wanted: impl Fn(&str) -> bool) -> Result<Synced> {
        let started = Instant::now();
        let mut held = self.held();
        self.restore(&mut held);
        let listing = match self.list() {
            Ok(listing) => listing,
            Err(error) => {
                self.metrics.record(false, started.elapsed());
                if held.state.models.is_empty() {
                    return Err(error.map_message(|said| format!("the model repository {}: {said}", self.location)));
                }
                warn!(
                    store = %self.location,
                    in_step_at = held.state.in_step,
                    cause = error.chain(),
                    "the model store cannot be read: what was last fetched from it is served"
                );
                return Ok(Synced::default());
            }
        };
        let mut synced = Synced::default();
        let changes = self.take_in(&mut held, &listing, &mut synced);
        self.act(&mut held, changes, &wanted, &mut synced);
        // With nothing to fall back on, models that are just being uploaded are waited for.
        let patience = Instant::now() + self.poll_interval * PATIENCE;
        while let Some(due) = held.settling.next_due().filter(|due| *due < patience) {
            info!(store = %self.location, "what is in the model store was written to just now: waiting for it to rest");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.list() {
                Ok(listing) => {
                    let changes = self.take_in(&mut held, &listing, &mut synced);
                    self.act(&mut held, changes, &wanted, &mut synced);
                }
                Err(error) => {
                    warn!(cause = error.chain(), "the model store cannot be read any more");
                    break;
                }
            }
        }
        self.finish(&mut held, started, &synced);
        match synced.refused.first() {
            // An archive is taken whole or not at all.
            Some((name, error)) if name.is_empty() && held.state.models.is_empty() => Err(error.clone()),
            _ => Ok(synced),
        }
    }

    /// Looks at the store, and takes what has changed and come to rest.
    ///
    /// # Errors
    /// Why the store cannot be read. What is published stays.
    pub fn sync(&self) -> Result<Synced> {
        let started = Instant::now();
        let mut held = self.held();
        let listing = self.list().inspect_err(|_| self.metrics.record(false, started.elapsed()))?;
        let mut synced = Synced::default();
        let changes = self.take_in(&mut held, &listing, &mut synced);
        self.act(&mut held, changes, |_| true, &mut synced);
        synced.next_due = held.settling.next_due();
        self.finish(&mut held, started, &synced);
        Ok(synced)
    }

    /// Takes what the store has of one model now, rested or not: whoever asks for it says that it is whole.
    ///
    /// # Errors
    /// `NotFound` where the store has no such model; else why it cannot be taken. What is published stays.
    pub fn fetch(&self, model: &str) -> Result<()> {
        let started = Instant::now();
        let mut held = self.held();
        let result = self.fetch_model(&mut held, model);
        let synced = Synced {
            refused: result.as_ref().err().map(|error| (model.to_owned(), error.clone())).into_iter().collect(),
            ..Synced::default()
        };
        self.finish(&mut held, started, &synced);
        result
    }

    fn fetch_model(&self, held: &mut Held, model: &str) -> Result<()> {
        let absent = || Error::not_found(format!("there is no model {model} in {}", self.location));
        match &self.source {
            Source::Bucket(bucket) => {
                if FilePath::parse(model).is_err() || model.contains('/') || model.starts_with('.') {
                    return Err(absent());
                }
                let unit = bucket.list(Some(model))?.remove(model).ok_or_else(absent)?;
                self.take_model(held, bucket, model, &unit)
            }
            Source::Archive(_) | Source::Layout(_) => {
                let listing = self.list()?;
                let unit = listing.get("").cloned().unwrap_or_default();
                let mut models = self.read_archive(&unit)?;
                let tree = models.remove(model).ok_or_else(absent)?;
                self.publish(held, model, keep(tree, &unit))
            }
        }
    }

    /// Takes over what an earlier start has published, as far as it is still what it was.
    fn restore(&self, held: &mut Held) {
        let started = Instant::now();
        held.state = self.cache.read_state().filter(|state: &State| state.format == FORMAT).unwrap_or_default();
        let names: Vec<String> = held.state.models.keys().cloned().collect();
        for name in &names {
            if !held.tree(name).is_some_and(|tree| self.cache.is_intact(name, &tree)) {
                warn!(model = name, "what the cache has of this model is damaged and is fetched again");
                held.state.models.remove(name);
            }
        }
        // What lies there and is not known of is nobody's.
        for entry in fs::read_dir(&self.root).into_iter().flatten().filter_map(std::io::Result::ok) {
            if let Some(name) = entry.file_name().to_str().filter(|name| !held.state.models.contains_key(*name)) {
                self.cache.withdraw(name);
            }
        }
        // What was not just read may be damaged: it is not taken for what it is called.
        self.cache.prune(&held.needed());
        if !held.state.models.is_empty() {
            self.metrics.set_in_step(SystemTime::UNIX_EPOCH + Duration::from_secs(held.state.in_step));
            let check_ms = started.elapsed().as_millis() as u64;
            debug!(models = held.state.models.len(), check_ms, "models of an earlier start are in the cache");
        }
    }

    fn list(&self) -> Result<Listing> {
        let listing = match (&self.source, &self.location) {
            (Source::Bucket(bucket), _) => bucket.list(None)?,
            (_, Location::Layout(folder)) => single(&folder.join("index.json"))?,
            (_, Location::Archive(path)) => single(path)?,
            (_, Location::S3 { .. }) => Listing::new(),
        };
        if matches!(self.source, Source::Bucket(_)) {
            *self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = listing.keys().cloned().collect();
        }
        Ok(listing)
    }

    /// Takes in a listing, and returns what is to be done. A bucket that had models and at once has none is likelier emptied by
    /// mistake than meant to be: it is refused until it has models again.
    fn take_in(&self, held: &mut Held, listing: &Listing, synced: &mut Synced) -> Vec<Change> {
        let is_bucket = matches!(self.source, Source::Bucket(_));
        if is_bucket && listing.is_empty() && !held.state.models.is_empty() {
            if !std::mem::replace(&mut held.is_emptied, true) {
                let refused = self.is_empty_now();
                let models = held.state.models.len();
                error!(store = %self.location, models, cause = refused.message(), "the models that there were go on serving");
                synced.refused.push((String::new(), refused));
            }
            return Vec::new();
        }
        if std::mem::take(&mut held.is_emptied) {
            info!(store = %self.location, "there are models in the model store again");
        }
        if std::mem::replace(&mut held.has_begun, true) {
            return held.settling.observe(listing, Instant::now());
        }
        // An archive takes its models away itself.
        let published = held.state.models.keys().filter(|_| is_bucket);
        held.settling.begin(listing, published, Instant::now(), SystemTime::now())
    }

    /// Why a store without a model is not taken where there were some.
    fn is_empty_now(&self) -> Error {
        Error::invalid(format!("there is no model in {} any more: {}", self.location, self.hint()))
    }

    /// Does what has to be done, for the models that `wanted` picks.
    fn act(&self, held: &mut Held, changes: Vec<Change>, wanted: impl Fn(&str) -> bool, synced: &mut Synced) {
        for (name, unit) in changes {
            let result = match (&self.source, unit) {
                (Source::Bucket(bucket), Some(unit)) if wanted(&name) => self.take_model(held, bucket, &name, &unit),
                (Source::Bucket(_), Some(_)) => Ok(()),
                (Source::Bucket(_), None) => {
                    self.withdraw(held, &name, synced);
                    Ok(())
                }
                (_, Some(unit)) => self.take_archive(held, &unit, synced),
                // An archive that is gone takes nothing with it: that it is replaced is likelier than that nothing is to serve.
                (_, None) => Ok(()),
            };
            match result {
                Ok(()) if held.refused.remove(&name) => synced.recovered.push(name),
                Ok(()) => {}
                Err(error) => {
                    // An archive is no model.
                    let model = Some(name.as_str()).filter(|name| !name.is_empty());
                    warn!(
                        model,
                        store = %self.location,
                        cause = error.chain(),
                        "what the model store has now was not taken: what was taken before stays"
                    );
                    held.refused.insert(name.clone());
                    // What is wrong does not become right by itself. What could not be got may be got the next time.
                    if error.kind() != ErrorKind::InvalidArgument {
                        held.settling.retry(&name);
                    }
                    synced.refused.retain(|(other, _)| *other != name);
                    synced.refused.push((name, error));
                }
            }
        }
    }

    fn publish(&self, held: &mut Held, model: &str, files: BTreeMap<FilePath, Kept>) -> Result<()> {
        let tree: Tree = files.iter().map(|(path, kept)| (path.clone(), kept.file.clone())).collect();
        if held.tree(model).as_ref() != Some(&tree) {
            self.cache.publish(model, &tree)?;
            let bytes: u64 = tree.values().map(|file| file.bytes).sum();
            info!(model, files = tree.len(), bytes, store = %self.location, "taken from the model store");
        }
        held.state.models.insert(model.to_owned(), files);
        Ok(())
    }

    fn withdraw(&self, held: &mut Held, model: &str, synced: &mut Synced) {
        info!(model, store = %self.location, "no longer in the model store");
        self.cache.withdraw(model);
        held.state.models.remove(model);
        held.fetched.remove(model);
        synced.removed.push(model.to_owned());
    }

    /// Notes what a look at the store came to, which answered.
    fn finish(&self, held: &mut Held, started: Instant, synced: &Synced) {
        let unreached = synced.refused.iter().any(|(_, error)| error.kind() != ErrorKind::InvalidArgument);
        self.metrics.record(!unreached, started.elapsed());
        // Of an emptied store, that they are gone is what is not taken.
        let kept = held.state.models.keys().filter(|name| held.is_emptied && !held.refused.contains(*name));
        self.metrics.refused.set((held.refused.len() + kept.count()) as i64);
        if synced.refused.is_empty() && !held.is_emptied {
            let now = SystemTime::now();
            self.metrics.set_in_step(now);
            held.state.in_step = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        }
        held.state.format = FORMAT;
        self.cache.prune(&held.needed());
        self.cache.write_state(&held.state);
    }
}
