//! Weights by name: read from a checkpoint file, or made from a seed.
//!
//! A checkpoint is read as data and nothing else: no file can make this module run code, panic, or allocate much more than
//! its own size. Nothing here knows which tensors an architecture wants.

mod archive;
mod checkpoint;
mod opcode;
mod pickle;
mod pytorch;
pub mod random;
mod records;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

pub use checkpoint::{Checkpoint, WeightTensor, WeightType};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Where weights come from, as the command line says it: a file, or `random:SEED`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A `.safetensors` file or a PyTorch checkpoint.
    File(PathBuf),
    /// Untrained values made from this seed by [`random::values`].
    Random(u64),
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("random:") {
            Some(seed) => seed.parse().map(Self::Random).map_err(|error| {
                Error::invalid(format!("random: takes a whole number as its seed, not {seed:?}")).with_source(error)
            }),
            None => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

/// The values that an architecture's graph is filled with.
#[derive(Debug)]
pub struct Weights {
    source: Source,
    origin: String,
}

#[derive(Debug)]
enum Source {
    Checkpoint(Checkpoint),
    Random(u64),
}

impl Weights {
    /// Reads the weights, or takes the seed, that `origin` names.
    ///
    /// # Errors
    /// Those of [`Checkpoint::read`].
    pub fn open(origin: &Origin) -> Result<Self> {
        Ok(match origin {
            Origin::Random(seed) => Self::random(*seed),
            Origin::File(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                Self::from_checkpoint(Checkpoint::read(path)?, name)
            }
        })
    }

    /// Untrained weights, see [`random`].
    pub fn random(seed: u64) -> Self {
        Self { source: Source::Random(seed), origin: format!("random:{seed} (untrained)") }
    }

    /// The weights of `checkpoint`. The model's metadata will say that they are from `origin`.
    pub fn from_checkpoint(checkpoint: Checkpoint, origin: impl Into<String>) -> Self {
        Self { source: Source::Checkpoint(checkpoint), origin: origin.into() }
    }

    /// Where they are from, in words.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether they are made from a seed.
    pub fn is_untrained(&self) -> bool {
        matches!(self.source, Source::Random(_))
    }

    /// The first dimension of the tensor `key`, `None` where the weights don't fix it.
    pub(super) fn rows(&self, key: &str) -> Option<usize> {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.get(key)?.shape().first().copied().filter(|&rows| rows > 0),
            Source::Random(_) => None,
        }
    }

    /// Checks that a checkpoint has the tensors that `expected` names, each in its shape, and no others than `known` names. The
    /// counters `num_batches_tracked` of batch norms are only of use in training, and may be there or not.
    ///
    /// # Errors
    /// `InvalidArgument` that names the first tensor which is missing, has another shape, or is too many.
    pub(super) fn check(
        &self,
        expected: &BTreeMap<String, Vec<usize>>,
        known: &BTreeMap<String, Vec<usize>>,
    ) -> Result<()> {
        let Source::Checkpoint(checkpoint) = &self.source else { return Ok(()) };
        let mismatches = expected.iter().filter_map(|(key, shape)| match checkpoint.get(key) {
            None => Some(format!("the tensor {key} is missing, which the architecture takes with the shape {shape:?}")),
            Some(tensor) if tensor.shape() != shape => Some(format!(
                "the tensor {key} has the shape {:?}, where the architecture takes {shape:?}",
                tensor.shape()
            )),
            Some(_) => None,
        });
        let unknown = checkpoint
            .iter()
            .filter(|(key, _)| !key.ends_with(".num_batches_tracked") && !known.contains_key(*key))
            .map(|(key, tensor)| {
                format!("the architecture has no tensor {key}, which is here with the shape {:?}", tensor.shape())
            });
        let mut problems = mismatches.chain(unknown);
        let Some(first) = problems.next() else { return Ok(()) };
        let more = match problems.count() {
            0 => String::new(),
            more => format!(" (and {more} more tensors do not fit)"),
        };
        Err(Error::invalid(format!("{} does not fit the architecture: {first}{more}", self.origin)))
    }

    /// The tensor `key` of `shape` in FP32.
    ///
    /// # Errors
    /// `InvalidArgument` when a checkpoint lacks the tensor, has it in another shape, or with integers or values in it that no
    /// trained network has: a network with these would answer nothing but NaN.
    pub(super) fn tensor(&self, key: &str, shape: &[usize]) -> Result<Tensor> {
        match &self.source {
            Source::Random(seed) => Tensor::from_vec(shape.to_vec(), random::values(*seed, key, shape)),
            Source::Checkpoint(checkpoint) => {
                let tensor = checkpoint
                    .get(key)
                    .filter(|tensor| tensor.shape() == shape)
                    .ok_or_else(|| Error::invalid(format!("{} has no tensor {key} of shape {shape:?}", self.origin)))?
                    .to_fp32(key)?;
                let allowed = if key.ends_with(".running_var") { 0.0..=f32::MAX } else { f32::MIN..=f32::MAX };
                let mut values = tensor.bytes().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
                match values.find(|value| !allowed.contains(value)) {
                    Some(value) => Err(Error::invalid(format!("the tensor {key} of {} holds {value}", self.origin))),
                    None => Ok(tensor),
                }
            }
        }
    }
}
