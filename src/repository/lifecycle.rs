//! Who waits for which model: actions on one model are done one after the other in the order in which they were asked for,
//! those on different models at the same time, up to a bound.
//!
//! It must not know how a model is loaded: [`super::loader`] does that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use super::control::ModelControlMode;
use super::loader::Action;
use super::overrides::Overrides;
use super::served::{Served, Serving};
use super::state::Entry;
use super::{Model, Repository, layout, shutting_down, stocking, watcher};
use crate::error::{Error, ErrorKind, Result};

/// How many models are loaded at the same time. Loading is one thread's work and takes twice the model's memory while it lasts.
pub(super) const PARALLEL_LOADS: usize = 4;
/// How long it takes at most to notice that the last request of a model that is drained has ended.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);

type Waiter = oneshot::Sender<Result<()>>;

/// The actions that wait for each model; a model whose actions are being worked on has an entry, be it empty.
#[derive(Debug, Default)]
pub(super) struct Lines {
    models: BTreeMap<String, VecDeque<Job>>,
    is_closed: bool,
}

#[derive(Debug)]
struct Job {
    action: Action,
    waiters: Vec<Waiter>,
}

impl Lines {
    /// Puts an action at the end of the model's line. Returns whether nobody works on that line yet.
    ///
    /// An action that would do what the last one in the line does shares it: neither has begun, so what the first will read
    /// is what the second would. One that has begun is never shared, as it may have read its files already.
    fn push(&mut self, name: &str, action: Action, waiter: Waiter) -> bool {
        if self.is_closed {
            // A waiter that has gone needs no answer.
            drop(waiter.send(Err(shutting_down())));
            return false;
        }
        let is_idle = !self.models.contains_key(name);
        let line = self.models.entry(name.to_owned()).or_default();
        match line.back_mut() {
            Some(last) if is_same(&last.action, &action) => {
                // The newer one knows the folder better.
                last.action = action;
                last.waiters.push(waiter);
            }
            _ => line.push_back(Job { action, waiters: vec![waiter] }),
        }
        is_idle
    }

    /// The next action of the model's line. `None` when there is none: then nobody works on the line any more.
    fn next(&mut self, name: &str) -> Option<Job> {
        let job = self.models.get_mut(name)?.pop_front();
        if job.is_none() {
            self.models.remove(name);
        }
        job
    }

    /// Takes no more actions, and refuses those that have not begun.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        for job in self.models.values_mut().flat_map(std::mem::take) {
            answer(job.waiters, &Err(shutting_down()));
        }
    }
}

fn is_same(one: &Action, other: &Action) -> bool {
    match (one, other) {
        // Overrides are a client's own: it must get its own answer.
        (Action::Load(one), Action::Load(other)) | (Action::Refresh(one), Action::Refresh(other)) => {
            one.is_empty() && other.is_empty()
        }
        (Action::Follow(_), Action::Follow(_)) => true,
        (one, other) => one == other,
    }
}

fn answer(waiters: Vec<Waiter>, result: &Result<()>) {
    for waiter in waiters {
        // A waiter that has gone needs no answer.
        drop(waiter.send(result.clone()));
    }
}

