//! Answers that are kept, so that what comes again need not be run again.
//!
//! It knows digests and tensors, neither requests nor pictures. What it keeps belongs to a model as it was loaded: a
//! [`ModelCache`] is opened for each load and empties itself when that model is gone, so no answer outlives the graph, the recipe
//! or the provider that it came from.
//!
//! One lock guards two ordered maps. An entry costs a few comparisons in each, far less than the hash that comes before, and
//! the nodes of such maps go as their entries do: a hash table would keep its largest size.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::sha256;
use crate::telemetry::ModelCacheMetrics;
use crate::tensor::Tensor;

/// How many entries of a model that is gone are dropped before others may have the lock.
const DROPPED_AT_ONCE: usize = 1024;

/// The `[response_cache]` table of the server's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseCacheConfig {
    /// The most bytes that kept answers may take, all that belongs to them counted. Default: 0, nothing is kept.
    pub max_bytes: usize,
}

/// What an answer is kept under: the SHA-256 of its input.
///
/// Nobody knows two inputs with the same SHA-256, so no client can have another's picture answered with its own. A faster
/// hash would need a secret key for that, and would save little: a picture takes far longer to decode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    const LOWEST: Self = Self([0; 32]);

    /// The digest of an encoded picture.
    pub fn of_picture(encoded: &[u8]) -> Self {
        Self(Sha256::new().chain_update(b"P").chain_update(encoded).finalize().into())
    }

    /// The digest of a tensor: its type, its shape and its elements.
    pub fn of_tensor(tensor: &Tensor) -> Self {
        let mut hash = Sha256::new().chain_update(b"T").chain_update(tensor.data_type().as_str()).chain_update([0]);
        hash.update((tensor.shape().len() as u64).to_le_bytes());
        for &dimension in tensor.shape() {
            hash.update((dimension as u64).to_le_bytes());
        }
        Self(hash.chain_update(tensor.bytes()).finalize().into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sha256::hex(&self.0))
    }
}

/// The kept answers of all models, within one bound. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ResponseCache {
    max_bytes: usize,
    state: Arc<Mutex<State>>,
}

/// The kept answers of one model as it was loaded. Dropping it drops them.
#[derive(Debug)]
pub struct ModelCache {
    cache: ResponseCache,
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    /// Never given twice, unlike a name or an address.
    id: u64,
    metrics: ModelCacheMetrics,
}

#[derive(Debug, Default)]
struct State {
    /// When each entry was used last.
    uses: BTreeMap<(u64, Digest), u64>,
    /// The entries by when they were used last, the oldest first.
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
    /// Counts uses: the cache's clock.
    now: u64,
    owners: u64,
}

#[derive(Debug)]
struct Entry {
    owner: Arc<Owner>,
    digest: Digest,
    outputs: Arc<[Tensor]>,
    bytes: usize,
}

impl ResponseCache {
    /// An empty cache; `None` where nothing is to be kept.
    pub fn new(config: &ResponseCacheConfig) -> Option<Self> {
        (config.max_bytes > 0).then(|| Self { max_bytes: config.max_bytes, state: Arc::default() })
    }

    /// The part of a model that has just been loaded. `metrics` are told of its bytes and evictions.
    pub fn open(&self, metrics: ModelCacheMetrics) -> ModelCache {
        let mut state = self.lock();
        state.owners += 1;
        let id = state.owners;
        drop(state);
        ModelCache { cache: self.clone(), owner: Arc::new(Owner { id, metrics }) }
    }

    /// How many they may take.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// How many bytes the kept answers take.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed by whole operations only, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelCache {
    /// The outputs kept under `digest`, as they were.
    pub fn get(&self, digest: Digest) -> Option<Vec<Tensor>> {
        let outputs = self.cache.lock().find((self.owner.id, digest))?;
        Some(outputs.to_vec())
    }

