//! One version of one model: loaded, checked, warmed up, and ready to run.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::config::ModelConfig;
use super::layout::CONFIG_FILE;
use super::{facts, labels};
use crate::engine::{Graph, GraphOptions, Runtime, Session};
use crate::error::{Error, Result};
use crate::postprocess::Scores;
use crate::preprocess::Preprocessor;
use crate::scheduler::batcher::Policy;
use crate::scheduler::statistics::Statistics;
use crate::scheduler::{Backend, Scheduler, SchedulerOptions};
use crate::telemetry::Metrics;
use crate::tensor::{DataType, Tensor, TensorSpec, element_count};
use crate::zoo::describe::Description;

/// The largest batch on the CPU where neither the graph nor the configuration says one. Larger ones save a CPU nothing more,
/// and cost memory and the latency of whoever waits for the rest of the batch (docs/benchmarks.md).
const MAX_BATCH_SIZE_ON_CPU: usize = 4;
/// The same on a GPU, whose kernels want the rows.
const MAX_BATCH_SIZE_ON_GPU: usize = 32;
/// The most bytes of a batch's input. A recipe or a graph that asks for more is a mistake, which must not take the memory that
/// the other models need.
const MAX_BATCH_BYTES: usize = 1 << 30;
/// Instances on a GPU: one computes while the other copies.
const INSTANCES_PER_GPU: usize = 2;

/// One version of one model, ready to run. Whoever holds it keeps that version alive through a reload.
pub struct Model {
    name: String,
    version: u64,
    config: ModelConfig,
    input: TensorSpec,
    outputs: Vec<TensorSpec>,
    class_output: usize,
    class_count: Option<usize>,
    scores: Scores,
    labels: Vec<Arc<str>>,
    provider: &'static str,
    description: Description,
    preprocessor: Arc<Preprocessor>,
    scheduler: Scheduler,
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
        let fixed_batch = check_input(&input).map_err(in_file)?;
        let outputs = first.outputs().to_vec();
        let class_output = class_output(&outputs, config.output.as_deref()).map_err(in_config)?;
        let class_count = class_count(&outputs[class_output]).map_err(in_file)?;
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
        let facts = facts::read(path, &outputs[class_output].name, row_shape)?;
        let scores = config.scores.unwrap_or(facts.scores);
        let max_batch_size = match (fixed_batch, config.max_batch_size) {
            (Some(fixed), Some(configured)) if configured != fixed => {
                return Err(in_config(format!(
                    "max_batch_size: is {configured}, but the graph's batch dimension is fixed at {fixed}"
                )));
            }
            (Some(fixed), _) => fixed,
            (None, Some(configured)) => configured,
            (None, None) if graph.provider().is_gpu() => MAX_BATCH_SIZE_ON_GPU,
            (None, None) => MAX_BATCH_SIZE_ON_CPU,
        };

