//! How a loaded model is served, in the terms of Triton's model configuration, which clients of either protocol read.

use super::Model;
use super::config::{BatchingConfig, VersionPolicy};
use super::layout::{LABELS_FILE, MODEL_FILE};
use crate::tensor::{DataType, TensorSpec};

/// The platform of a graph, as metadata and configuration name it.
const PLATFORM: &str = "onnxruntime_onnx";
/// The platform of an ensemble.
const ENSEMBLE_PLATFORM: &str = "ensemble";
/// The backend of a graph, as the configuration names it.
const BACKEND: &str = "onnxruntime";

/// A model's configuration as clients see it. It does not hold what was configured but what is served.
#[derive(Debug)]
pub struct Description<'a> {
    /// The model's name.
    pub name: &'a str,
    /// What kind of model it is.
    pub platform: &'static str,
    /// What runs it; empty for an ensemble.
    pub backend: &'static str,
    /// The file in a version's folder; empty for an ensemble.
    pub filename: &'static str,
    /// Which versions are loaded.
    pub versions: &'a VersionPolicy,
    /// The most rows in a batch; 0 where the graph fixes its batch dimension, and for an ensemble: it is part of the dims then.
    pub max_batch_size: usize,
    /// The input.
    pub input: TensorDescription<'a>,
    /// The outputs, in the graph's order.
    pub outputs: Vec<TensorDescription<'a>>,
    /// The file with the names of the classes; empty where there is none.
    pub label_filename: &'a str,
    /// Whether a GPU runs the model.
    pub is_on_gpu: bool,
    /// How many instances there are in all; an ensemble has none.
    pub instance_count: usize,
    /// The queue and the batches; `None` where the graph fixes its batch dimension, as nothing can be batched then, and for an
    /// ensemble.
    pub batching: Option<&'a BatchingConfig>,
}

/// An input or output of a [`Description`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorDescription<'a> {
    /// The name in the graph.
    pub name: &'a str,
    /// The element type.
    pub data_type: DataType,
    /// The dimensions without the batch, unless that is fixed; `-1` where the graph leaves one open.
    pub dims: &'a [i64],
}

impl Model {
    /// The platform that metadata names.
    pub fn platform(&self) -> &'static str {
        if self.is_ensemble() { ENSEMBLE_PLATFORM } else { PLATFORM }
    }

    /// The model's configuration as clients see it.
    pub fn describe(&self) -> Description<'_> {
        let graph = self.graph();
        let batched = graph.filter(|graph| !graph.has_fixed_batch());
        let describe = |spec| TensorDescription::new(spec, batched.is_some());
        Description {
            name: self.name(),
            platform: self.platform(),
            backend: if graph.is_some() { BACKEND } else { "" },
            filename: if graph.is_some() { MODEL_FILE } else { "" },
            versions: &self.config().versions,
            max_batch_size: batched.map_or(0, |graph| graph.max_batch_size()),
            input: describe(self.input()),
            outputs: self.outputs().iter().map(describe).collect(),
            label_filename: label_filename(self),
            is_on_gpu: graph.is_some_and(|graph| graph.provider() != "cpu"),
            instance_count: graph.map_or(0, |graph| graph.scheduler().instance_count()),
            batching: batched.map(|_| &self.config().batching),
        }
    }
}

impl<'a> TensorDescription<'a> {
    fn new(spec: &'a TensorSpec, is_batched: bool) -> Self {
        let dims = if is_batched { spec.shape.get(1..).unwrap_or_default() } else { &spec.shape };
        Self { name: &spec.name, data_type: spec.data_type, dims }
    }
}

fn label_filename(model: &Model) -> &str {
    match &model.config().labels {
        _ if model.labels().is_empty() => "",
        Some(path) => path.to_str().unwrap_or_default(),
        None => LABELS_FILE,
    }
}
