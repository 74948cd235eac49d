//! The one facade that every protocol calls: it resolves a model, admits a request, prepares its pictures, has it run, and
//! turns logits into classes.
//!
//! It knows nothing of HTTP or gRPC: the handlers translate their wire forms into the requests below and back.

mod average;
mod body_bytes;
mod catalog;
mod input;
mod looked_up;
mod outputs;
mod pictures;
mod request;
mod run;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::watch;

pub use self::body_bytes::{BodyBytes, HeldBytes};
pub use self::catalog::{Changes, EXTENSIONS, parse_version};
use self::looked_up::{LookedUp, look_up};
use self::outputs::Shapes;
use self::pictures::{Pictures, Waiting};
pub use self::request::{
    Admission, Classification, ClassifyRequest, DEFAULT_TOP_K, InferRequest, InferResponse, Limits, Prediction,
    RequestContext, RequestedOutput, Timing, deadline,
};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::{GraphModel, IndexEntry, Lack, Model, ModelState, Repository};
use crate::response_cache::ResponseCache;
use crate::scheduler::Answer;
use crate::tensor::DataType;

/// The facade. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inference {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    repository: Arc<Repository>,
    limits: Limits,
    default_model: Option<String>,
    pictures: Pictures,
    body_bytes: BodyBytes,
    phase: watch::Sender<Phase>,
}

/// Where the server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// What is loaded at the start is not yet.
    Loading,
    /// It should get traffic, unless it lacks models.
    Serving,
    /// It ends, and should get no more.
    Draining,
}

/// Why the server should get no traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    /// It loads what it is to serve.
    Loading,
    /// It ends.
    Draining,
    /// It serves less than it must, readiness being strict.
    Lacks(Lack),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loading => f.write_str("the server is loading its models"),
            Self::Draining => f.write_str("the server is shutting down"),
            Self::Lacks(lack) => lack.fmt(f),
        }
    }
}

impl Inference {
    /// A facade over `repository`. It is not ready until [`Inference::enter`] says that it serves.
    pub fn new(repository: Arc<Repository>, limits: Limits, default_model: Option<String>) -> Self {
        let pictures = Pictures::new(&limits);
        let body_bytes = BodyBytes::new(limits.max_inflight_bytes);
        Self {
            inner: Arc::new(Inner {
                repository,
                limits,
                default_model,
                pictures,
                body_bytes,
                phase: watch::Sender::new(Phase::Loading),
            }),
        }
    }

    /// The model called `name`, in `version` or, without one, the highest that is ready.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version, `Unavailable` where it is known but not ready.
    pub fn model(&self, name: &str, version: Option<u64>) -> Result<Arc<Model>> {
        self.inner.repository.get(name, version)
    }

    /// The model of a request that names none: the configured one, or the only one there is. `advice` says to a client of several how it
    /// names one.
    ///
    /// # Errors
    /// `InvalidArgument` when there are several and none is configured; else as [`Inference::model`].
    pub fn default_model(&self, advice: &str) -> Result<Arc<Model>> {
        if let Some(name) = &self.inner.default_model {
            return self.model(name, None);
        }
        let names = self.inner.repository.names();
        match names.as_slice() {
            [name] => self.model(name, None),
            [] => Err(Error::not_found("there is no model that is loaded")),
            _ => Err(Error::invalid(format!("there are several models ({}): {advice}", names.join(", ")))),
        }
    }

    /// The versions of the model called `name` that are ready, ascending.
    pub fn versions(&self, name: &str) -> Vec<u64> {
        self.ready_versions(name).iter().map(|model| model.version()).collect()
    }

    /// Takes a place in the model's bounded queue for a request's first row; for an ensemble, in every member's or in none.
    /// Nothing expensive (parsing, decoding) should happen before this.
    ///
    /// # Errors
    /// `Overloaded` at once when every place is taken, or the timeout cannot be met with the work ahead.
    pub fn admit(&self, model: Arc<Model>, context: RequestContext) -> Result<Admission> {
        Admission::new(model, context, true)
    }

