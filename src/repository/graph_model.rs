//! What runs a graph: the part of a [`Model`](super::Model) that an ensemble does not have of its own.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::interface::{self, Interface};
use super::model_file::ModelFile;
use crate::preprocess::Preprocessor;
use crate::response_cache::ModelCache;
use crate::scheduler::Scheduler;
use crate::zoo::describe::Description;

/// A loaded graph with its recipe, queue and instances. Whoever holds it keeps them alive through a reload.
pub struct GraphModel {
    pub(super) interface: Arc<Interface>,
    pub(super) provider: &'static str,
    pub(super) loaded: SystemTime,
    pub(super) file: ModelFile,
    pub(super) description: Description,
    pub(super) preprocessor: Arc<Preprocessor>,
    pub(super) scheduler: Scheduler,
    pub(super) cache: Option<ModelCache>,
}

impl fmt::Debug for GraphModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphModel").field("interface", &self.interface).finish_non_exhaustive()
    }
}

impl GraphModel {
    /// What goes in and comes out.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The execution provider that really runs it: `"cpu"`, `"cuda"` or `"tensorrt"`.
    pub fn provider(&self) -> &'static str {
        self.provider
    }

    /// The file that it was loaded from.
    pub fn file(&self) -> &ModelFile {
        &self.file
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
        self.interface.input.shape[0] > 0
    }

    /// The bytes of a row of the input.
    pub fn row_bytes(&self) -> usize {
        interface::row_bytes(self.preprocessor.row_shape(), self.interface.input.data_type)
    }

    /// Its kept answers, where any are kept.
    pub fn cache(&self) -> Option<&ModelCache> {
        self.cache.as_ref()
    }

    /// The queue and the instances.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }
}
