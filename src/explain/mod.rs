//! Why a model answers what it does, and what its layers see: out of the model's own ONNX graph.
//!
//! Explanations run on graphs of their own, on the CPU, made when they are first needed and kept in a bounded cache, and at most a
//! few at a time, on threads that give way to all others, so that they never slow classification by more than their share. Occlusion, and
//! the crops of a picture that has several, run the model as it is, through its queue and behind every request. This module must not
//! know of HTTP or gRPC, nor the facade that classifies.

mod activation;
mod adjoint;
mod admission;
mod cache;
mod class;
mod config;
mod exciting;
mod features;
mod filters;
mod graphs;
mod metrics;
mod network;
mod occlusion;
mod picture;
mod prepared;
mod projection;
mod request;
mod subject;
mod thread;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

pub use self::adjoint::Rule;
pub use self::admission::{Admission, Work};
use self::cache::Cache;
pub use self::config::ExplainConfig;
pub use self::filters::Filters;
pub use self::metrics::ExplainMetrics;
pub use self::request::{
    ChannelStatistics, Exciting, ExcitingPicture, ExcitingRequest, ExplainRequest, Explanation, Features, Heatmap,
    Method, Unit,
};
use crate::engine::Runtime;
use crate::error::Result;
use crate::preprocess::PictureLimits;
use crate::repository::Model;

/// What explains models. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Explainer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runtime: Runtime,
    limits: PictureLimits,
    /// How many may be worked on or wait.
    max_admitted: usize,
    admitted: AtomicUsize,
    /// The longest that one may wait and be worked on.
    timeout: Duration,
    /// When what is under way is given up, once the server ends.
    end: watch::Sender<Option<Instant>>,
    /// Of those that are worked on.
    places: Arc<Semaphore>,
    cache: Arc<Cache>,
    metrics: ExplainMetrics,
}

impl Explainer {
    /// An explainer of pictures within `limits`.
    pub fn new(runtime: Runtime, config: &ExplainConfig, limits: PictureLimits, metrics: ExplainMetrics) -> Self {
        let places = config.max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let inner = Inner {
            runtime,
            limits,
            max_admitted: places.saturating_add(config.max_waiting),
            admitted: AtomicUsize::new(0),
            timeout: Duration::from_millis(config.timeout_ms),
            end: watch::Sender::new(None),
            places: Arc::new(Semaphore::new(places)),
            cache: Arc::new(Cache::new(config.cache_bytes)),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes one of the places of those that are worked on or wait. Nothing expensive (parsing, decoding) should happen before this.
    /// After `deadline` the answer is of no use.
    ///
    /// # Errors
    /// `Overloaded` at once when every place is taken; `InvalidArgument` for an ensemble, which has no graph of its own.
    pub fn admit(&self, model: Arc<Model>, work: Work, deadline: Option<Instant>) -> Result<Admission> {
        Admission::new(Arc::clone(&self.inner), model, work, deadline)
    }

    /// Refuses what waits and what comes, and at `end` what is under way. The work is the least urgent there is, and may take minutes, for
    /// which a server that ends does not wait.
    pub fn close(&self, end: Instant) {
        self.inner.places.close();
        self.inner.end.send_replace(Some(end));
    }
}