    /// As [`Inference::admit`] for a request whose body may yet say its timeout and priority, so that its deadline cannot be
    /// looked at before that is parsed.
    ///
    /// # Errors
    /// `Overloaded` at once when every place is taken.
    pub fn admit_unparsed(&self, model: Arc<Model>, context: RequestContext) -> Result<Admission> {
        Admission::new(model, context, false)
    }

    /// Runs tensors (or encoded pictures in a BYTES tensor).
    ///
    /// # Errors
    /// `InvalidArgument` for tensors or outputs that the model does not have, `Overloaded`, `DeadlineExceeded`, `Internal`.
    pub async fn infer(&self, mut admission: Admission, request: InferRequest) -> Result<InferResponse> {
        let result = self.run_infer(&mut admission, request).await;
        self.note_failure(&admission, &result);
        admission.finish(&result);
        result
    }

    /// Classifies pictures.
    ///
    /// # Errors
    /// As [`Inference::infer`], and `UnsupportedMedia` or `PayloadTooLarge` for what is not a picture or too large a one.
    pub async fn classify(&self, mut admission: Admission, request: ClassifyRequest) -> Result<Classification> {
        let result = self.run_classify(&mut admission, request).await;
        self.note_failure(&admission, &result);
        admission.finish(&result);
        result
    }

