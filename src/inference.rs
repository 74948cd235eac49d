//! The one facade that every protocol calls: it resolves a model, admits a request, prepares its pictures, has it run, and
//! turns logits into classes.
//!
//! It knows nothing of HTTP or gRPC: the handlers translate their wire forms into the requests below and back.

mod average;
mod body_bytes;
mod catalog;
mod looked_up;
mod outputs;
mod pictures;
mod request;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::watch;

pub use self::body_bytes::{BodyBytes, HeldBytes};
pub use self::catalog::{Changes, EXTENSIONS, parse_version};
use self::looked_up::{LookedUp, look_up};
use self::outputs::Shapes;
use self::pictures::{Pictures, Waiting};
use self::request::Part;
pub use self::request::{
    Admission, Class, Classification, ClassifyRequest, DEFAULT_TOP_K, InferRequest, InferResponse, Limits, Prediction,
    RequestContext, RequestedOutput, Timing,
};
use crate::error::{Error, ErrorKind, Result};
use crate::preprocess::Preprocessor;
use crate::repository::{GraphModel, IndexEntry, Model, ModelState, Repository};
use crate::scheduler::{Answer, Preparation, Submission};
use crate::telemetry::Outcome;
use crate::tensor::{DataType, Tensor};

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
    /// Set once everything has been loaded, unset when the server drains.
    ready: watch::Sender<bool>,
}

impl Inference {
    /// A facade over `repository`. It is not ready until [`Inference::set_ready`] says so.
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
                ready: watch::Sender::new(false),
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