        check_batch_bytes(max_batch_size, row_shape, input.data_type).map_err(in_file)?;
        let mut row_time = Duration::ZERO;
        for session in &mut sessions {
            row_time = warm_up(session, row_shape, fixed_batch, max_batch_size).map_err(|error| {
                Error::internal(format!("{}: the warm-up run failed", path.display())).with_source(error.chain())
            })?;
        }
        let instance_count = sessions.len();
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
            scores = ?scores,
            input = ?input.shape,
            classes = class_count,
            labels = labels.len(),
            row_ms = row_time.as_secs_f64() * 1e3,
            load_ms = started.elapsed().as_millis() as u64,
            "model loaded"
        );
        Ok(Self {
            name: name.to_owned(),
            version,
            config: config.clone(),
            input,
            outputs,
            class_output,
            class_count,
            scores,
            labels,
            provider,
            description: facts.description,
            preprocessor: Arc::new(preprocessor),
            scheduler,
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

    /// The graph's input, batch dimension included (`-1` where it is dynamic).
    pub fn input(&self) -> &TensorSpec {
        &self.input
    }

    /// The graph's outputs, batch dimension included, in the graph's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Which of [`Model::outputs`] holds the class scores.
    pub fn class_output(&self) -> usize {
        self.class_output
    }

    /// The number of classes, where the graph says it.
    pub fn class_count(&self) -> Option<usize> {
        self.class_count
    }

    /// What the class output holds.
    pub fn scores(&self) -> Scores {
        self.scores
    }

    /// The class labels, in order; empty without a labels file.
    pub fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    /// The execution provider that really runs it: `"cpu"`, `"cuda"` or `"tensorrt"`.
    pub fn provider(&self) -> &'static str {
        self.provider
    }

    /// What its layers cost.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What makes input rows of pictures.
    pub fn preprocessor(&self) -> &Arc<Preprocessor> {
        &self.preprocessor
    }

    /// Height and width of the network's input.
    pub fn input_size(&self) -> (usize, usize) {
        self.preprocessor.input_size()
    }

    /// The most rows in a batch.
    pub fn max_batch_size(&self) -> usize {
        self.scheduler.options().policy.max_batch_size
    }

    /// Whether the graph fixes its batch dimension.
    pub fn has_fixed_batch(&self) -> bool {
        self.scheduler.options().fixed_batch.is_some()
    }

    /// The queue and the instances.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// A snapshot of its counters.
    pub fn statistics(&self) -> Statistics {
        self.scheduler.statistics()
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

/// Checks that the input can be a picture's, and returns its batch dimension where that is fixed.
fn check_input(input: &TensorSpec) -> Result<Option<usize>> {
    let TensorSpec { name, data_type, shape } = input;
    if !matches!(data_type, DataType::Fp32 | DataType::Fp16 | DataType::Uint8) {
        return Err(Error::invalid(format!(
            "the input {name} is of {data_type}, but a picture is given as FP32, FP16 or UINT8"
        )));
    }
    if shape.len() != 4 {
        return Err(Error::invalid(format!(
            "the input {name} has the shape {shape:?}, which is not a batch of pictures ([N, 3, H, W] or [N, H, W, 3])"
        )));
    }
    match shape[0] {
        -1 => Ok(None),
        fixed if fixed > 0 => Ok(Some(fixed as usize)),
        other => Err(Error::invalid(format!("the input {name} has a batch dimension of {other}"))),
    }
}

/// Checks that a batch's input can be allocated.
fn check_batch_bytes(rows: usize, row_shape: [usize; 3], data_type: DataType) -> Result<()> {
    let [a, b, c] = row_shape;
    let bytes = element_count(&[rows, a, b, c])?.checked_mul(data_type.size().unwrap_or(1));
    if bytes.is_none_or(|bytes| bytes > MAX_BATCH_BYTES) {
        return Err(Error::invalid(format!(
            "a batch of {rows} pictures of {row_shape:?} takes more than {MAX_BATCH_BYTES} bytes: lower max_batch_size or \
             preprocess.crop"
        )));
    }
    Ok(())
}

/// The index of the output that holds the class scores.
fn class_output(outputs: &[TensorSpec], configured: Option<&str>) -> std::result::Result<usize, String> {
    match configured {
        None if outputs.is_empty() => Err("output: the graph has no outputs".to_owned()),
        None => Ok(0),
        Some(name) => outputs.iter().position(|output| output.name == name).ok_or_else(|| {
            let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).collect();
            format!("output: the graph has no output called {name}; it has {}", names.join(", "))
        }),
    }
}

/// The number of classes: `[N, C]`, or `[N, C, 1, 1]` as some exports leave it.
fn class_count(output: &TensorSpec) -> Result<Option<usize>> {
    let TensorSpec { name, data_type, shape } = output;
    if !matches!(data_type, DataType::Fp32 | DataType::Fp16 | DataType::Fp64) {
        return Err(Error::invalid(format!(
            "the output {name} is of {data_type}, but class scores are floating-point"
        )));
    }
    match shape.as_slice() {
        [_, classes, rest @ ..] if rest.iter().all(|&dimension| dimension == 1 || dimension == -1) => {
            Ok(usize::try_from(*classes).ok())
        }
        // ONNX Runtime gives no shape for an output whose shape it cannot infer.
        [] => Ok(None),
        _ => Err(Error::invalid(format!("the output {name} has the shape {shape:?}, which is not [N, classes]"))),
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
        let data_type = session.input().data_type;
        let bytes = element_count(&shape)? * data_type.size().unwrap_or(1);
        let zeros = Tensor::new(data_type, shape, vec![0u8; bytes].into())?;
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
