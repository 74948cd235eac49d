//! A request's right to be explained, and its turn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::subject::Subject;
use super::{
    Exciting, ExcitingRequest, ExplainRequest, Explanation, Features, Filters, Inner, Method, activation, exciting,
    features, filters, occlusion, projection, thread,
};
use crate::error::{Error, Result};
use crate::repository::{GraphModel, Model};
use crate::telemetry::Outcome;

/// When a client that was refused may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is asked for, as metrics tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Explanations, by a method or the one that the model allows.
    Explanation(Option<Method>),
    /// Filters.
    Filters,
    /// Feature maps.
    Features,
    /// Exciting pictures.
    Exciting,
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Self::Explanation(method) => method.map_or("auto", Method::as_str),
            Self::Filters => "filters",
            Self::Features => "features",
            Self::Exciting => "exciting",
        }
    }
}

/// Proof that a request may be explained: it holds the model's version through a reload, and one of the bounded number of places.
///
/// Dropping it gives the place back and counts the request: as canceled unless its last work came to an end.
pub struct Admission {
    inner: Arc<Inner>,
    model: Arc<Model>,
    graph: Arc<GraphModel>,
    work: Work,
    deadline: Option<Instant>,
    /// The latest that the deadline may be.
    latest: Option<Instant>,
    outcome: Outcome,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("work", &self.work).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Admission {
    pub(super) fn new(inner: Arc<Inner>, model: Arc<Model>, work: Work, deadline: Option<Instant>) -> Result<Self> {
        let count = |outcome| record(&inner, &model, work, outcome);
        let graph = own_graph(&model).inspect_err(|_| count(Outcome::Invalid))?;
        let is_room = |admitted: usize| (admitted < inner.max_admitted).then_some(admitted + 1);
        if inner.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_room).is_err() {
            count(Outcome::Rejected);
            return Err(Error::overloaded("too many explanations are waiting").with_retry_after(RETRY_AFTER));
        }
        let latest = Instant::now().checked_add(inner.timeout);
        let mut admission = Self { inner, model, graph, work, deadline: None, latest, outcome: Outcome::Canceled };
        admission.change(work, deadline);
        Ok(admission)
    }

    /// What a request's body says of it, where only parsing it could tell: what is asked for, and when the answer is of no use any more.
    pub fn change(&mut self, work: Work, deadline: Option<Instant>) {
        self.work = work;
        self.deadline = deadline.into_iter().chain(self.latest).min();
    }