    /// The model that `/v1/classify` uses: the configured one, or the only one there is.
    ///
    /// # Errors
    /// `InvalidArgument` when there are several and none is configured; else as [`Inference::model`].
    pub fn default_model(&self) -> Result<Arc<Model>> {
        if let Some(name) = &self.inner.default_model {
            return self.model(name, None);
        }
        let names = self.inner.repository.names();
        match names.as_slice() {
            [name] => self.model(name, None),
            [] => Err(Error::not_found("there is no model")),
            _ => Err(Error::invalid(format!(
                "there are several models ({}): name one in the path, or configure a default",
                names.join(", ")
            ))),
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

    /// Whether the server should get traffic: everything loaded (or found unavailable), and not draining.
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// Says whether the server should get traffic.
    pub fn set_ready(&self, ready: bool) {
        self.inner.ready.send_replace(ready);
    }

    /// The bound on the bodies that are in memory.
    pub fn body_bytes(&self) -> &BodyBytes {
        &self.inner.body_bytes
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
        let input = single_input(&model, request.inputs)?;
        let (answers, decode, shapes) = if input.data_type() == DataType::Bytes {
            check_count(input.len(), input.shape(), &self.inner.limits)?;
            let (answers, decode) = self.run_pictures(admission, input.to_byte_strings()?).await?;
            (answers, decode, Shapes::Client)
        } else {
            let (input, shapes) = self.check_tensor(&model, input)?;
            (run_tensor(admission, &input).await?, Duration::ZERO, shapes)
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
        check_count(count, &[count], &self.inner.limits)?;
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
        let decodings = pictures.iter().map(|picture| recipes(picture.missing(parts)).len()).sum();
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
        let runs = recipes(picture.missing(parts)).into_iter().map(|(preprocessor, parts)| async move {
            let encoded = looked_up.input().clone();
            let prepared = self.inner.pictures.prepare(admission, waiting, preprocessor, encoded).await;
            let (rows, decode) = prepared.map_err(|error| match index {
                Some(index) => error.map_message(|message| format!("picture {index}: {message}")),
                None => error,
            })?;
            let rows = &rows;
            let answers = parts.into_iter().map(|(index, part)| async move {
                let pieces = pieces(part.graph(), rows).map(|piece| run_entry(admission, part, piece));
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

    /// Checks a tensor against the model's input, and returns it in the graph's shape and the form in which it came.
    fn check_tensor(&self, model: &Model, input: Tensor) -> Result<(Tensor, Shapes)> {
        let spec = model.input();
        if input.data_type() != spec.data_type {
            let takes = match spec.data_type {
                DataType::Bytes => "encoded pictures as BYTES".to_owned(),
                data_type => format!("{data_type} (or encoded pictures as BYTES)"),
            };
            return Err(Error::invalid(format!("the input {} takes {takes}, not {}", spec.name, input.data_type())));
        }
        let (input, shapes) = match model.to_graph(&input)? {
            Some(input) => (input, Shapes::Client),
            // Rows put together, which is how some protocols have them whatever the model's input is said to be.
            None if model.takes_rows(input.shape()) => (input, Shapes::Graph),
            None => {
                return Err(Error::invalid(format!(
                    "the input {} takes the shape {:?} (-1 for any), not {:?}",
                    spec.name,
                    spec.shape,
                    input.shape()
                )));
            }
        };
        if input.is_empty() {
            return Err(Error::invalid(format!("the input {} has no elements", spec.name)));
        }
        if input.bytes().len() > self.inner.limits.max_tensor_bytes {
            return Err(Error::too_large(format!(
                "the input {} has {} bytes, the limit is {}",
                spec.name,
                input.bytes().len(),
                self.inner.limits.max_tensor_bytes
            )));
        }
        Ok((input, shapes))
    }
}

fn check_count(count: usize, shape: &[usize], limits: &Limits) -> Result<()> {
    if shape.len() != 1 && !(shape.len() == 2 && shape[1] == 1) {
        return Err(Error::invalid(format!("encoded pictures take a BYTES tensor of shape [N], not {shape:?}")));
    }
    if count == 0 {
        return Err(Error::invalid("the request has no picture"));
    }
    if count > limits.max_pictures {
        return Err(Error::too_large(format!(
            "the request has {count} pictures, the limit is {}",
            limits.max_pictures
        )));
    }
    Ok(())
}

fn single_input(model: &Model, inputs: Vec<(String, Tensor)>) -> Result<Tensor> {
    let expected = &model.input().name;
    let count = inputs.len();
    match <[_; 1]>::try_from(inputs) {
        Ok([(name, tensor)]) if name == *expected => Ok(tensor),
        Ok([(name, _)]) => {
            Err(Error::invalid(format!("the model has no input called {name}; its input is {expected}")))
        }
        Err(_) => Err(Error::invalid(format!("the model takes one input, {expected}, but {count} were given"))),
    }
}

/// A recipe, and the parts that share it, with their indices: they get the same rows.
type SharedRecipe<'a> = (&'a Arc<Preprocessor>, Vec<(usize, &'a Part)>);

/// The parts, with their indices, by the recipe that they share.
fn recipes<'a>(parts: impl Iterator<Item = (usize, &'a Part)>) -> Vec<SharedRecipe<'a>> {
    let mut recipes: Vec<SharedRecipe<'a>> = Vec::new();
    for (index, part) in parts {
        let preprocessor = part.graph().preprocessor();
        match recipes.iter_mut().find(|(other, _)| *other == preprocessor) {
            Some((_, parts)) => parts.push((index, part)),
            None => recipes.push((preprocessor, vec![(index, part)])),
        }
    }
    recipes
}

/// Runs a tensor in pieces.
async fn run_tensor(admission: &mut Admission, input: &Tensor) -> Result<Vec<Answer>> {
    // Only a model with a graph of its own takes a tensor, so there is one part.
    let pieces = pieces(admission.parts()[0].graph(), input).collect();
    let pieces = look_up(admission, pieces).await?;
    let rows_of = |piece: &LookedUp<Tensor>| piece.input().shape()[0];
    let missing: usize = pieces.iter().filter(|piece| piece.is_missing(0)).map(rows_of).sum();
    admission.extend_to(|_, _| (missing, 0), Preparation::default())?;
    let admission = &*admission;
    let part = &admission.parts()[0];
    let answers = pieces.into_iter().map(|piece| async move {
        let mut run = None;
        if piece.is_missing(0) {
            let answer = run_entry(admission, part, piece.input().clone()).await?;
            piece.keep(part, &answer);
            run = Some((0, answer));
        }
        average::over_members(admission.model(), piece.complete(admission.parts(), run))
    });
    try_join_all(answers).await
}

/// A tensor in pieces of at most the graph's largest batch.
fn pieces(graph: &GraphModel, input: &Tensor) -> impl Iterator<Item = Tensor> {
    let (rows, largest) = (input.shape()[0], graph.max_batch_size());
    (0..rows).step_by(largest).map(move |start| input.rows(start, largest.min(rows - start)))
}

/// Queues one entry and waits for its answer, at most until the request's deadline.
async fn run_entry(admission: &Admission, part: &Part, rows: Tensor) -> Result<Answer> {
    let context = admission.context();
    let model = admission.model();
    let deadline = context.deadline(model);
    let submission = Submission { rows, priority: context.priority(model), deadline };
    let answer = part.graph().scheduler().submit(submission)?;
    let answer = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), answer)
            .await
            .map_err(|_| Error::deadline_exceeded("the request's deadline passed before it was answered"))?,
        None => answer.await,
    }?;
    part.note_answer();
    Ok(answer)
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

/// How an error counts in the metrics.
fn outcome(kind: ErrorKind) -> Outcome {
    match kind {
        ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Outcome::Rejected,
        ErrorKind::Internal => Outcome::Failed,
        _ => Outcome::Invalid,
    }
}

/// The instant that a timeout after `received` ends; `None` for no timeout, or one too far away to matter.
fn deadline(received: Instant, timeout: Option<Duration>) -> Option<Instant> {
    timeout.filter(|timeout| !timeout.is_zero()).and_then(|timeout| received.checked_add(timeout))
}
