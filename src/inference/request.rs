//! The requests and answers of the facade, free of any wire form.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::Class;
use crate::preprocess::PictureLimits;
use crate::repository::{GraphModel, Member, Model};
use crate::scheduler::{Demand, Permit, Preparation};
use crate::telemetry::{Outcome, Trace};
use crate::tensor::Tensor;

/// The `[limits]` table: sizes over which a request is refused. Each is checked before memory of that size is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most pictures in one request. Default: 64.
    pub max_pictures: usize,
    /// The most pixels of one picture, by its own header. Default: 100 million.
    pub max_pixels: u64,
    /// The most memory that decoding one picture may take, in bytes. Default: 256 MiB.
    pub max_decode_bytes: u64,
    /// The most bytes of one input tensor. Default: 64 MiB.
    pub max_tensor_bytes: usize,
    /// The most bytes of request bodies in memory at once, over all requests, from a body's first byte to its answer. Default:
    /// 512 MiB.
    pub max_inflight_bytes: usize,
    /// How many pictures are decoded at the same time. Default: one for each core.
    pub decode_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let pictures = PictureLimits::default();
        Self {
            max_pictures: 64,
            max_pixels: pictures.max_pixels,
            max_decode_bytes: pictures.max_decode_bytes,
            max_tensor_bytes: 64 << 20,
            max_inflight_bytes: 512 << 20,
            decode_threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Limits {
    /// Those of one picture.
    pub fn picture(&self) -> PictureLimits {
        PictureLimits { max_pixels: self.max_pixels, max_decode_bytes: self.max_decode_bytes }
    }
}

/// What a request brings beside its payload: where it came from and how it wants to be scheduled.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The protocol it came by: a label of the request metrics (`"http"`, `"grpc"`, `"cli"`).
    pub protocol: &'static str,
    /// When the request arrived: deadlines and total times count from here.
    pub received: Instant,
    /// 1 is the most urgent; `None` takes the model's default.
    pub priority: Option<u32>,
    /// The time from `received` after which the answer is of no use; `None` takes the model's default, zero means none.
    pub timeout: Option<Duration>,
    /// Where its spans are put; empty where nothing is traced.
    pub trace: Trace,
}

impl RequestContext {
    /// A request that has just arrived and takes the model's defaults.
    pub fn new(protocol: &'static str) -> Self {
        Self { protocol, received: Instant::now(), priority: None, timeout: None, trace: Trace::default() }
    }

    pub(super) fn deadline(&self, model: &Model) -> Option<Instant> {
        let default = || Duration::from_millis(model.config().batching.default_timeout_ms);
        deadline(self.received, Some(self.timeout.unwrap_or_else(default)))
    }

    pub(super) fn priority(&self, model: &Model) -> u32 {
        self.priority.unwrap_or(model.config().batching.default_priority).max(1)
    }
}

/// The instant that a timeout after `received` ends; `None` for no timeout, or one too far away to matter.
pub fn deadline(received: Instant, timeout: Option<Duration>) -> Option<Instant> {
    timeout.filter(|timeout| !timeout.is_zero()).and_then(|timeout| received.checked_add(timeout))
}

/// Proof that a request may use a model: it holds the model's version through a reload, and places in its bounded queue, or in
/// those of an ensemble's members.
///
/// Dropping it gives the places back, and counts the request as canceled unless it has been answered.
#[derive(Debug)]
pub struct Admission {
    model: Arc<Model>,
    context: RequestContext,
    parts: Vec<Part>,
    answered: bool,
}

/// What a graph has to do for a request: all, or what falls to a member of an ensemble.
#[derive(Debug)]
pub(super) struct Part {
    member: Member,
    permit: Permit,
}

impl Part {
    /// What runs it.
    pub(super) fn graph(&self) -> &GraphModel {
        &self.member.graph
    }

    /// Notes that it has been run.
    pub(super) fn note_answer(&self) {
        self.permit.note_answer();
    }

    /// Its share of an ensemble's average.
    pub(super) fn weight(&self) -> f64 {
        self.member.weight
    }
}

impl Admission {
    /// Takes a place for one row in every graph that the model runs, or none. With `check_deadline`, the context says all that
    /// there is to know of the request's deadline.
    pub(super) fn new(model: Arc<Model>, context: RequestContext, check_deadline: bool) -> Result<Self> {
        if context.trace.is_recorded() {
            context.trace.set("convoy.model.name", model.name().to_owned());
            context.trace.set("convoy.model.version", model.version().to_string());
        }
        let demand = |member: &Member| Demand {
            // What a request of a model that keeps answers needs is known when it has been looked up.
            rows: usize::from(member.graph.cache().is_none()),
            bytes: if member.graph.cache().is_none() { member.graph.row_bytes() } else { 0 },
            priority: context.priority(&model),
            deadline: context.deadline(&model).filter(|_| check_deadline && member.graph.cache().is_none()),
            preparation: Preparation::default(),
        };
        let part = |member: Member| {
            let permit = member.graph.scheduler().admit(demand(&member));
            Ok(Part { permit: permit.map_err(|error| in_member(&model, &member, error))?, member })
        };
        let parts = model.members().into_iter().map(part).collect::<Result<_>>();
        match parts {
            Ok(parts) => Ok(Self { model, context, parts, answered: false }),
            Err(error) => {
                model.record_request(context.protocol, Outcome::Rejected, context.received.elapsed(), &context.trace);
                Err(error)
            }
        }
    }

