//! Auto-tuning: measures in which batches, on how many instances and with how many threads a model runs best here, and
//! remembers it.
//!
//! `grid` says what there is to choose from, `search` finds the best within a budget, `measure` runs it, `cache` keeps it.
//! docs/tuning.md tells users how. It knows graphs and machines, not models that serve.

mod cache;
mod grid;
mod measure;
mod report;
mod search;
mod sweep;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use self::cache::{Entry, Key};
pub use self::grid::Setup;
use self::grid::Space;
use self::measure::Sessions;
pub use self::report::{TuneOptions, TuningReport};
use self::search::Goal;
pub use self::search::Measurement;
pub use self::sweep::Sweep;
use super::config::{ModelConfig, Tunable};
use super::{instances, interface};
use crate::cache_folder;
use crate::engine::{Graph, Runtime};
use crate::error::{Error, Result};
use crate::tensor::DataType;

/// The `[tuning]` table of the server. What is wanted of a model says its own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningCacheConfig {
    /// The folder in which choices are kept between starts. Default: `tuning` in the user's cache folder.
    pub cache: Option<PathBuf>,
}

impl TuningCacheConfig {
    /// The folder; `None` where none is named and there is no home directory, and nothing is kept.
    pub fn folder(&self) -> Option<PathBuf> {
        self.cache.clone().or_else(|| cache_folder::default().map(|folder| folder.join("tuning")))
    }
}

/// What was chosen for a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuning {
    /// The choice.
    pub choice: Setup,
    /// Whether it was measured earlier, and comes out of the cache.
    pub is_cached: bool,
    /// What was measured, ascending by setup. What a short look has ruled out, or the budget, is not in it.
    pub measurements: Vec<Measurement>,
}

/// What is tuned.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) graph: &'a mut Graph,
    pub(super) path: &'a Path,
    pub(super) fixed_batch: Option<usize>,
    pub(super) row_shape: [usize; 3],
    pub(super) data_type: DataType,
}

/// Tunes one model at a time: two would measure each other.
#[derive(Debug, Default)]
pub(super) struct Tuner {
    cache: Option<PathBuf>,
    turn: Mutex<()>,
    is_stopped: AtomicBool,
}

impl Tuner {
    pub(super) fn new(cache: Option<PathBuf>) -> Self {
        Self { cache, ..Self::default() }
    }

    /// Measures nothing any more: what is being tuned fails.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// The configuration with a number in place of each `"auto"`, and how that was found; `None` where the graph leaves nothing
    /// to choose. With `is_fresh` it is measured even if the cache has it. Takes about the budget, after whatever waits before.
    ///
    /// # Errors
    /// When a session cannot be made or a run fails, and `Unavailable` once it is stopped.
    pub(super) fn tune(
        &self,
        subject: &mut Subject<'_>,
        config: &ModelConfig,
        is_fresh: bool,
    ) -> Result<(ModelConfig, Option<Tuning>)> {
        let space = space(subject, config).map_err(Error::invalid)?;
        if !space.is_open() {
            return Ok((config.clone(), None));
        }
        let goal = goal(config);
        let Subject { runtime, graph, path, row_shape, .. } = subject;
        let (build, provider, rewriting) = (runtime.build(), graph.provider(), config.graph_optimization);
        let key = Key::new(path, *row_shape, build, provider, rewriting, &space, goal.max_batch_latency)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = self.cache.as_deref().filter(|_| !is_fresh).and_then(|folder| cache::read(folder, &key));
        let is_cached = cached.is_some();
        let Entry { choice, measurements, .. } = match cached {
            Some(entry) => entry,
            None => {
                let mut sessions = Sessions::new(graph, *row_shape, &self.is_stopped);
                let (choice, measurements) = search::search(&mut sessions, &space.grid(), &goal)?;
                let entry = Entry { key, choice, measurements };
                if let Some(folder) = &self.cache {
                    cache::write(folder, &entry);
                }
                entry
            }
        };
        warn_of_bound(&goal, choice, &measurements, path);
        Ok((settled(config, choice), Some(Tuning { choice, is_cached, measurements })))
    }
}

fn goal(config: &ModelConfig) -> Goal {
    Goal {
        max_batch_latency: config.tuning.max_batch_latency_ms.map(|bound| Duration::from_secs_f64(bound / 1e3)),
        budget: Duration::from_millis(config.tuning.budget_ms),
    }
}

/// What is open: all that is `"auto"`, unless the graph settles it. What the configuration does not name is as without tuning.
fn space(subject: &Subject<'_>, config: &ModelConfig) -> Result<Space, String> {
    let provider = subject.graph.provider();
    let is_open = |value| value == Some(Tunable::Auto);
    let max_batch_size = instances::max_batch_size(subject.fixed_batch, config.max_batch_size, provider)?;
    let has_room = |rows: &usize| interface::check_batch_bytes(*rows, subject.row_shape, subject.data_type).is_ok();
    let is_batch_open = is_open(config.max_batch_size) && subject.fixed_batch.is_none();
    let is_gpu = provider.is_gpu();
    Ok(Space {
        max_batch_size: (!is_batch_open).then_some(max_batch_size),
        // A GPU's kernels have no threads of ours.
        intra_op_threads: (is_gpu || !is_open(config.instances.intra_op_threads))
            .then(|| instances::intra_op_threads(config)),
        instances: (!is_open(config.instances.count)).then(|| instances::instances_per_device(provider, config)),
        largest_batch: std::iter::successors(Some(1), |rows| Some(rows * 2))
            .take_while(|rows| *rows <= super::config::MAX_BATCH_SIZE && has_room(rows))
            .last()
            .unwrap_or(1),
        cores: instances::cores(),
        is_gpu,
    })
}

fn settled(config: &ModelConfig, choice: Setup) -> ModelConfig {
    let mut config = config.clone();
    config.max_batch_size = Some(Tunable::Number(choice.max_batch_size));
    config.instances.count = Some(Tunable::Number(choice.instances));
    config.instances.intra_op_threads = Some(Tunable::Number(choice.intra_op_threads));
    config
}

fn warn_of_bound(goal: &Goal, choice: Setup, measurements: &[Measurement], path: &Path) {
    let chosen = measurements.iter().find(|it| it.setup == choice).map(|it| it.batch_latency_ms);
    if let Some((bound, took)) = goal.max_batch_latency.map(search::milliseconds).zip(chosen)
        && took > bound
    {
        warn!(
            path = %path.display(),
            "no batch takes as little as tuning.max_batch_latency_ms allows, {bound} ms: the least, {took:.1} ms, was chosen"
        );
    }
}
