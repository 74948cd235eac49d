//! One version of one model: loaded, checked, warmed up, and ready to run.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::config::ModelConfig;
use super::ensemble::{Ensemble, Member};
use super::graph_model::GraphModel;
use super::interface::{ClassOutput, Interface};
use super::layout::CONFIG_FILE;
use super::{facts, interface, labels};
use crate::engine::{Graph, GraphOptions, Provider, Runtime, Session};
use crate::error::{Error, Result};
use crate::preprocess::Preprocessor;
use crate::scheduler::batcher::Policy;
use crate::scheduler::statistics::Statistics;
use crate::scheduler::{Backend, Scheduler, SchedulerOptions};
use crate::telemetry::{Metrics, ModelMetrics, Outcome};
use crate::tensor::{Tensor, TensorSpec};

/// The largest batch on the CPU where neither the graph nor the configuration says one. Larger ones save a CPU nothing more,
/// and cost memory and the latency of whoever waits for the rest of the batch (docs/benchmarks.md).
const MAX_BATCH_SIZE_ON_CPU: usize = 4;
/// The same on a GPU, whose kernels want the rows.
const MAX_BATCH_SIZE_ON_GPU: usize = 32;
/// Instances on a GPU: one computes while the other copies.
const INSTANCES_PER_GPU: usize = 2;

/// One version of one model, ready to run. Whoever holds it keeps that version alive through a reload.
pub struct Model {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) config: ModelConfig,
    pub(super) labels: Vec<Arc<str>>,
    pub(super) interface: Arc<Interface>,
    pub(super) kind: Kind,
}

/// What answers a model's requests.
#[derive(Debug)]
pub enum Kind {
    /// A graph of its own.
    Graph(Arc<GraphModel>),
    /// Other models of the repository.
    Ensemble(Ensemble),
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({} version {})", self.name, self.version)
    }
}

impl Model {
    /// Reads, checks, builds and warms up the version whose graph is at `path`; its labels are in `folder`.
    ///
    /// # Errors
    /// A message that names the file, and the key where one is to blame; the source is the cause.
    pub(super) fn load(
        runtime: &Runtime,
        metrics: &Metrics,
        folder: &Path,
        path: &Path,
        name: &str,
        version: u64,
        config: &ModelConfig,
    ) -> Result<Self> {
        let started = Instant::now();
        if !path.is_file() {
            return Err(Error::not_found(format!("{}: there is no such file", path.display())));
        }
        let options = GraphOptions {
            providers: config.providers.clone(),
            intra_op_threads: config.instances.intra_op_threads.unwrap_or(1),
        };
        let (graph, first) = Graph::load(runtime, path, &options)?;
        let mut sessions = sessions(&graph, first, config)?;
        let first = &sessions[0];
        let in_file = |error: Error| Error::invalid(format!("{}: {}", path.display(), error.message()));
        let in_config = |reason: String| Error::invalid(format!("{}: {reason}", folder.join(CONFIG_FILE).display()));

        let input = first.input().clone();
        let fixed_batch = interface::check_input(&input).map_err(in_file)?;
        let outputs = first.outputs().to_vec();
        let classes = interface::class_output(&outputs, config.output.as_deref()).map_err(in_config)?;
        let class_count = interface::class_count(&outputs[classes]).map_err(in_file)?;
        let preprocessor =
            Preprocessor::new(&config.preprocess, &input.shape[1..], input.data_type).map_err(|error| {
                match error.key {
                    "input" => in_file(Error::invalid(error.message)),
                    _ => in_config(error.to_string()),
                }
            })?;
        let labels =
            labels::read(folder, config.labels.as_deref(), class_count).map_err(|error| match config.labels {
                Some(_) => in_config(error.message().to_owned()),
                None => error,
            })?;
        let row_shape = preprocessor.row_shape();
        let crops = preprocessor.crops();
        interface::check_averages(&outputs, crops).map_err(in_config)?;
        let facts = facts::read(path, &outputs, row_shape)?;
        let branches = interface::branches(&outputs, classes, class_count, &facts.scores);
        let class_output = ClassOutput { index: classes, scores: config.scores.unwrap_or(facts.scores[classes]) };
        let max_batch_size = max_batch_size(fixed_batch, config.max_batch_size, graph.provider()).map_err(in_config)?;
        interface::check_batch_bytes(max_batch_size.max(crops), row_shape, input.data_type).map_err(in_file)?;
        let mut row_time = Duration::ZERO;
        for session in &mut sessions {
            row_time = warm_up(session, row_shape, fixed_batch, max_batch_size).map_err(|error| {
                Error::internal(format!("{}: the warm-up run failed", path.display())).with_source(error.chain())
            })?;
        }
        let instance_count = sessions.len();
        if config.batching.queue_size + instance_count * max_batch_size < crops {
            return Err(in_config(format!("batching.queue_size: has no room for the {crops} crops of a picture")));
        }
        let model_metrics = metrics.model(name, version);
        let scheduler_options = SchedulerOptions {
            policy: Policy {
                max_batch_size,
                max_queue_delay: Duration::from_micros(config.batching.max_queue_delay_us),
            },
            queue_size: config.batching.queue_size,
            fixed_batch,
        };
        let backends = sessions.into_iter().map(|session| Box::new(session) as Box<dyn Backend>).collect();
        let scheduler = Scheduler::start(name, backends, scheduler_options, model_metrics.clone(), row_time)?;
        let provider = graph.provider().as_str();
        model_metrics.record_load(started.elapsed(), provider, instance_count);
        info!(
            model = name,
            version,
            provider,
            instances = instance_count,
            max_batch_size,
            scores = ?class_output.scores,
            input = ?input.shape,
            classes = class_count,
            labels = labels.len(),
            row_ms = row_time.as_secs_f64() * 1e3,
            load_ms = started.elapsed().as_millis() as u64,
            "model loaded"
        );
        let interface = Arc::new(Interface { input, outputs, class_output, branches, class_count });
        let graph_model = GraphModel {
            interface: Arc::clone(&interface),
            provider,
            description: facts.description,
            preprocessor: Arc::new(preprocessor),
            scheduler,
        };
        Ok(Self {
            name: name.to_owned(),
            version,
            config: config.clone(),
            labels,
            interface,
            kind: Kind::Graph(Arc::new(graph_model)),
        })
    }