    /// The model admitted to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The request's context.
    pub fn context(&self) -> &RequestContext {
        &self.context
    }

    /// Priority and timeout that a request's body says, where only parsing it could tell.
    pub fn context_mut(&mut self) -> &mut RequestContext {
        &mut self.context
    }

    /// Counts the request as failed with `error`: for what a handler finds wrong before it calls the facade.
    pub fn reject(mut self, error: &Error) {
        self.count(error.kind().into());
    }

    /// What there is to run: one part, unless the model is an ensemble.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Asks each graph for what the request really needs, now that its body is parsed and looked up: `needs` says by a part's
    /// index how many rows it has to run, and beside how many encoded bytes. Refuses the request if its deadline, which may not
    /// have been known before, cannot be met.
    pub(super) fn extend_to(
        &mut self,
        needs: impl Fn(usize, &GraphModel) -> (usize, usize),
        preparation: Preparation,
    ) -> Result<()> {
        let (priority, deadline) = (self.context.priority(&self.model), self.context.deadline(&self.model));
        for (index, Part { member, permit }) in self.parts.iter_mut().enumerate() {
            let (rows, encoded) = needs(index, &member.graph);
            let bytes = rows.saturating_mul(member.graph.row_bytes()).saturating_add(encoded);
            // What has nothing to run waits for nothing.
            let deadline = deadline.filter(|_| rows > 0);
            permit
                .change(Demand { rows, bytes, priority, deadline, preparation })
                .map_err(|error| in_member(&self.model, member, error))?;
        }
        Ok(())
    }

    /// Looks once more whether the deadline can be met with what is more urgent by now.
    pub(super) fn check_deadline(&self) -> Result<()> {
        let check = |part: &Part| part.permit.check().map_err(|error| in_member(&self.model, &part.member, error));
        self.parts.iter().try_for_each(check)
    }

    pub(super) fn finish<T>(mut self, result: &Result<T>) {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::DeadlineExceeded) {
            self.parts.iter().filter(|part| part.permit.rows() > 0).for_each(Part::note_answer);
        }
        self.count(result.as_ref().map_or_else(|error| error.kind().into(), |_| Outcome::Success));
    }

    fn count(&mut self, outcome: Outcome) {
        self.answered = true;
        let took = self.context.received.elapsed();
        self.model.record_request(self.context.protocol, outcome, took, &self.context.trace);
    }
}

/// Says which member of an ensemble an error is about.
fn in_member(model: &Model, member: &Member, error: Error) -> Error {
    if model.is_ensemble() {
        error.map_message(|message| format!("the member {}: {message}", member.name))
    } else {
        error
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.answered {
            self.count(Outcome::Canceled);
        }
    }
}

/// A named output that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// The classification extension: the `k` highest values as `value:index:label` strings instead of the tensor.
    pub classification: Option<usize>,
}

/// A tensor request (Open Inference Protocol). A BYTES input for an image model holds encoded pictures, shape `[N]`.
#[derive(Debug)]
pub struct InferRequest {
    /// Inputs by name.
    pub inputs: Vec<(String, Tensor)>,
    /// The outputs wanted, in this order; empty for all.
    pub outputs: Vec<RequestedOutput>,
    /// `top_k`: asks every output without a `classification` of its own for one of this size.
    pub top_k: Option<usize>,
}

/// The answer to an [`InferRequest`].
#[derive(Debug)]
pub struct InferResponse {
    /// Outputs by name, in the order asked for.
    pub outputs: Vec<(String, Tensor)>,
    /// Where the time went.
    pub timing: Timing,
}

/// How many classes a client gets for each picture that does not say.
pub const DEFAULT_TOP_K: usize = 5;

/// Pictures to classify.
#[derive(Debug)]
pub struct ClassifyRequest {
    /// Encoded pictures (JPEG, PNG, …).
    pub pictures: Vec<Bytes>,
    /// How many classes to return for each picture: at least 1; more than there are means all.
    pub top_k: usize,
    /// Whether the classes of each side branch are wanted, too.
    pub aux: bool,
}

/// The answer to a [`ClassifyRequest`].
#[derive(Debug)]
pub struct Classification {
    /// One for each picture, in order.
    pub predictions: Vec<Prediction>,
    /// Where the time went.
    pub timing: Timing,
}

/// What is on one picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prediction {
    /// The most probable classes, the most probable first.
    pub classes: Vec<Class>,
    /// The same of each side branch, by the output's name in the graph's order; empty unless asked for.
    pub branches: Vec<(String, Vec<Class>)>,
}

/// Where a request's time went. With several pictures, the longest of each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Decoding and preprocessing.
    pub decode: Duration,
    /// Waiting for an instance.
    pub queue: Duration,
    /// How many rows the batch had that the request ran in (the largest, of several).
    pub batch_size: usize,
    /// The run itself.
    pub compute: Duration,
    /// From the request's arrival to its answer.
    pub total: Duration,
}