    /// Every model and version that the repository knows, with its state; only ready ones with `ready_only`.
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let mut index = self.inner.repository.index();
        index.retain(|entry| !ready_only || entry.state == ModelState::Ready);
        index
    }

    /// Every version that is ready.
    pub fn ready_models(&self) -> Vec<Arc<Model>> {
        self.inner.repository.ready()
    }

    /// Every version of the model called `name` that is ready.
    fn ready_versions(&self, name: &str) -> Vec<Arc<Model>> {
        let mut models = self.ready_models();
        models.retain(|model| model.name() == name);
        models
    }

    /// Whether the server should get traffic: everything loaded (or found unavailable, unless readiness is strict), and not
    /// draining.
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Why the server should get no traffic; `None` where it should.
    pub fn unready(&self) -> Option<Unready> {
        match *self.inner.phase.borrow() {
            Phase::Loading => Some(Unready::Loading),
            Phase::Serving => self.inner.repository.lack().map(Unready::Lacks),
            Phase::Draining => Some(Unready::Draining),
        }
    }

    /// Says where the server is in its life.
    pub fn enter(&self, phase: Phase) {
        self.inner.phase.send_replace(phase);
    }

    /// The bound on the bodies that are in memory.
    pub fn body_bytes(&self) -> &BodyBytes {
        &self.inner.body_bytes
    }

    /// The kept answers, where any are kept.
    pub fn response_cache(&self) -> Option<&ResponseCache> {
        self.inner.repository.response_cache()
    }

    /// The limits that handlers check before they parse.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Has the repository look at a model whose run failed.
    fn note_failure<T>(&self, admission: &Admission, result: &Result<T>) {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Internal) {
            self.inner.repository.suspect(admission.model());
        }
    }

    async fn run_infer(&self, admission: &mut Admission, request: InferRequest) -> Result<InferResponse> {
        let model = Arc::clone(admission.model());
        let requested = outputs::resolve(&model, &request)?;
        let input = input::single(&model, request.inputs)?;
        let (answers, decode, shapes) = if input.data_type() == DataType::Bytes {
            input::count(input.len(), input.shape(), &self.inner.limits)?;
            let (answers, decode) = self.run_pictures(admission, input.to_byte_strings()?).await?;
            (answers, decode, Shapes::Client)
        } else {
            let (input, shapes) = input::tensor(&model, input, &self.inner.limits)?;
            (run::tensor(admission, &input).await?, Duration::ZERO, shapes)
        };
        let outputs = outputs::collect(&model, &requested, &answers, shapes)?;
        Ok(InferResponse { outputs, timing: timing(admission.context(), &answers, decode) })
    }

    async fn run_classify(&self, admission: &mut Admission, request: ClassifyRequest) -> Result<Classification> {
        let model = Arc::clone(admission.model());
        if request.top_k == 0 {
            return Err(Error::invalid("top_k must be at least 1"));
        }
        if request.aux && model.branches().is_empty() {
            return Err(Error::invalid(format!(
                "the model {} has no side branches: aux takes a graph that was exported with them",
                model.name()
            )));
        }
        let count = request.pictures.len();
        input::count(count, &[count], &self.inner.limits)?;
        let (answers, decode) = self.run_pictures(admission, request.pictures).await?;
        let predictions = answers
            .iter()
            .map(|answer| outputs::prediction(&model, answer, request.top_k, request.aux))
            .collect::<Result<Vec<_>>>()?;
        Ok(Classification { predictions, timing: timing(admission.context(), &answers, decode) })
    }

    /// Decodes and runs pictures, each by itself, so that a request's pictures spread over instances as they are ready. A
    /// picture is an entry of as many rows as it has crops, or several where these are more than the largest batch.
    async fn run_pictures(&self, admission: &mut Admission, pictures: Vec<Bytes>) -> Result<(Vec<Answer>, Duration)> {
        let count = pictures.len();
        let pictures = look_up(admission, pictures).await?;
        let parts = admission.parts();
        let decodings = pictures.iter().map(|picture| run::recipes(picture.missing(parts)).len()).sum();
        let waiting = self.inner.pictures.enqueue(decodings);
        let needs = |index, graph: &GraphModel| {
            let missing = pictures.iter().filter(|picture| picture.is_missing(index));
            let encoded = missing.clone().map(|picture| picture.input().len()).sum();
            (missing.count() * graph.preprocessor().crops(), encoded)
        };
        admission.extend_to(needs, waiting.preparation())?;
        let (admission, waiting) = (&*admission, &waiting);
        let runs = pictures.into_iter().enumerate().map(|(index, picture)| {
            // With several pictures the client must know which one is meant.
            let index = Some(index).filter(|_| count > 1);
            self.run_picture(admission, waiting, picture, index)
        });
        let results = try_join_all(runs).await?;
        let decode = results.iter().map(|(_, decode)| *decode).max().unwrap_or_default();
        Ok((results.into_iter().map(|(answer, _)| answer).collect(), decode))
    }

    /// Decodes a picture once for each recipe that the parts of a request have, and runs each part. An error of the picture's own
    /// says its `index`.
    async fn run_picture(
        &self,
        admission: &Admission,
        waiting: &Waiting,
        picture: LookedUp<Bytes>,
        index: Option<usize>,
    ) -> Result<(Answer, Duration)> {
        let parts = admission.parts();
        let looked_up = &picture;
        let runs = run::recipes(picture.missing(parts)).into_iter().map(|(preprocessor, parts)| async move {
            let encoded = looked_up.input().clone();
            let prepared = self.inner.pictures.prepare(admission, waiting, preprocessor, encoded).await;
            let (rows, decode) = prepared.map_err(|error| match index {
                Some(index) => error.map_message(|message| format!("picture {index}: {message}")),
                None => error,
            })?;
            let rows = &rows;
            let answers = parts.into_iter().map(|(index, part)| async move {
                let pieces = run::pieces(part.graph(), rows).map(|piece| run::entry(admission, part, piece));
                let answer = average::over_crops(part.graph(), try_join_all(pieces).await?)?;
                looked_up.keep(part, &answer);
                Ok::<_, Error>((index, answer))
            });
            Ok::<_, Error>((try_join_all(answers).await?, decode))
        });
        let results = try_join_all(runs).await?;
        let decode = results.iter().map(|(_, decode)| *decode).sum();
        let run = results.into_iter().flat_map(|(answers, _)| answers);
        Ok((average::over_members(admission.model(), picture.complete(parts, run))?, decode))
    }
}

fn timing(context: &RequestContext, answers: &[Answer], decode: Duration) -> Timing {
    Timing {
        decode,
        queue: answers.iter().map(|answer| answer.queue).max().unwrap_or_default(),
        batch_size: answers.iter().map(|answer| answer.batch_size).max().unwrap_or_default(),
        compute: answers.iter().map(|answer| answer.compute).max().unwrap_or_default(),
        total: context.received.elapsed(),
    }
}