    /// Passes `result` on, and counts the request as failed where it is an error: for what a handler finds wrong before it asks for
    /// anything.
    ///
    /// # Errors
    /// Those of `result`.
    pub fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.outcome = error.kind().into())
    }

    /// Explains the model's answer to a picture, or the units of one of its layers.
    ///
    /// # Errors
    /// `InvalidArgument` for what the model does not have or a method does not take, `NotFound` for an unknown layer,
    /// `Unimplemented` naming the node where the graph has an operator that cannot be run backwards, `DeadlineExceeded`; and a
    /// picture's own.
    pub async fn explain(&mut self, request: ExplainRequest) -> Result<Explanation> {
        self.run(move |subject| {
            request.validate()?;
            match request.method {
                None => activation::automatic(subject, &request),
                Some(Method::Cam | Method::Gradcam) => activation::activation(subject, &request),
                Some(Method::Occlusion) => occlusion::occlusion(subject, &request),
                Some(Method::Projection(rule)) => projection::projection(subject, &request, rule),
            }
        })
        .await
    }

    /// The filters of the model's first convolution.
    ///
    /// # Errors
    /// `InvalidArgument` when there are none that see a picture's three channels, `DeadlineExceeded`.
    pub async fn filters(&mut self) -> Result<Filters> {
        self.run(|subject| filters::filters(&subject.network()?, subject.graph.preprocessor().color())).await
    }

    /// What the layer called `layer` gives for a picture.
    ///
    /// # Errors
    /// `NotFound` for an unknown layer, `InvalidArgument` for one without channels, `DeadlineExceeded`, and a picture's own.
    pub async fn features(&mut self, picture: Bytes, layer: String) -> Result<Features> {
        self.run(move |subject| features::features(subject, &picture, &layer)).await
    }

    /// Those of `pictures` that excite a unit most. They are read one after the other, and only those that excite it most so far are
    /// kept. Each comes with what it is called in an error.
    ///
    /// # Errors
    /// As [`Admission::explain`]; a picture's own says what it is called.
    pub async fn exciting(
        &mut self,
        request: ExcitingRequest,
        pictures: impl Iterator<Item = (String, Result<Bytes>)> + Send + 'static,
    ) -> Result<Exciting> {
        self.run(move |subject| exciting::exciting(subject, &request, pictures)).await
    }

    /// Does `work` on a thread of its own, when it is its turn.
    async fn run<T: Send + 'static>(&mut self, work: impl FnOnce(&Subject) -> Result<T> + Send + 'static) -> Result<T> {
        self.outcome = Outcome::Canceled;
        let limited = async {
            match self.deadline {
                None => self.run_unlimited(work).await,
                Some(deadline) => tokio::time::timeout_at(deadline.into(), self.run_unlimited(work))
                    .await
                    .unwrap_or_else(|_| Err(too_late())),
            }
        };
        let result = tokio::select! {
            result = limited => result,
            () = end(&self.inner) => Err(shutting_down()),
        };
        self.outcome = result.as_ref().map_or_else(|error| error.kind().into(), |_| Outcome::Success);
        result
    }

    async fn run_unlimited<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Subject) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = &self.inner;
        let place = Arc::clone(&inner.places).acquire_owned().await;
        let place = place.map_err(|_| shutting_down())?;
        // The timer sees a deadline a millisecond late, in which small graphs are done.
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(too_late());
        }
        // The thread stops at its next step when this is dropped: nobody waits for the answer any more.
        let (_asks, asked) = watch::channel(());
        let subject = Subject {
            runtime: inner.runtime.clone(),
            cache: Arc::clone(&inner.cache),
            metrics: inner.metrics.clone(),
            limits: inner.limits.clone(),
            model: Arc::clone(&self.model),
            graph: Arc::clone(&self.graph),
            deadline: self.deadline,
            asked,
            tasks: tokio::runtime::Handle::current(),
        };
        let work_label = self.work.as_str();
        let answer = thread::spawn(move || {
            // Held by the thread, which may go on for a while when nobody waits for it any more.
            let _place = place;
            let started = Instant::now();
            let result = work(&subject);
            let version = subject.model.version().to_string();
            subject.metrics.observe([subject.model.name(), &version, work_label], started.elapsed());
            result
        })?;
        answer.await.unwrap_or_else(|_| Err(Error::internal("the explanation failed")))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.inner.admitted.fetch_sub(1, Ordering::Relaxed);
        record(&self.inner, &self.model, self.work, self.outcome);
    }
}

fn record(inner: &Inner, model: &Model, work: Work, outcome: Outcome) {
    inner.metrics.record([model.name(), &model.version().to_string(), work.as_str()], outcome);
}

/// The graph that the model has of its own.
fn own_graph(model: &Model) -> Result<Arc<GraphModel>> {
    model.graph().cloned().ok_or_else(|| {
        let members: Vec<_> = model.members().into_iter().map(|member| member.name).collect();
        let message = format!("the model {} is an ensemble: ask for its members, {}", model.name(), members.join(", "));
        Error::invalid(message)
    })
}

/// Waits until what is under way is to be given up because the server ends.
async fn end(inner: &Inner) {
    let mut end = inner.end.subscribe();
    let at = end.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn shutting_down() -> Error {
    Error::unavailable("the server is shutting down")
}

fn too_late() -> Error {
    Error::deadline_exceeded("the deadline passed before the explanation was done")
}
