//! A model's graph up to some of its values, and the graph from one of them back to another.

use std::collections::HashMap;

use super::adjoint::{Adjoint, Rule};
use super::network::Network;
use crate::engine::{Evaluation, Runtime};
use crate::error::{Error, Result};
use crate::onnx::ModelProto;
use crate::postprocess::to_f32;
use crate::tensor::{DataType, Tensor};

/// The values of a forward run by name.
pub(super) type Values = HashMap<String, Tensor>;

/// The way back from [`Graphs::from`].
#[derive(Debug)]
struct Back {
    evaluation: Evaluation,
    saved: Vec<String>,
}

/// What a session keeps of memory for its next run, in sizes of the values between forward and back. Its arena grows by doubling.
/// docs/explanations.md has what was measured.
const ARENA_FACTOR: usize = 2;

/// What runs forward to some values, and back from one of them.
#[derive(Debug)]
pub(super) struct Graphs {
    /// The value that is looked at, and that the way back begins with.
    pub(super) from: String,
    /// What the layer makes of [`Graphs::from`], where that is what comes into its bounds.
    pub(super) bounded: Option<String>,
    /// The layer that a client is told of: where the way back ends, or what it begins with where that is the picture.
    pub(super) layer: String,
    /// The shape of `from`, batch dimension included.
    pub(super) shape: Vec<usize>,
    /// Where the way back ends.
    pub(super) to: String,
    /// The value of the logits, where it is among the outputs.
    pub(super) logits: Option<String>,
    /// Why the way is not linear, where that matters and is so.
    pub(super) nonlinear: Option<Error>,
    input: String,
    rows: usize,
    outputs: Vec<String>,
    forward: Evaluation,
    back: Option<Back>,
    bytes: usize,
}

/// What graphs are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) network: &'a Network,
    /// The value that is looked at.
    pub(super) from: &'a str,
    /// A further value, which is what a client knows `from` as.
    pub(super) bounded: Option<&'a str>,
    /// Where the way back ends, and what passes a rectifier on it; `None` where there is none.
    pub(super) back: Option<(&'a str, Rule)>,
    /// The value of the logits, where it is wanted.
    pub(super) logits: Option<&'a str>,
    /// Whether the graphs may be rewritten to run faster, where the numbers do not depend on it.
    pub(super) optimize: bool,
}

impl Graphs {
    /// Makes the graphs.
    ///
    /// # Errors
    /// Those of [`Adjoint::new`] and [`Evaluation::new`].
    pub(super) fn new(runtime: &Runtime, plan: Plan<'_>) -> Result<Self> {
        let Plan { network, from, bounded, back, logits, optimize } = plan;
        let adjoint = back.map(|(to, rule)| Adjoint::new(network, from, to, rule)).transpose()?;
        let to = back.map_or(from, |(to, _)| to);
        let saved = adjoint.as_ref().map_or(&[][..], |adjoint| &adjoint.saved);
        let mut outputs: Vec<String> = Vec::new();
        for name in [from, to].into_iter().chain(bounded).chain(logits).chain(saved.iter().map(String::as_str)) {
            if name != network.input() && !outputs.iter().any(|output| output == name) {
                outputs.push(name.to_owned());
            }
        }
        // Where a maximum lies can depend on the last bits, which an optimised graph changes.
        let has_switches = adjoint.as_ref().is_some_and(|adjoint| adjoint.has_switches);
        let optimize = optimize && !has_switches;
        let kept: usize =
            outputs.iter().map(|name| network.shape(name).map_or(0, |shape| 4 * shape.iter().product::<usize>())).sum();
        let model = network.extract(&outputs);
        let mut bytes = weight_bytes(&model) + ARENA_FACTOR * kept;
        let forward = Evaluation::new(runtime, model, optimize)?;
        let back = match adjoint {
            Some(Adjoint { model, saved, .. }) => {
                bytes += weight_bytes(&model) + ARENA_FACTOR * kept;
                Some(Back { evaluation: Evaluation::new(runtime, model, optimize)?, saved })
            }
            None => None,
        };
        let rows = network.shape(network.input())?.first().copied().unwrap_or(1);
        let shape = network.shape(from)?.to_vec();
        Ok(Self {
            from: from.to_owned(),
            bounded: bounded.map(str::to_owned),
            layer: network.layer_name(if to == network.input() { bounded.unwrap_or(from) } else { to }).to_owned(),
            shape,
            to: to.to_owned(),
            logits: logits.map(str::to_owned),
            nonlinear: None,
            input: network.input().to_owned(),
            rows,
            outputs,
            forward,
            back,
            bytes,
        })
    }

