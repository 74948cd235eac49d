//! The graphs of explanations, made when they are first needed and kept as long as there is room.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::adjoint::Rule;
use super::graphs::Graphs;
use crate::error::Result;
use crate::repository::GraphModel;

/// What graphs are for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// A layer's values.
    Features(String),
    /// A layer back to the picture; without a name, the class scores.
    Projection(Rule, Option<String>),
    /// The class scores back to a layer; without a name, the last feature maps.
    Activation(Option<String>),
}

/// Graphs in use by one caller at a time.
pub(super) type SharedGraphs = Arc<Mutex<Graphs>>;

/// The graphs that were used last, of a bounded size in all.
#[derive(Debug)]
pub(super) struct Cache {
    capacity_bytes: usize,
    /// The last used at the end.
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Gone when the model's version is.
    model: Weak<GraphModel>,
    purpose: Purpose,
    bytes: usize,
    graphs: SharedGraphs,
}

impl Cache {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self { capacity_bytes, entries: Mutex::default() }
    }

    /// The graphs of `model` for `purpose`: kept ones, or what `make` makes. Blocks.
    pub(super) fn get(
        &self,
        model: &Arc<GraphModel>,
        purpose: Purpose,
        make: impl FnOnce() -> Result<Graphs>,
    ) -> Result<SharedGraphs> {
        let is_wanted = |entry: &Entry| entry.purpose == purpose && entry.model.as_ptr() == Arc::as_ptr(model);
        {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|entry| entry.model.strong_count() > 0);
            if let Some(index) = entries.iter().position(is_wanted) {
                let entry = entries.remove(index);
                let graphs = Arc::clone(&entry.graphs);
                entries.push(entry);
                return Ok(graphs);
            }
        }
        // Made without the lock, so that graphs that are there can be used meanwhile.
        let graphs = make()?;
        let bytes = graphs.bytes();
        let graphs = Arc::new(Mutex::new(graphs));
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= self.capacity_bytes {
            entries.retain(|entry| !is_wanted(entry));
            entries.push(Entry { model: Arc::downgrade(model), purpose, bytes, graphs: Arc::clone(&graphs) });
            while entries.iter().map(|entry| entry.bytes).sum::<usize>() > self.capacity_bytes {
                entries.remove(0);
            }
        }
        Ok(graphs)
    }

    /// The bytes of what is kept, by [`Graphs::bytes`].
    pub(super) fn bytes(&self) -> usize {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.model.strong_count() > 0);
        entries.iter().map(|entry| entry.bytes).sum()
    }
}
