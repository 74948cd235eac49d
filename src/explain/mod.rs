//! Why a model answers what it does, and what its layers see: out of the model's own ONNX graph.
//!
//! Explanations run on graphs of their own, on the CPU, made when they are first needed and kept in a bounded cache, and at most a
//! few at a time, so that they never slow classification by more than their share. Occlusion alone runs the model as it is, through its
//! queue and behind every request. This module must not know of HTTP or gRPC, nor the facade that classifies.

mod activation;
mod adjoint;
mod cache;
mod config;
mod exciting;
mod features;
mod filters;
mod graphs;
mod metrics;
mod network;
mod occlusion;
mod picture;
mod projection;
mod request;
mod subject;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::adjoint::Rule;
use self::cache::Cache;
pub use self::config::ExplainConfig;
pub use self::filters::Filters;
pub use self::metrics::ExplainMetrics;
pub use self::request::{
    ChannelStatistics, Exciting, ExcitingPicture, ExcitingRequest, ExplainRequest, Explanation, Features, Heatmap,
    Method, ScoredClass, Unit,
};
use self::subject::Subject;
use crate::engine::Runtime;
use crate::error::{Error, ErrorKind, Result};
use crate::preprocess::PictureLimits;
use crate::repository::{GraphModel, Model};
use crate::telemetry::Outcome;

/// When a client that was refused may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What explains models. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Explainer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runtime: Runtime,
    limits: PictureLimits,
    max_waiting: usize,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    cache: Arc<Cache>,
    metrics: ExplainMetrics,
}

impl Explainer {
    /// An explainer of pictures within `limits`.
    pub fn new(runtime: Runtime, config: &ExplainConfig, limits: PictureLimits, metrics: ExplainMetrics) -> Self {
        let inner = Inner {
            runtime,
            limits,
            max_waiting: config.max_waiting,
            places: Arc::new(Semaphore::new(config.max_concurrent.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            cache: Arc::new(Cache::new(config.cache_bytes)),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Explains the model's answer to a picture, or the units of one of its layers.
    ///
    /// # Errors
    /// `InvalidArgument` for what the model does not have or a method does not take, `NotFound` for an unknown layer,
    /// `Unimplemented` naming the node where the graph has an operator that cannot be run backwards, `Overloaded` when too many
    /// explanations wait; and a picture's own.
    pub async fn explain(&self, model: Arc<Model>, request: ExplainRequest) -> Result<Explanation> {
        let method = request.method.map_or("auto", Method::as_str);
        self.run(model, method, move |subject| match request.method {
            None | Some(Method::Cam | Method::Gradcam) => activation::activation(subject, &request),
            Some(Method::Occlusion) => occlusion::occlusion(subject, &request),
            Some(Method::Projection(rule)) => projection::projection(subject, &request, rule),
        })
        .await
    }

    /// The filters of the model's first convolution.
    ///
    /// # Errors
    /// `InvalidArgument` when there are none that see a picture's three channels, `Overloaded`.
    pub async fn filters(&self, model: Arc<Model>) -> Result<Filters> {
        self.run(model, "filters", |subject| {
            filters::filters(&subject.network()?, subject.graph.preprocessor().color())
        })
        .await
    }

    /// What the layer called `layer` gives for a picture.
    ///
    /// # Errors
    /// `NotFound` for an unknown layer, `InvalidArgument` for one without channels, `Overloaded`, and a picture's own.
    pub async fn features(&self, model: Arc<Model>, picture: Bytes, layer: String) -> Result<Features> {
        self.run(model, "features", move |subject| features::features(subject, &picture, &layer)).await
    }

    /// The pictures that excite a unit most.
    ///
    /// # Errors
    /// As [`Explainer::explain`]; a picture's own says its index.
    pub async fn exciting(&self, model: Arc<Model>, request: ExcitingRequest) -> Result<Exciting> {
        self.run(model, "exciting", move |subject| exciting::exciting(subject, &request)).await
    }

    /// Does `work` on a thread of its own, when it is its turn.
    async fn run<T: Send + 'static>(
        &self,
        model: Arc<Model>,
        method: &'static str,
        work: impl FnOnce(&Subject) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let version = model.version().to_string();
        let mut record = Record {
            metrics: &self.inner.metrics,
            labels: [model.name().to_owned(), version, method.to_owned()],
            outcome: Outcome::Canceled,
        };
        let result = self.run_unrecorded(model, &record.labels, work).await;
        record.outcome = match &result {
            Ok(_) => Outcome::Success,
            Err(error) => match error.kind() {
                ErrorKind::Internal => Outcome::Failed,
                ErrorKind::Overloaded | ErrorKind::Unavailable => Outcome::Rejected,
                _ => Outcome::Invalid,
            },
        };
        result
    }

    async fn run_unrecorded<T: Send + 'static>(
        &self,
        model: Arc<Model>,
        labels: &[String; 3],
        work: impl FnOnce(&Subject) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let graph = own_graph(&model)?;
        let place = self.place().await?;
        let abandon = Abandon(Arc::new(AtomicBool::new(false)));
        let subject = Subject {
            runtime: self.inner.runtime.clone(),
            cache: Arc::clone(&self.inner.cache),
            metrics: self.inner.metrics.clone(),
            limits: self.inner.limits.clone(),
            model,
            graph,
            is_canceled: Arc::clone(&abandon.0),
        };
        let labels = labels.clone();
        let working = tokio::task::spawn_blocking(move || {
            // Held by the thread, which goes on for a while when nobody waits for it any more.
            let _place = place;
            let started = Instant::now();
            let result = work(&subject);
            subject.metrics.observe(labels.each_ref().map(String::as_str), started.elapsed());
            result
        });
        working
            .await
            .unwrap_or_else(|failure| Err(Error::internal("the explanation failed").with_source(failure.to_string())))
    }

    /// Waits for a turn, unless too many do.
    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.inner.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::new(&self.inner)?;
        places.acquire_owned().await.map_err(|_| Error::unavailable("the server is shutting down"))
    }
}

/// The graph that the model has of its own.
fn own_graph(model: &Model) -> Result<Arc<GraphModel>> {
    model.graph().cloned().ok_or_else(|| {
        let members: Vec<_> = model.members().into_iter().map(|member| member.name).collect();
        let message = format!("the model {} is an ensemble: ask for its members, {}", model.name(), members.join(", "));
        Error::invalid(message)
    })
}

/// One that waits for its turn.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn new(inner: &'a Inner) -> Result<Self> {
        let ahead = inner.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(inner);
        if ahead >= inner.max_waiting {
            return Err(Error::overloaded("too many explanations are waiting").with_retry_after(RETRY_AFTER));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the thread at work when nobody waits for it any more.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts a request when it ends, however it does.
struct Record<'a> {
    metrics: &'a ExplainMetrics,
    labels: [String; 3],
    outcome: Outcome,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.metrics.record(self.labels.each_ref().map(String::as_str), self.outcome);
    }
}
