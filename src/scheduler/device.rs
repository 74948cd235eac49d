//! The turns of a device: how many runs it has at a time, and which model's is next.
//!
//! All models on a device share it by start-time fair queueing (Goyal, Vin and Cheng 1996): a turn goes to the waiting model
//! that has used the least device time, and a model that was idle starts level with the others rather than with the time that
//! it has not used. It knows no queue and no batch. `tests/interleavings.rs` checks every interleaving of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A processor, or all of the CPU's cores together.
#[derive(Debug)]
pub struct Device {
    state: Mutex<State>,
}

/// Every device that models run on.
#[derive(Debug)]
pub struct Devices {
    cpu: Arc<Device>,
    gpus: Mutex<BTreeMap<i32, Arc<Device>>>,
}

#[derive(Debug)]
struct State {
    /// How many threads of runs, or runs on a GPU, there may be at a time.
    capacity: usize,
    free: usize,
    models: BTreeMap<u64, Account>,
    /// Those who wait, longest first.
    waiting: Vec<Waiting>,
    /// What was paid for the turns that those who waited do not know of yet.
    given: BTreeMap<u64, Duration>,
    next_id: u64,
}

/// A model's device time.
#[derive(Debug, Default)]
struct Account {
    /// By the turns that have ended.
    used: Duration,
    /// What the turns under way are expected to use. It counts from their begin, or a model could take every turn that comes
    /// free before its first is over.
    paid: Duration,
    /// How many are under way.
    turns: usize,
    /// What a turn is expected to use: what the last one did.
    expected: Duration,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    model: u64,
    weight: usize,
    wake: Arc<Condvar>,
}

/// A model's part in a device. Each of the model's instances on it holds the same.
#[derive(Debug)]
pub(super) struct Share {
    device: Arc<Device>,
    model: u64,
    weight: usize,
}

/// The right to run. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'s> {
    share: &'s Share,
    paid: Duration,
    took: Duration,
    waited: Duration,
    /// How many more turns of this weight there were when it began.
    others: usize,
}

impl Devices {
    /// The devices of this machine. The CPU runs as many threads at a time as it has cores.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cpu: Arc::new(Device::new(cores)), gpus: Mutex::default() }
    }

    /// All cores together.
    pub fn cpu(&self) -> Arc<Device> {
        Arc::clone(&self.cpu)
    }

    /// The GPU numbered `device_id`. It runs as many batches at a time as any one model wants there: `runs`, for this one.
    pub fn gpu(&self, device_id: i32, runs: usize) -> Arc<Device> {
        let mut gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        let gpu = gpus.entry(device_id).or_insert_with(|| Arc::new(Device::new(runs)));
        gpu.grow(runs);
        Arc::clone(gpu)
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self::new()
    }
}

impl Device {
    /// A device that runs `capacity` threads (or runs, where threads do not count) at a time; at least 1.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let state = State {
            capacity,
            free: capacity,
            models: BTreeMap::new(),
            waiting: Vec::new(),
            given: BTreeMap::new(),
            next_id: 0,
        };
        Self { state: Mutex::new(state) }
    }

    /// How many runs of `threads` threads each it has at a time.
    pub(super) fn runs(&self, threads: usize) -> usize {
        let capacity = self.lock().capacity;
        capacity / threads.clamp(1, capacity)
    }

    /// Lets the device run at least `capacity` at a time.
    pub fn grow(&self, capacity: usize) {
        let mut state = self.lock();
        let more = capacity.saturating_sub(state.capacity);
        state.capacity += more;
        state.free += more;
        state.give();
    }

    /// How many wait for a turn.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed by whole operations only, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// A model's part in `device`, whose runs have `threads` threads each and are expected to take `expected`.
    pub(super) fn new(device: &Arc<Device>, threads: usize, expected: Duration) -> Self {
        let mut state = device.lock();
        let model = state.next_id;
        state.next_id += 1;
        let weight = threads.clamp(1, state.capacity);
        let expected = expected.saturating_mul(weight as u32);
        state.models.insert(model, Account { expected, ..Account::default() });
        drop(state);
        Self { device: Arc::clone(device), model, weight }
    }

    /// A turn, if there is one at once.
    pub(super) fn try_take(&self) -> Option<Turn<'_>> {
        let mut state = self.device.lock();
        if !state.has_room(self.weight) {
            return None;
        }
        state.arrive(self.model);
        let paid = state.begin(self.model, self.weight);
        Some(self.turn(&state, paid, Duration::ZERO))
    }

    /// A turn. Blocks until it is this model's.
    pub(super) fn take(&self) -> Turn<'_> {
        let mut state = self.device.lock();
        state.arrive(self.model);
        let began = Instant::now();
        let (state, paid) = self.wait(state);
        self.turn(&state, paid, began.elapsed())
    }

    fn wait<'s>(&self, mut state: MutexGuard<'s, State>) -> (MutexGuard<'s, State>, Duration) {
        if state.has_room(self.weight) {
            let paid = state.begin(self.model, self.weight);
            return (state, paid);
        }
        let id = state.next_id;
        state.next_id += 1;
        let wake = Arc::new(Condvar::new());
        let waiting = Waiting { id, model: self.model, weight: self.weight, wake: Arc::clone(&wake) };
        state.waiting.push(waiting);
        state.give();
        loop {
            if let Some(paid) = state.given.remove(&id) {
                return (state, paid);
            }
            state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn turn(&self, state: &State, paid: Duration, waited: Duration) -> Turn<'_> {
        Turn { share: self, paid, took: Duration::ZERO, waited, others: state.free / self.weight }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.device.lock().models.remove(&self.model);
    }
}

