//! One version of one model: loaded, checked, warmed up, and ready to run.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::info;

use super::config::{BatchingConfig, ModelConfig};
use super::ensemble::{Ensemble, Member};
use super::graph_model::GraphModel;
use super::interface::{ClassOutput, Interface};
use super::model_file::ModelFile;
use super::tuning::{Setup, Subject, Tuner, Tuning};
use super::wire::Wire;
use super::{facts, instances, interface, labels, translate, warm_up};
use crate::engine::{Graph, Provider, Runtime, Session};
use crate::error::{Error, Result};
use crate::postprocess::Class;
use crate::preprocess::Preprocessor;
use crate::response_cache::ResponseCache;
use crate::scheduler::device::Devices;
use crate::scheduler::statistics::Statistics;
use crate::scheduler::{Instance, Scheduler};
use crate::telemetry::{Metrics, ModelMetrics, Outcome, Trace};
use crate::tensor::{Tensor, TensorSpec};

/// What models are loaded into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) metrics: &'a Metrics,
    pub(super) devices: &'a Devices,
    pub(super) response_cache: Option<&'a ResponseCache>,
    pub(super) tuner: &'a Tuner,
}

/// One version of one model, ready to run. Whoever holds it keeps that version alive through a reload.
pub struct Model {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) config: ModelConfig,
    pub(super) labels: Vec<Arc<str>>,
    pub(super) interface: Arc<Interface>,
    pub(super) kind: Kind,
    /// Where clients see other shapes than the graph has.
    pub(super) wire: Option<Wire>,
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
        host: Host<'_>,
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
        // Before it is read: a file that changes meanwhile must not pass for the one that was loaded.
        let mut file = ModelFile::of(path)?;
        let (mut graph, first) = Graph::load(host.runtime, path, &instances::graph_options(config))?;
        let in_file = |error: Error| Error::invalid(format!("{}: {}", path.display(), error.message()));
        let in_config = |reason: String| Error::invalid(format!("{}: {reason}", config.place(folder)));

        let input = first.input().clone();
        let fixed_batch = instances::fixed_batch(interface::check_input(&input).map_err(in_file)?, config);
        let outputs = first.outputs().to_vec();
        let wire = wire(config, graph.provider(), &input, &outputs).map_err(in_config)?;
        let classes = interface::class_output(&outputs, config.output.as_deref()).map_err(in_config)?;
        let class_count = interface::class_count(&outputs[classes]).map_err(in_file)?;
        let preprocessor = Preprocessor::new(&config.preprocess, &input.shape[1..], input.data_type);
        let preprocessor = preprocessor.map_err(|error| match error.key {
            "input" => in_file(Error::invalid(error.message)),
            _ => in_config(error.to_string()),
        })?;
        let labels = match &config.labels {
            // Triton's configuration names its labels, or there are none.
            None if config.triton.is_some() => Vec::new(),
            named => labels::read(folder, named.as_deref(), class_count).map_err(|error| match named {
                Some(_) => in_config(error.message().to_owned()),
                None => error,
            })?,
        };
        let (row_shape, crops) = (preprocessor.row_shape(), preprocessor.crops());
        interface::check_averages(&outputs, crops).map_err(in_config)?;
        let facts = facts::read(path, &outputs, row_shape)?;
        file.note_contents(facts.weights);
        let branches = interface::branches(&outputs, classes, class_count, &facts.scores);
        let class_output = ClassOutput { index: classes, scores: config.scores.unwrap_or(facts.scores[classes]) };
        let subject = Subject {
            runtime: host.runtime,
            graph: &mut graph,
            path,
            fixed_batch,
            row_shape,
            data_type: input.data_type,
        };
        let (config, first) = tuned(host.tuner, subject, config, first, name, version)?;
        let config = &*config;
        let mut sessions = instances::sessions(&graph, first, config)?;
        let provider = graph.provider();
        let max_batch_size =
            instances::max_batch_size(fixed_batch, config.max_batch_size, provider).map_err(in_config)?;
        interface::check_batch_bytes(max_batch_size.max(crops), row_shape, input.data_type).map_err(in_file)?;
        let buckets = instances::buckets(fixed_batch, config.batching.buckets.as_deref(), max_batch_size, provider)
            .map_err(in_config)?;
        let measured = warm_up::warm_up(&mut sessions, row_shape, max_batch_size, &buckets).map_err(|error| {
            Error::invalid(format!("{}: the warm-up run failed", path.display())).with_source(error.chain())
        })?;
        let instance_count = sessions.len();
        let row_bytes = interface::row_bytes(row_shape, input.data_type);
        check_room(&config.batching, instance_count * max_batch_size, crops, row_bytes).map_err(in_config)?;
        let options = instances::scheduler_options(config, max_batch_size, buckets, provider);
        let model_metrics = host.metrics.model(name, version);
        let devices = instances::devices_of(provider, config, host.devices);
        let instances = sessions.into_iter().zip(devices).map(|(backend, device)| Instance { backend, device });
        let scheduler = Scheduler::start(name, instances.collect(), options, model_metrics.clone(), &measured)?;
        let provider = provider.as_str();
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
            batch_ms = ?measured.iter().map(|(rows, took)| (*rows, took.as_micros() as f64 / 1e3)).collect::<Vec<_>>(),
            load_ms = started.elapsed().as_millis() as u64,
            "model loaded"
        );
        let interface = Arc::new(Interface { input, outputs, class_output, branches, class_count });
        let cache = host.response_cache.filter(|_| config.response_cache.enabled);
        let graph_model = GraphModel {
            interface: Arc::clone(&interface),
            provider,
            loaded: SystemTime::now(),
            file,
            description: facts.description,
            preprocessor: Arc::new(preprocessor),
            scheduler,
            cache: cache.map(|cache| cache.open(model_metrics.cache)),
        };
        Ok(Self {
            name: name.to_owned(),
            version,
            config: config.clone(),
            labels,
            interface,
            kind: Kind::Graph(Arc::new(graph_model)),
            wire,
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

    /// When it was loaded, in milliseconds since 1970, which tells it from the same version loaded again. An ensemble was when it or one of
    /// its members was last.
    pub fn loaded_ms(&self) -> u64 {
        let loaded = match &self.kind {
            Kind::Graph(graph) => graph.loaded,
            Kind::Ensemble(ensemble) => ensemble.loaded(),
        };
        loaded.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What goes in and comes out.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The input as clients see it: batch dimension included (`-1` where it is dynamic), unless Triton's configuration hides that.
    pub fn input(&self) -> &TensorSpec {
        self.wire.as_ref().map_or(&self.interface.input, |wire| &wire.input)
    }

    /// The outputs as clients see them, as the input, in the graph's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        self.wire.as_ref().map_or(&self.interface.outputs, |wire| &wire.outputs)
    }

    /// The graph's input tensor of what a client sent in the shape of [`Model::input`], any number of rows; `None` where it has
    /// another shape.
    ///
    /// # Errors
    /// None that a tensor of that shape could meet.
    pub fn to_graph(&self, input: &Tensor) -> Result<Option<Tensor>> {
        match &self.wire {
            Some(wire) if wire.fits(input.shape()) => wire.to_graph(input.clone()).map(Some),
            Some(_) => Ok(None),
            None => Ok(self.interface.takes(input.shape()).then(|| input.clone())),
        }
    }

    /// Whether `shape` is that of rows as the graph takes them, where clients see another.
    pub fn takes_rows(&self, shape: &[usize]) -> bool {
        self.wire.as_ref().is_some_and(Wire::reshapes_input) && self.interface.takes(shape)
    }

    /// Output number `index` of the graph, or the classification of it, as clients see it.
    ///
    /// # Errors
    /// None that a tensor of that output could meet.
    pub fn to_client(&self, index: usize, is_classification: bool, output: Tensor) -> Result<Tensor> {
        match &self.wire {
            Some(wire) => wire.to_client(index, is_classification, output),
            None => Ok(output),
        }
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

    /// The class with this index, which has this probability.
    pub fn class(&self, index: usize, score: f32) -> Class {
        Class { index, label: self.labels.get(index).cloned(), score }
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
    pub fn record_request(&self, protocol: &str, outcome: Outcome, took: Duration, trace: &Trace) {
        match &self.kind {
            Kind::Graph(graph) => graph.scheduler.record_request(protocol, outcome, took, trace),
            Kind::Ensemble(ensemble) => ensemble.requests().record(protocol, outcome, took, trace),
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

/// Whether a picture, which is `crops` rows of `row_bytes` bytes each, ever finds room in the queue and the `places` beyond it.
fn check_room(batching: &BatchingConfig, places: usize, crops: usize, row_bytes: usize) -> Result<(), String> {
    if batching.queue_size + places < crops {
        return Err(format!("batching.queue_size: has no room for the {crops} crops of a picture"));
    }
    if batching.queue_bytes < crops * row_bytes {
        return Err(format!("batching.queue_bytes: a picture takes {} bytes", crops * row_bytes));
    }
    Ok(())
}

/// Checks the graph against Triton's configuration, where that was read, and returns how clients see its tensors.
fn wire(
    config: &ModelConfig,
    provider: &Provider,
    input: &TensorSpec,
    outputs: &[TensorSpec],
) -> Result<Option<Wire>, String> {
    let Some(read) = config.triton.as_deref() else { return Ok(None) };
    translate::check(read, input, outputs)?;
    if translate::needs_gpu(read) && !provider.is_gpu() {
        return Err("instance_group: KIND_GPU, but no GPU can run the model; the log says why".to_owned());
    }
    Wire::new(read, input, outputs).map(Some)
}

/// The configuration with a number in place of each `"auto"`, and the first session where it is still of use.
fn tuned<'c>(
    tuner: &Tuner,
    mut subject: Subject<'_>,
    config: &'c ModelConfig,
    first: Session,
    name: &str,
    version: u64,
) -> Result<(Cow<'c, ModelConfig>, Option<Session>)> {
    if !config.has_auto() {
        return Ok((Cow::Borrowed(config), Some(first)));
    }
    // It may have another number of threads than will be chosen, and memory.
    drop(first);
    let (config, tuning) = tuner.tune(&mut subject, config, false)?;
    subject.graph.set_intra_op_threads(instances::intra_op_threads(&config));
    if let Some(Tuning { choice, is_cached, measurements }) = tuning {
        let Setup { max_batch_size, intra_op_threads, instances } = choice;
        let measured: Vec<_> = measurements.iter().map(ToString::to_string).collect();
        info!(
            model = name,
            version,
            instances,
            intra_op_threads,
            max_batch_size,
            is_cached,
            measured = measured.join("; "),
            "tuned"
        );
    }
    Ok((Cow::Owned(config), None))
}