    /// The model's name: its folder's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version: a number, its folder's name.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What goes in and comes out.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The input, batch dimension included (`-1` where it is dynamic).
    pub fn input(&self) -> &TensorSpec {
        &self.interface.input
    }

    /// The outputs, batch dimension included, in the graph's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.interface.outputs
    }

    /// The output that holds the class scores.
    pub fn class_output(&self) -> ClassOutput {
        self.interface.class_output
    }

    /// The side branches: the other outputs with as many classes as [`Model::class_output`], in the graph's order.
    pub fn branches(&self) -> &[ClassOutput] {
        &self.interface.branches
    }

    /// The number of classes, where the graph says it.
    pub fn class_count(&self) -> Option<usize> {
        self.interface.class_count
    }

    /// The class labels, in order; empty without a labels file.
    pub fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    /// What answers its requests.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The graph, where it has one of its own.
    pub fn graph(&self) -> Option<&Arc<GraphModel>> {
        match &self.kind {
            Kind::Graph(graph) => Some(graph),
            Kind::Ensemble(_) => None,
        }
    }

    /// Whether other models answer for it.
    pub fn is_ensemble(&self) -> bool {
        matches!(self.kind, Kind::Ensemble(_))
    }

    /// What runs a request: an ensemble's members, else the model alone.
    pub fn members(&self) -> Vec<Member> {
        match &self.kind {
            Kind::Graph(graph) => vec![Member { name: self.name.clone(), graph: Arc::clone(graph), weight: 1.0 }],
            Kind::Ensemble(ensemble) => ensemble.members().to_vec(),
        }
    }

    /// Counts a request that ended after `took`, in the statistics and the metrics alike.
    pub fn record_request(&self, protocol: &str, outcome: Outcome, took: Duration) {
        match &self.kind {
            Kind::Graph(graph) => graph.scheduler.record_request(protocol, outcome, took),
            Kind::Ensemble(ensemble) => ensemble.requests().record(protocol, outcome, took),
        }
    }

    /// A snapshot of its counters. An ensemble counts requests alone: its members count the runs.
    pub fn statistics(&self) -> Statistics {
        match &self.kind {
            Kind::Graph(graph) => graph.scheduler.statistics(),
            Kind::Ensemble(ensemble) => ensemble.requests().statistics(),
        }
    }

    /// Its metrics.
    pub fn metrics(&self) -> &ModelMetrics {
        match &self.kind {
            Kind::Graph(graph) => graph.scheduler.metrics(),
            Kind::Ensemble(ensemble) => ensemble.requests().metrics(),
        }
    }
}

/// One session for each instance, spread over the provider's devices. `first` is there already.
fn sessions(graph: &Graph, first: Session, config: &ModelConfig) -> Result<Vec<Session>> {
    let per_device = config.instances.count.unwrap_or_else(|| {
        if graph.provider().is_gpu() {
            INSTANCES_PER_GPU
        } else {
            std::thread::available_parallelism().map_or(1, usize::from)
        }
    });
    let devices =
        graph.provider().device_ids().iter().flat_map(|&device_id| std::iter::repeat_n(device_id, per_device));
    std::iter::once(Ok(first)).chain(devices.skip(1).map(|device_id| graph.session(device_id))).collect()
}

/// The most rows in a batch: what the graph fixes, else what is configured, else what suits the provider.
fn max_batch_size(
    fixed: Option<usize>,
    configured: Option<usize>,
    provider: &Provider,
) -> std::result::Result<usize, String> {
    match (fixed, configured) {
        (Some(fixed), Some(configured)) if configured != fixed => {
            Err(format!("max_batch_size: is {configured}, but the graph's batch dimension is fixed at {fixed}"))
        }
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) if provider.is_gpu() => Ok(MAX_BATCH_SIZE_ON_GPU),
        (None, None) => Ok(MAX_BATCH_SIZE_ON_CPU),
    }
}

/// Runs zeros through the session, first one row and then the largest batch, so that the first request finds memory and
/// kernels in place. Returns the time of a row, alone.
fn warm_up(
    session: &mut Session,
    row_shape: [usize; 3],
    fixed_batch: Option<usize>,
    largest: usize,
) -> Result<Duration> {
    let mut row_time = Duration::ZERO;
    let mut sizes = vec![fixed_batch.unwrap_or(1); 2];
    if largest > 1 && fixed_batch.is_none() {
        sizes.push(largest);
    }
    for (index, rows) in sizes.into_iter().enumerate() {
        let mut shape = vec![rows];
        shape.extend(row_shape);
        let zeros = Tensor::zeros(session.input().data_type, shape)?;
        let (outputs, times) = session.run(&[zeros], rows)?;
        if let Some(output) = outputs.iter().find(|output| output.shape().first() != Some(&rows)) {
            return Err(Error::internal(format!(
                "a batch of {rows} gave an output of shape {:?}: the graph does not keep its batch dimension",
                output.shape()
            )));
        }
        if index == 1 {
            row_time = times.infer / u32::try_from(rows).unwrap_or(u32::MAX);
        }
    }
    Ok(row_time)
}