impl Turn<'_> {
    /// How many instances could run now, this one among them.
    pub(super) fn sharers(&self) -> usize {
        1 + self.others
    }

    /// How long the others had the device.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// Says how long the run took.
    pub(super) fn charge(&mut self, took: Duration) {
        self.took += took;
    }

    /// Ends the turn and waits for the next one. In between, others have theirs where they have used less. Blocks.
    ///
    /// A model that has more to run does this rather than end its turn and ask for another: in between it would count as idle,
    /// and lose what it has not had.
    pub(super) fn renew(&mut self) {
        let mut state = self.share.device.lock();
        self.end(&mut state);
        let began = Instant::now();
        let (state, paid) = self.share.wait(state);
        self.paid = paid;
        self.took = Duration::ZERO;
        self.waited = began.elapsed();
        self.others = state.free / self.share.weight;
    }

    fn end(&mut self, state: &mut State) {
        let took = self.took.saturating_mul(self.share.weight as u32);
        if let Some(account) = state.models.get_mut(&self.share.model) {
            account.used += took;
            account.paid -= self.paid;
            account.turns -= 1;
            if !took.is_zero() {
                account.expected = took;
            }
        }
        state.free += self.share.weight;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let device = &self.share.device;
        let mut state = device.lock();
        self.end(&mut state);
        state.give();
    }
}

impl State {
    /// Whether there is a turn at once.
    fn has_room(&self, weight: usize) -> bool {
        self.waiting.is_empty() && weight <= self.free
    }

    /// Brings a model level that had nothing waiting: with the least of the others at work, or when none is, with the one that
    /// has used the most.
    fn arrive(&mut self, model: u64) {
        let waits = |model: u64| self.waiting.iter().any(|waiting| waiting.model == model);
        if waits(model) {
            return;
        }
        let others = || self.models.iter().filter(|(other, _)| **other != model);
        let at_work = others().filter(|(other, account)| account.turns > 0 || waits(**other));
        let level = at_work.map(|(_, account)| account.used).min();
        let level = level.or_else(|| others().map(|(_, account)| account.used).max());
        if let (Some(level), Some(account)) = (level, self.models.get_mut(&model)) {
            account.used = account.used.max(level);
        }
    }

    /// Gives the free turns to those who wait. Who is next but does not fit is waited for, or wide runs would starve.
    fn give(&mut self) {
        loop {
            let used = |waiting: &Waiting| self.models.get(&waiting.model).map(|account| account.used + account.paid);
            let next = self.waiting.iter().enumerate().min_by_key(|(index, waiting)| (used(waiting), *index));
            match next {
                Some((index, waiting)) if waiting.weight <= self.free => {
                    let next = self.waiting.remove(index);
                    let paid = self.begin(next.model, next.weight);
                    self.given.insert(next.id, paid);
                    next.wake.notify_one();
                }
                _ => return,
            }
        }
    }

    /// Begins a turn, and returns what was paid for it in advance.
    fn begin(&mut self, model: u64, weight: usize) -> Duration {
        self.free -= weight;
        let Some(account) = self.models.get_mut(&model) else { return Duration::ZERO };
        account.turns += 1;
        account.paid += account.expected;
        account.expected
    }
}