    /// The bytes of the weights, and about those that the sessions keep for their runs.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Runs forward from `row`, a picture's, `[1, …]`.
    ///
    /// # Errors
    /// `Internal` when the run fails.
    pub(super) fn forward(&mut self, row: &Tensor) -> Result<Values> {
        let mut shape = row.shape().to_vec();
        let mut bytes = row.bytes().clone();
        // A graph with a fixed batch gets the picture as its first row.
        if self.rows > 1 {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len() * self.rows, 0);
            (shape[0], bytes) = (self.rows, padded.into());
        }
        let input = Tensor::new(row.data_type(), shape, bytes)?;
        let outputs = self.forward.run(std::slice::from_ref(&input))?;
        let mut values: Values = self.outputs.iter().cloned().zip(outputs).collect();
        values.insert(self.input.clone(), input);
        Ok(values)
    }

    /// Takes `seed`, of the shape of [`Graphs::from`] in one row, back with the `values` of a forward run. Returns the row that
    /// comes back.
    ///
    /// # Errors
    /// `Internal` when the run fails.
    pub(super) fn back(&mut self, values: &Values, mut seed: Vec<f32>) -> Result<Vec<f32>> {
        let Some(back) = &mut self.back else {
            return Err(Error::internal("this graph does not run backwards"));
        };
        seed.resize(self.shape.iter().product(), 0.0);
        let mut inputs = vec![Tensor::from_vec(self.shape.clone(), seed)?];
        for name in &back.saved {
            let value = value(values, name)?;
            inputs.push(if value.data_type() == DataType::Int64 { value.clone() } else { in_f32(value)? });
        }
        let outputs = back.evaluation.run(&inputs)?;
        let output = outputs.first().ok_or_else(|| Error::internal("the run gave no value"))?;
        Ok(output.rows(0, 1).to_slice::<f32>()?.into_owned())
    }

    /// The first row of the value `name`.
    ///
    /// # Errors
    /// `Internal` when the run did not give it.
    pub(super) fn row(values: &Values, name: &str) -> Result<Vec<f32>> {
        Ok(in_f32(&value(values, name)?.rows(0, 1))?.to_slice::<f32>()?.into_owned())
    }

    /// The shape of the value `name`.
    ///
    /// # Errors
    /// `Internal` when the run did not give it.
    pub(super) fn shape_of<'v>(values: &'v Values, name: &str) -> Result<&'v [usize]> {
        Ok(value(values, name)?.shape())
    }
}

fn value<'v>(values: &'v Values, name: &str) -> Result<&'v Tensor> {
    values.get(name).ok_or_else(|| Error::internal(format!("the run gave no value {name}")))
}

/// The tensor in FP32.
fn in_f32(tensor: &Tensor) -> Result<Tensor> {
    let shape = tensor.shape().to_vec();
    match tensor.data_type() {
        DataType::Fp32 => Ok(tensor.clone()),
        DataType::Uint8 => Tensor::from_vec(shape, tensor.bytes().iter().map(|&value| f32::from(value)).collect()),
        _ => Tensor::from_vec(shape, to_f32(tensor)?.into_owned()),
    }
}

fn weight_bytes(model: &ModelProto) -> usize {
    let initializers = model.graph.iter().flat_map(|graph| &graph.initializer);
    initializers.map(|tensor| tensor.raw_data.len() + 4 * tensor.float_data.len()).sum()
}
