//! The one facade that every protocol calls: it resolves a model, admits a request, prepares its pictures, has it run, and
//! turns logits into classes.
//!
//! It knows nothing of HTTP or gRPC: the handlers translate their wire forms into the requests below and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::Result;
use crate::repository::{IndexEntry, Model, Repository};
use crate::tensor::Tensor;

/// Sizes over which a request is refused. Each is checked before memory of that size is taken.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most pictures in one request.
    pub max_pictures: usize,
    /// The most bytes of one decoded input tensor.
    pub max_tensor_bytes: usize,
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
    /// The time from `received` after which the answer is of no use; `None` takes the model's default.
    pub timeout: Option<Duration>,
}

/// Proof that a request may use a model: it holds the model's version through a reload, and one place in its bounded queue.
/// Dropping it gives the place back.
#[derive(Debug)]
pub struct Admission {
    model: Arc<Model>,
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
    /// Protocol, arrival, priority and timeout.
    pub context: RequestContext,
}

/// The answer to an [`InferRequest`].
#[derive(Debug)]
pub struct InferResponse {
    /// Outputs by name, in the order asked for.
    pub outputs: Vec<(String, Tensor)>,
    /// Where the time went.
    pub timing: Timing,
}

/// Pictures to classify.
#[derive(Debug)]
pub struct ClassifyRequest {
    /// Encoded pictures (JPEG, PNG, …).
    pub pictures: Vec<Bytes>,
    /// How many classes to return for each picture: at least 1; more than there are means all.
    pub top_k: usize,
    /// Protocol, arrival, priority and timeout.
    pub context: RequestContext,
}

/// The answer to a [`ClassifyRequest`].
#[derive(Debug)]
pub struct Classification {
    /// One list of classes for each picture, in order.
    pub predictions: Vec<Vec<Class>>,
    /// Where the time went.
    pub timing: Timing,
}

/// One class of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// The index in the model's output.
    pub index: usize,
    /// The label, where the model has labels.
    pub label: Option<Arc<str>>,
    /// The softmax probability.
    pub score: f32,
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

/// The facade. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inference {
    repository: Arc<Repository>,
}

impl Inference {
    /// The model called `name`, in `version` or, without one, the version that its policy serves by default (the highest).
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version, `Unavailable` where it is known but not ready.
    pub fn model(&self, name: &str, version: Option<u64>) -> Result<Arc<Model>> {
        unimplemented!("{name} {version:?} {:?}", self.repository)
    }

    /// The model that `/v1/classify` uses: the configured one, or the only one there is.
    ///
    /// # Errors
    /// `InvalidArgument` when there are several and none is configured; else as [`Inference::model`].
    pub fn default_model(&self) -> Result<Arc<Model>> {
        unimplemented!()
    }

    /// Takes a place in the model's bounded queue. Nothing expensive (parsing, decoding) should happen before this.
    ///
    /// # Errors
    /// `Overloaded` at once when every place is taken; `Unavailable` while the server drains.
    pub fn admit(&self, model: Arc<Model>) -> Result<Admission> {
        unimplemented!("{model:?}")
    }

    /// Runs tensors (or encoded pictures in a BYTES tensor).
    ///
    /// # Errors
    /// `InvalidArgument` for tensors or outputs that the model does not have, `Overloaded`, `DeadlineExceeded`, `Internal`.
    #[expect(clippy::unused_async)]
    pub async fn infer(&self, admission: Admission, request: InferRequest) -> Result<InferResponse> {
        unimplemented!("{admission:?} {request:?}")
    }

    /// Classifies pictures.
    ///
    /// # Errors
    /// As [`Inference::infer`], and `UnsupportedMedia` or `PayloadTooLarge` for what is not a picture or too large a one.
    #[expect(clippy::unused_async)]
    pub async fn classify(&self, admission: Admission, request: ClassifyRequest) -> Result<Classification> {
        unimplemented!("{admission:?} {request:?}")
    }

    /// Every model and version that the repository holds, with its state; only ready ones with `ready_only`.
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        unimplemented!("{ready_only}")
    }

    /// Every version that is ready, of one model or of all: what statistics and listings walk.
    pub fn ready_models(&self) -> Vec<Arc<Model>> {
        unimplemented!()
    }

    /// Whether the server should get traffic: models loaded, not draining.
    pub fn is_ready(&self) -> bool {
        unimplemented!()
    }

    /// The limits that handlers check before they parse.
    pub fn limits(&self) -> &Limits {
        unimplemented!()
    }
}

impl Admission {
    /// The model admitted to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}
