//! A model that is being looked into, by one thread.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cache::{Cache, Purpose, SharedGraphs};
use super::graphs::{Graphs, Plan};
use super::network::Network;
use super::{ExplainMetrics, filters};
use crate::engine::{GraphOptimization, Runtime};
use crate::error::{Error, Result};
use crate::preprocess::{Layout, PictureLimits};
use crate::repository::{GraphModel, Model};
use crate::scheduler::{Answer, Submission};
use crate::telemetry::Trace;
use crate::tensor::Tensor;

/// What explaining a model takes.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) runtime: Runtime,
    pub(super) cache: Arc<Cache>,
    pub(super) metrics: ExplainMetrics,
    pub(super) limits: PictureLimits,
    pub(super) model: Arc<Model>,
    pub(super) graph: Arc<GraphModel>,
    /// After this the answer is of no use.
    pub(super) deadline: Option<Instant>,
    /// Closed when nobody waits for the answer any more.
    pub(super) asked: watch::Receiver<()>,
    /// Where what a thread waits for is done.
    pub(super) tasks: Handle,
}

impl Subject {
    /// The model's own graph. Reads its file.
    pub(super) fn network(&self) -> Result<Network> {
        let [a, b, c] = self.graph.preprocessor().row_shape();
        Network::new(self.graph.file().read()?, [a, b, c])
    }

    /// The graphs for `purpose`, made by `plan` where they are not kept.
    pub(super) fn graphs(
        &self,
        purpose: Purpose,
        make: impl FnOnce(&Network, &dyn Fn(Plan<'_>) -> Result<Graphs>) -> Result<Graphs>,
    ) -> Result<SharedGraphs> {
        let graphs = self.cache.get(&self.graph, purpose, || {
            self.metrics.graphs_made.inc();
            let mut network = self.network()?;
            network.measure_shapes(&self.runtime, self.graph.interface().input.data_type);
            make(&network, &|plan| Graphs::new(&self.runtime, plan))
        });
        self.metrics.cache_bytes.set(self.cache.bytes() as i64);
        graphs
    }

    /// Whether graphs may be rewritten to run faster.
    pub(super) fn optimizes(&self) -> bool {
        self.model.config().graph_optimization != GraphOptimization::None
    }

    /// The name of the graph's output that holds the class scores.
    pub(super) fn class_output(&self) -> &str {
        let interface = self.graph.interface();
        &interface.outputs[interface.class_output.index].name
    }

    /// # Errors
    /// `Unavailable` when nobody waits for the answer any more.
    pub(super) fn check_canceled(&self) -> Result<()> {
        if self.asked.has_changed().is_err() { Err(canceled()) } else { Ok(()) }
    }

    /// How many rows are run at a time in the model's queue: what is urgent waits for no more than such a run.
    pub(super) fn smallest_batch(&self) -> usize {
        self.graph.scheduler().options().run_rows(1)
    }

    /// Has the model run `rows`, `[N, …]`, behind all that its clients want. Returns its class scores.
    ///
    /// Where the rows had to wait, others want what they run on: then these get fourteen times as long before this returns.
    ///
    /// # Errors
    /// The run's own, and as [`Subject::check_canceled`].
    pub(super) fn class_scores(&self, rows: Tensor) -> Result<Tensor> {
        /// The least urgent there is: every request goes first.
        const PRIORITY: u32 = u32::MAX;
        /// An instance that is idle takes longer than this only when all are busy.
        const AT_ONCE: Duration = Duration::from_millis(2);
        const LEFT_TO_OTHERS: u32 = 14;
        let count = rows.shape()[0];
        let scheduler = self.graph.scheduler();
        let at_once = AT_ONCE + scheduler.options().policy.max_queue_delay;
        let pending = scheduler.submit(Submission {
            rows,
            priority: PRIORITY,
            deadline: self.deadline,
            trace: Trace::default(),
        })?;
        let run = async {
            let answer = pending.await?;
            if answer.queue > at_once {
                let used = answer.compute.mul_f64(count as f64 / answer.batch_size.max(count) as f64);
                tokio::time::sleep(used * LEFT_TO_OTHERS).await;
            }
            Ok(answer)
        };
        let mut asked = self.asked.clone();
        // What is dropped leaves the queue.
        let answer: Answer = self.tasks.block_on(async {
            tokio::select! {
                answer = run => answer,
                _ = asked.changed() => Err(canceled()),
            }
        })?;
        let output = answer.outputs.get(self.graph.interface().class_output.index);
        output.cloned().ok_or_else(|| Error::internal("the model's answer lacks the class scores"))
    }

    /// A row of the network's input, or what came back to it, as planes `[3, height, width]` of red, green and blue; of gray pictures one
    /// plane.
    pub(super) fn planes(&self, row: &[f32]) -> Vec<f32> {
        let preprocessor = self.graph.preprocessor();
        let (height, width) = preprocessor.input_size();
        let area = height * width;
        let planes = match preprocessor.layout() {
            Layout::Nchw => row.to_vec(),
            Layout::Nhwc => {
                let channels = row.len() / area;
                (0..channels).flat_map(|channel| row.iter().skip(channel).step_by(channels).copied()).collect()
            }
        };
        if planes.len() == area { planes } else { filters::rgb(&planes, preprocessor.color()) }
    }
}

fn canceled() -> Error {
    Error::unavailable("nobody waits for the answer any more")
}

/// The graphs, for as long as this caller uses them.
pub(super) fn lock(graphs: &SharedGraphs) -> MutexGuard<'_, Graphs> {
    graphs.lock().unwrap_or_else(PoisonError::into_inner)
}
