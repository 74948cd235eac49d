//! repository

use std::sync::Arc;

use crate::scheduler::statistics::Statistics;
use crate::tensor::TensorSpec;

/// Where a model version is in its life, as the repository index spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name says what it is")]
pub enum ModelState {
    Unknown,
    Ready,
    Unavailable,
    Loading,
    Unloading,
}

impl ModelState {
    /// The index's spelling, `"READY"` for instance.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
        }
    }
}

/// One row of the repository index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// The version; `None` where the model failed before its versions were known.
    pub version: Option<u64>,
    /// Its state.
    pub state: ModelState,
    /// Why it is not ready; empty when it is.
    pub reason: String,
}

/// All models.
#[derive(Debug)]
pub struct Repository {}

/// One version of one model, loaded and ready to run.
#[derive(Debug)]
pub struct Model {}

impl Model {
    /// The model's name: its folder's.
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// The version: a number, its folder's name.
    pub fn version(&self) -> u64 {
        unimplemented!()
    }

    /// The versions of this model that are ready, ascending.
    pub fn versions(&self) -> Vec<u64> {
        unimplemented!()
    }

    /// The graph's inputs, batch dimension included (`-1` where it is dynamic).
    pub fn inputs(&self) -> &[TensorSpec] {
        unimplemented!()
    }

    /// The graph's outputs, batch dimension included.
    pub fn outputs(&self) -> &[TensorSpec] {
        unimplemented!()
    }

    /// The largest batch; 0 for a graph whose batch dimension is fixed (Triton's convention: shapes then include it).
    pub fn max_batch_size(&self) -> usize {
        unimplemented!()
    }

    /// How many instances run it.
    pub fn instance_count(&self) -> usize {
        unimplemented!()
    }

    /// How long a batch may be held back to grow, in microseconds.
    pub fn max_queue_delay_us(&self) -> u64 {
        unimplemented!()
    }

    /// The number of classes, where the graph says it.
    pub fn class_count(&self) -> Option<usize> {
        unimplemented!()
    }

    /// Height and width of the network's input, where they are known.
    pub fn input_size(&self) -> Option<(usize, usize)> {
        unimplemented!()
    }

    /// The class labels, in order; empty without a labels file.
    pub fn labels(&self) -> &[Arc<str>] {
        unimplemented!()
    }

    /// The execution provider that really runs it: `"cpu"`, `"cuda"` or `"tensorrt"`.
    pub fn provider(&self) -> &'static str {
        unimplemented!()
    }

    /// A snapshot of its counters.
    pub fn statistics(&self) -> Statistics {
        unimplemented!()
    }
}
