//! Bringing what is in the cache into step with what is in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::archive::{self, read_sums};
use super::listing::{Change, Listing, Object, Settling, Unit};
use super::location::Location;
use super::path::FilePath;
use super::s3::Bucket;
use super::tree::{Digest, File, SUMS_FILE, Tree, parse_sums};
use super::{Source, Store};
use crate::error::{Error, ErrorKind, Result};

/// At the start, how many settle times what does not come to rest is waited for.
const PATIENCE: u32 = 10;
/// An archive is a unit by itself, whose one object has this name.
const ARCHIVE: &str = "archive";

/// What is known of the store.
#[derive(Debug)]
pub(super) struct Held {
    settling: Settling,
    state: State,
    /// What was fetched of models that could not be taken yet, so that it need not be fetched again.
    fetched: BTreeMap<String, BTreeMap<FilePath, Kept>>,
    refused: BTreeSet<String>,
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
        if listing.is_empty() {
            warn!(store = %self.location, "there is no model in the model store: <name>/<version>/model.onnx");
        }
        let mut synced = Synced::default();
        let published: Vec<String> = match &self.source {
            Source::Bucket(_) => held.state.models.keys().cloned().collect(),
            Source::Archive(_) | Source::Layout(_) => Vec::new(),
        };
        let changes = held.settling.begin(&listing, published.iter(), Instant::now(), SystemTime::now());
        self.act(&mut held, changes, &wanted, &mut synced);
        // With nothing to fall back on, models that are just being uploaded are waited for.
        let patience = Instant::now() + self.poll_interval * PATIENCE;
        while let Some(due) = held.settling.next_due().filter(|due| *due < patience) {
            info!(store = %self.location, "what is in the model store was written to just now: waiting for it to rest");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.list() {
                Ok(listing) => {
                    let changes = held.settling.observe(&listing, Instant::now());
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
        let changes = held.settling.observe(&listing, Instant::now());
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
                    warn!(
                        model = name,
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

    /// Fetches what has changed of a bucket's model, checks it, and publishes the model.
    fn take_model(&self, held: &mut Held, bucket: &Bucket, model: &str, unit: &Unit) -> Result<()> {
        let mut fetched = BTreeMap::new();
        let result = self.fetch_files(held, bucket, model, unit, &mut fetched);
        // Whatever comes of it, the next try need not fetch these again.
        held.fetched.insert(model.to_owned(), fetched.clone());
        result?;
        self.publish(held, model, fetched)?;
        held.fetched.remove(model);
        Ok(())
    }

    fn fetch_files(
        &self,
        held: &Held,
        bucket: &Bucket,
        model: &str,
        unit: &Unit,
        fetched: &mut BTreeMap<FilePath, Kept>,
    ) -> Result<()> {
        let known = |path: &FilePath, object: &Object| {
            let models = [&held.fetched, &held.state.models];
            let kept = models.into_iter().filter_map(|models| models.get(model)?.get(path));
            let mut kept = kept.filter(|kept| kept.version == object.version && kept.file.bytes == object.bytes);
            kept.find(|kept| self.cache.has(&kept.file)).cloned()
        };
        let fetch = |objects: Vec<(&FilePath, &Object)>, into: &mut BTreeMap<FilePath, Kept>| -> Result<()> {
            let (there, absent): (Vec<_>, Vec<_>) = objects
                .into_iter()
                .map(|(path, object)| (path, object, known(path, object)))
                .partition(|found| found.2.is_some());
            into.extend(there.into_iter().filter_map(|(path, _, kept)| Some((path.clone(), kept?))));
            let absent: Vec<_> = absent.into_iter().map(|(path, object, _)| (path, object)).collect();
            let mut files = BTreeMap::new();
            let result = bucket.fetch(model, absent.iter().copied(), &self.cache, &mut files);
            for (path, object) in absent {
                if let Some(file) = files.remove(path) {
                    self.metrics.fetched_bytes.inc_by(file.bytes);
                    into.insert(path.clone(), Kept { file, version: object.version.clone() });
                }
            }
            result
        };
        let Some((path, object)) = unit.0.iter().find(|(path, _)| path.as_str() == SUMS_FILE) else {
            return fetch(unit.0.iter().collect(), fetched);
        };
        fetch(vec![(path, object)], fetched)?;
        let list = fetched.get(path).map(|kept| kept.file.clone());
        let list = list.ok_or_else(|| Error::internal("a list of checksums was fetched and is not there"))?;
        let sums = parse_sums(&read_sums(&list, &self.cache)?)?;
        let mut wanted = Vec::new();
        for path in sums.keys() {
            let object = unit.0.get(path);
            let object = object.ok_or_else(|| Error::invalid(format!("{path} is missing, which {SUMS_FILE} names")))?;
            wanted.push((path, object));
        }
        if sums.len() + 1 < unit.0.len() {
            warn!(model, "{SUMS_FILE} does not name all files in the model's folder: the others are left out");
        }
        fetch(wanted, fetched)?;
        for (path, digest) in &sums {
            if fetched.get(path).is_none_or(|kept| kept.file.sha256 != *digest) {
                return Err(Error::invalid(format!("{path} is not the file that {SUMS_FILE} names")));
            }
        }
        Ok(())
    }

    /// Takes an archive with all that is in it.
    fn take_archive(&self, held: &mut Held, unit: &Unit, synced: &mut Synced) -> Result<()> {
        let version = unit.0.values().next().map(|object| object.version.clone()).unwrap_or_default();
        let mut kept = held.state.models.values().flat_map(BTreeMap::values).peekable();
        if kept.peek().is_some() && kept.all(|kept| kept.version == version) {
            return Ok(());
        }
        let models = self.read_archive(unit)?;
        let gone: Vec<String> = held.state.models.keys().filter(|name| !models.contains_key(*name)).cloned().collect();
        for (model, tree) in models {
            self.publish(held, &model, keep(tree, unit))?;
        }
        for model in gone {
            self.withdraw(held, &model, synced);
        }
        Ok(())
    }

    fn read_archive(&self, unit: &Unit) -> Result<BTreeMap<String, Tree>> {
        let models = match (&self.source, &self.location) {
            (Source::Archive(options), Location::Archive(path)) => archive::read_archive(path, options, &self.cache)?,
            (Source::Layout(options), Location::Layout(folder)) => archive::read_layout(folder, options, &self.cache)?,
            _ => BTreeMap::new(),
        };
        if self.list()?.get("") != Some(unit) {
            return Err(Error::unavailable(format!("{} has changed while it was read", self.location)));
        }
        let bytes = models.values().flat_map(BTreeMap::values).map(|file| file.bytes).sum();
        self.metrics.fetched_bytes.inc_by(bytes);
        *self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = models.keys().cloned().collect();
        Ok(models)
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
        self.metrics.refused.set(held.refused.len() as i64);
        if synced.refused.is_empty() {
            let now = SystemTime::now();
            self.metrics.set_in_step(now);
            held.state.in_step = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        }
        held.state.format = FORMAT;
        self.cache.prune(&held.needed());
        self.cache.write_state(&held.state);
    }
}

/// A listing of an archive: one unit with one object.
fn single(path: &Path) -> Result<Listing> {
    let metadata = fs::metadata(path);
    let metadata = metadata.map_err(|error| Error::not_found(format!("{} cannot be read: {error}", path.display())))?;
    let version = format!("{}.{:09}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
    let object = Object { bytes: metadata.len(), version, e_tag: None, modified: metadata.modified().ok() };
    Ok(Listing::from([(String::new(), Unit(BTreeMap::from([(FilePath::parse(ARCHIVE)?, object)])))]))
}

/// The files of an archive, each of the archive's own version.
fn keep(tree: Tree, unit: &Unit) -> BTreeMap<FilePath, Kept> {
    let version = unit.0.values().next().map(|object| object.version.clone()).unwrap_or_default();
    tree.into_iter().map(|(path, file)| (path, Kept { file, version: version.clone() })).collect()
}