    /// Keeps `outputs` under `digest`, and drops what was not used for the longest time until there is room. What is kept
    /// already stays, so that equal inputs go on getting equal answers; what is larger than the whole cache is not kept.
    pub fn insert(&self, digest: Digest, outputs: &[Tensor]) {
        let bytes = entry_bytes(outputs);
        if bytes > self.cache.max_bytes {
            return;
        }
        let outputs = outputs.iter().map(Tensor::detached).collect();
        let entry = Entry { owner: Arc::clone(&self.owner), digest, outputs, bytes };
        let mut state = self.cache.lock();
        if state.uses.contains_key(&(self.owner.id, digest)) {
            return;
        }
        let evicted = state.make_room(self.cache.max_bytes - bytes);
        state.add(entry);
        // Their memory is given back while others can have the lock.
        drop(state);
        drop(evicted);
    }
}

impl Drop for ModelCache {
    fn drop(&mut self) {
        // In steps, so that the other models' requests need not wait for all of it.
        loop {
            let dropped = self.cache.lock().take_from(self.owner.id, DROPPED_AT_ONCE);
            if dropped.is_empty() {
                return;
            }
        }
    }
}

impl State {
    /// The entry's outputs; it has now been used last.
    fn find(&mut self, key: (u64, Digest)) -> Option<Arc<[Tensor]>> {
        let used = self.uses.get_mut(&key)?;
        let entry = self.entries.remove(used)?;
        let outputs = Arc::clone(&entry.outputs);
        self.now += 1;
        *used = self.now;
        self.entries.insert(self.now, entry);
        Some(outputs)
    }

    fn add(&mut self, entry: Entry) {
        self.now += 1;
        self.bytes += entry.bytes;
        entry.owner.metrics.bytes.add(entry.bytes as i64);
        self.uses.insert((entry.owner.id, entry.digest), self.now);
        self.entries.insert(self.now, entry);
    }

    /// Takes out the entries that were not used for the longest time until the others have at most `bytes`.
    fn make_room(&mut self, bytes: usize) -> Vec<Entry> {
        let mut evicted = Vec::new();
        while self.bytes > bytes
            && let Some((_, entry)) = self.entries.pop_first()
        {
            self.uses.remove(&(entry.owner.id, entry.digest));
            self.count_out(&entry);
            entry.owner.metrics.evictions.inc();
            evicted.push(entry);
        }
        evicted
    }

    /// Takes out at most `count` entries of one owner.
    fn take_from(&mut self, owner: u64, count: usize) -> Vec<Entry> {
        let theirs = self.uses.range((owner, Digest::LOWEST)..).take_while(|((other, _), _)| *other == owner);
        let theirs: Vec<_> = theirs.take(count).map(|(&key, &used)| (key, used)).collect();
        let taken = theirs.into_iter().filter_map(|(key, used)| {
            self.uses.remove(&key);
            let entry = self.entries.remove(&used)?;
            self.count_out(&entry);
            Some(entry)
        });
        taken.collect()
    }

    fn count_out(&mut self, entry: &Entry) {
        self.bytes -= entry.bytes;
        entry.owner.metrics.bytes.sub(entry.bytes as i64);
    }
}

/// What an entry takes in memory: its tensors, and its places in the two maps, whose nodes of 11 hold at least 5.
fn entry_bytes(outputs: &[Tensor]) -> usize {
    let places = (size_of::<(u64, Digest)>() + size_of::<u64>() + size_of::<u64>() + size_of::<Entry>()) * 11 / 5;
    // The list's two counts come before it, and a buffer that is shared has a header elsewhere.
    let list = allocated(2 * size_of::<usize>() + size_of_val(outputs));
    let tensor = |output: &Tensor| {
        allocated(size_of_val(output.shape())) + allocated(output.bytes().len()) + allocated(3 * size_of::<usize>())
    };
    places + list + outputs.iter().map(tensor).sum::<usize>()
}

/// What an allocation of `bytes` bytes takes, as common allocators round.
fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of(16) + 16
}

#[cfg(test)]
mod tests;
