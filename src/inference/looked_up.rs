//! What of a request need not be run: each picture, or piece of a tensor, is looked up in the response cache of every graph that
//! would run it.
//!
//! What is kept is a graph's answer to one picture or piece, all of its outputs. So it serves whatever is asked for, classes or
//! tensors of any of the outputs, and the model alone as well as every ensemble that it is a member of.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::request::{Admission, Part};
use crate::error::{Error, Result};
use crate::response_cache::Digest;
use crate::scheduler::Answer;
use crate::tensor::Tensor;

/// How many bytes are hashed at once on a thread that serves other requests too: a tenth of a millisecond's work, or one where
/// the processor has no instructions for it.
const INLINE_BYTES: usize = 256 << 10;

/// What a digest can be made of.
pub(super) trait Input: Clone + Send + 'static {
    /// How many bytes there are to hash.
    fn size(&self) -> usize;

    fn digest(&self) -> Digest;
}

/// An encoded picture.
impl Input for Bytes {
    fn size(&self) -> usize {
        self.len()
    }

    fn digest(&self) -> Digest {
        Digest::of_picture(self)
    }
}

/// Rows of a tensor that are run together.
impl Input for Tensor {
    fn size(&self) -> usize {
        self.bytes().len()
    }

    fn digest(&self) -> Digest {
        Digest::of_tensor(self)
    }
}

/// An input, and the answers to it that were kept.
#[derive(Debug)]
pub(super) struct LookedUp<T> {
    input: T,
    /// Where any of the request's parts keeps answers.
    digest: Option<Digest>,
    /// For each of the request's parts; empty where none keeps answers.
    answers: Vec<Option<Answer>>,
}

/// Looks up every input in the cache of every part of the request.
///
/// # Errors
/// `DeadlineExceeded` when there is an answer, but for no use any more.
pub(super) async fn look_up<T: Input>(admission: &Admission, inputs: Vec<T>) -> Result<Vec<LookedUp<T>>> {
    let parts = admission.parts();
    if parts.iter().all(|part| part.graph().cache().is_none()) {
        return Ok(inputs.into_iter().map(|input| LookedUp { input, digest: None, answers: Vec::new() }).collect());
    }
    let hashed = hash(inputs).await?;
    let looked_up: Vec<LookedUp<T>> = hashed
        .into_iter()
        .map(|(input, digest, took)| {
            let answers = parts.iter().map(|part| find(part, digest, took)).collect();
            LookedUp { input, digest: Some(digest), answers }
        })
        .collect();
    let deadline = admission.context().deadline(admission.model());
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) && looked_up.iter().any(LookedUp::is_answered) {
        return Err(Error::deadline_exceeded("the request's deadline passed before it was answered"));
    }
    Ok(looked_up)
}

/// The inputs with their digests, and how long each of these took.
async fn hash<T: Input>(inputs: Vec<T>) -> Result<Vec<(T, Digest, Duration)>> {
    let bytes: usize = inputs.iter().map(Input::size).sum();
    let hash = move || {
        let hash = |input: T| {
            let started = Instant::now();
            let digest = input.digest();
            (input, digest, started.elapsed())
        };
        inputs.into_iter().map(hash).collect()
    };
    if bytes <= INLINE_BYTES {
        return Ok(hash());
    }
    tokio::task::spawn_blocking(hash)
        .await
        .map_err(|failure| Error::internal("the request could not be hashed").with_source(failure))
}

/// The answer that the part has kept. Every part counts the digest's time, as each needs it.
fn find(part: &Part, digest: Digest, hashed: Duration) -> Option<Answer> {
    let started = Instant::now();
    let outputs = part.graph().cache()?.get(digest);
    part.graph().scheduler().record_lookup(outputs.is_some(), hashed + started.elapsed());
    // It has neither waited nor run, in a batch of any size.
    let answer = |outputs| Answer { outputs, queue: Duration::ZERO, compute: Duration::ZERO, batch_size: 0 };
    outputs.map(answer)
}

impl<T> LookedUp<T> {
    /// What was looked up.
    pub(super) fn input(&self) -> &T {
        &self.input
    }

    /// Whether the part with this index has to run it.
    pub(super) fn is_missing(&self, part: usize) -> bool {
        self.answers.get(part).is_none_or(Option::is_none)
    }

    /// Whether any part need not run it.
    fn is_answered(&self) -> bool {
        self.answers.iter().any(Option::is_some)
    }

    /// The parts that have to run it, with their indices.
    pub(super) fn missing<'a>(&self, parts: &'a [Part]) -> impl Iterator<Item = (usize, &'a Part)> {
        parts.iter().enumerate().filter(|(index, _)| self.is_missing(*index))
    }

    /// Keeps the answer of a part that had to run it.
    pub(super) fn keep(&self, part: &Part, answer: &Answer) {
        if let Some(digest) = self.digest
            && let Some(cache) = part.graph().cache()
        {
            let started = Instant::now();
            cache.insert(digest, &answer.outputs);
            part.graph().scheduler().record_insertion(started.elapsed());
        }
    }

    /// The answers of all parts, in their order, with those that had to be `run`, by the part's index.
    pub(super) fn complete(
        mut self,
        parts: &[Part],
        run: impl IntoIterator<Item = (usize, Answer)>,
    ) -> Vec<(&Part, Answer)> {
        self.answers.resize_with(parts.len(), || None);
        for (index, answer) in run {
            self.answers[index] = Some(answer);
        }
        // Always in this order, on which the last bit of an average depends.
        parts.iter().zip(self.answers).filter_map(|(part, answer)| Some((part, answer?))).collect()
    }
}