impl Repository {
    /// Loads the models that the configuration wants at the start, and from then on follows the repository where it wants
    /// that. A model that cannot be loaded is unavailable, with a reason; the others are not touched by that.
    ///
    /// # Errors
    /// `NotFound` when the repository cannot be read.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        self.stock_at_start().await?;
        let present = self.blocking(|repository| layout::models(&repository.root)).await?;
        for link in self.blocking(|repository| Ok(layout::broken_links(&repository.root))).await? {
            warn!(link, "a link in the model repository leads nowhere: there is no model of this name");
        }
        if present.is_empty() {
            self.say_empty();
        }
        let names = present.iter().map(|(name, _)| name.as_str());
        let wanted: Vec<_> = names.filter(|name| self.control.loads_at_start(name)).collect();
        for name in self.control.named().filter(|name| !present.iter().any(|(other, _)| other == name)) {
            self.fail(name, &self.unknown(name));
        }
        let following = match self.control.mode {
            ModelControlMode::Poll => Some(self.blocking(|repository| Ok(watcher::Settling::start(repository))).await?),
            _ => None,
        };
        let jobs: Vec<_> = match &following {
            Some(settling) => settling.settled().map(|(name, seen)| self.enqueue(name, Action::Follow(seen))).collect(),
            None => wanted.into_iter().map(|name| self.enqueue(name, Action::Load(Overrides::default()))).collect(),
        };
        for job in jobs {
            // Why a model could not be loaded is in the log and in the index.
            drop(job.await);
        }
        if let Some(mut settling) = following {
            watcher::settle(self, &mut settling).await;
            tokio::spawn(watcher::follow(Arc::clone(self), settling));
            tokio::spawn(stocking::follow(Arc::clone(self)));
        }
        self.note_start();
        Ok(())
    }

    /// Loads the model called `name`, or loads it again, and completes when it serves; with an ensemble, also the members that
    /// do not serve. A load that has begun is not undone when this is dropped.
    ///
    /// # Errors
    /// `Unimplemented` where the API does not decide which models are loaded, `NotFound` where there is no such model,
    /// `InvalidArgument` for overrides that cannot be, `Unavailable` while the server shuts down; else why it cannot be loaded.
    pub async fn load(self: &Arc<Self>, name: &str, overrides: Overrides) -> Result<()> {
        self.check_offered("loaded", name)?;
        self.wait_for(name, Action::Refresh(overrides)).await?;
        for member in self.members(name) {
            if self.get(&member, None).is_err() {
                self.wait_for(&member, Action::Refresh(Overrides::default())).await?;
            }
        }
        Ok(())
    }

    /// Takes the model called `name` out of service, and completes when every request that it had taken is answered. A model
    /// that is not loaded is unloaded with success. With `and_members`, an ensemble's members are taken out of service after it, but for those that
    /// another ensemble has, too.
    ///
    /// # Errors
    /// `Unimplemented` where the API does not decide which models are loaded, `Unavailable` while the server shuts down.
    pub async fn unload(self: &Arc<Self>, name: &str, and_members: bool) -> Result<()> {
        self.check_offered("unloaded", name)?;
        let members = if and_members { self.members(name) } else { Vec::new() };
        self.wait_for(name, Action::Unload).await?;
        for member in members {
            if !self.is_needed(&member) {
                self.wait_for(&member, Action::Unload).await?;
            }
        }
        Ok(())
    }

    fn check_offered(&self, verb: &str, name: &str) -> Result<()> {
        let why = match self.control.mode {
            ModelControlMode::Explicit => return Ok(()),
            ModelControlMode::None => "this server loads its models when it starts",
            ModelControlMode::Poll => "this server follows its model repository",
        };
        let message =
            format!("the model {name} cannot be {verb} over the API: {why} (model_control.mode is not explicit)");
        Err(Error::new(ErrorKind::Unimplemented, message))
    }

    async fn wait_for(self: &Arc<Self>, name: &str, action: Action) -> Result<()> {
        self.enqueue(name, action).await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Puts an action into the model's line. Dropping the receiver does not take it out again.
    pub(super) fn enqueue(self: &Arc<Self>, name: &str, action: Action) -> oneshot::Receiver<Result<()>> {
        let (waiter, receiver) = oneshot::channel();
        let is_idle = self.lines().push(name, action, waiter);
        if is_idle {
            tokio::spawn(work(Arc::clone(self), name.to_owned()));
        }
        receiver
    }

    /// Runs what blocks off the runtime's workers.
    pub(super) async fn blocking<T, F>(self: &Arc<Self>, what: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T> + Send + 'static,
    {
        let repository = Arc::clone(self);
        tokio::task::spawn_blocking(move || what(&repository))
            .await
            .map_err(|error| Error::internal("the server failed on its model repository").with_source(error))?
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works on the model's line until it is empty.
///
/// What an action retires is drained before the next one begins, so that of each model there are two generations at most.
async fn work(repository: Arc<Repository>, name: String) {
    loop {
        let Some(Job { action, waiters }) = repository.lines().next(&name) else { return };
        let is_unload = matches!(action, Action::Unload | Action::Remove);
        let (outcome, is_removal) = {
            // An error says that the places are gone, which they never are.
            let _place = if is_unload { None } else { repository.loads.acquire().await.ok() };
            let name = name.clone();
            let perform = move |repository: &Repository| {
                // What is unloaded and has no folder cannot be loaded again as it was.
                let is_gone = action == Action::Unload && !repository.root.join(&name).is_dir();
                (repository.perform(&name, &action), is_gone || action == Action::Remove)
            };
            on_its_own_thread(&repository, perform).await
        }
        .unwrap_or_else(|error| {
            repository.fail(&name, &error);
            (Err(error).into(), false)
        });
        if is_unload {
            drain(&repository, &name, outcome.retired, is_removal).await;
            answer(waiters, &outcome.result);
        } else {
            answer(waiters, &outcome.result);
            drain(&repository, &name, outcome.retired, false).await;
        }
    }
}

impl Repository {
    /// Takes out of the metrics what ran `model`, which has ended, unless that runs what serves now.
    fn forget(&self, model: &Model) {
        let serving = self.get(model.name(), Some(model.version())).ok();
        if serving.is_none() {
            self.metrics.record_unload(model.name(), model.version());
        }
        let Some(provider) = model.graph().map(|graph| graph.provider()) else { return };
        if serving.is_none_or(|serving| serving.graph().is_none_or(|graph| graph.provider() != provider)) {
            self.metrics.forget_provider(model.name(), model.version(), provider);
        }
    }
}

/// Runs `what` on a thread that ends with it.
///
/// A load's memory is taken on one thread and given back on others. The allocator keeps that for the first thread for as long
/// as there is one, and the runtime's threads last: they would keep several models' weights.
async fn on_its_own_thread<T, F>(repository: &Arc<Repository>, what: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Repository) -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let repository = Arc::clone(repository);
    std::thread::Builder::new()
        .name("load".to_owned())
        // Whoever asked waits for it, so it is not sent to nobody.
        .spawn(move || drop(sender.send(what(&repository))))
        .map_err(|error| Error::internal("a thread for the load cannot be started").with_source(error))?;
    receiver.await.map_err(|_| Error::internal("loading the model panicked"))
}

/// Waits until nobody uses what was retired, and ends it.
async fn drain(repository: &Arc<Repository>, name: &str, retired: Vec<Serving>, is_removal: bool) {
    let started = Instant::now();
    let count = retired.len();
    for serving in &retired {
        serving.drain();
    }
    for serving in retired {
        // Whoever got the model before it was taken out of the repository holds it until its request is answered, and nobody
        // can get it any more. An `Arc` tells nobody that another of its handles is gone, so this looks.
        while serving.is_held() {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
        let ended = repository.blocking(move |repository| {
            serving.close();
            if let Served::Graph(model) = &serving.served {
                repository.forget(model);
            }
            Ok(())
        });
        if let Err(failure) = ended.await {
            error!(model = name, cause = failure.chain(), "a model could not be ended");
        }
    }
    repository.change(name, |entry| {
        entry.finish_drain();
        if is_removal {
            *entry = Entry::default();
        }
    });
    if count > 0 {
        debug!(model = name, versions = count, drain_ms = started.elapsed().as_millis() as u64, "drained");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Action {
        Action::Load(Overrides::default())
    }

    fn overriding() -> Action {
        Action::Load(Overrides { config: Some("{}".into()), files: Vec::new() })
    }

    /// A line of `actions`, whose answers come out of the receivers.
    fn line(actions: &[Action]) -> (Lines, Vec<oneshot::Receiver<Result<()>>>) {
        let mut lines = Lines::default();
        let receivers = actions.iter().enumerate().map(|(index, action)| {
            let (waiter, receiver) = oneshot::channel();
            assert_eq!(lines.push("m", action.clone(), waiter), index == 0);
            receiver
        });
        let receivers = receivers.collect();
        (lines, receivers)
    }

    fn waiters(lines: &mut Lines) -> Vec<(Action, usize)> {
        std::iter::from_fn(|| lines.next("m")).map(|job| (job.action, job.waiters.len())).collect()
    }

    #[test]
    fn order_is_kept_and_only_equal_neighbours_share() {
        let actions = [load(), load(), Action::Unload, Action::Unload, load(), overriding(), overriding(), load()];
        let (mut lines, _receivers) = line(&actions);
        let expected =
            [(load(), 2), (Action::Unload, 2), (load(), 1), (overriding(), 1), (overriding(), 1), (load(), 1)];
        assert_eq!(waiters(&mut lines), expected);
        assert!(lines.models.is_empty());
    }

    #[test]
    fn what_has_begun_is_not_shared() {
        let (mut lines, _receivers) = line(&[load()]);
        assert_eq!(lines.next("m").unwrap().action, load());
        let (waiter, _receiver) = oneshot::channel();
        assert!(!lines.push("m", load(), waiter), "somebody works on it already");
        assert_eq!(waiters(&mut lines), [(load(), 1)]);
    }

    #[test]
    fn what_has_not_begun_is_refused_when_the_server_ends() {
        let (mut lines, receivers) = line(&[load(), Action::Unload]);
        lines.close();
        for receiver in receivers {
            assert_eq!(receiver.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
        }
        let (waiter, receiver) = oneshot::channel();
        assert!(!lines.push("m", load(), waiter));
        assert_eq!(receiver.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(lines.next("m").is_none());
    }
}
