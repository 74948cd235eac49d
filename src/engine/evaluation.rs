//! A session of a graph that was made in memory: any inputs, any outputs, on the CPU, for work beside the serving of a model.

use std::fmt::Debug;

use ort::session::builder::GraphOptimizationLevel;
use ort::session::{SessionInputValue, SessionOutputs};
use ort::value::{DynValue, PrimitiveTensorElementType, ValueType};

use super::session::{data_type, to_tensor};
use super::{Runtime, failed};
use crate::error::{Error, Result};
use crate::onnx::{ModelProto, write_model};
use crate::tensor::{DataType, Element, Tensor};

/// A graph that is evaluated now and then, by one caller at a time. One thread runs it.
pub struct Evaluation {
    inner: ort::session::Session,
}

impl Debug for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evaluation").finish_non_exhaustive()
    }
}

impl Evaluation {
    /// Makes a session of `model`. With `optimize` the graph is rewritten to run faster, which changes the last bits of what it
    /// computes.
    ///
    /// # Errors
    /// `Internal` with ONNX Runtime's own reason as the source.
    pub fn new(runtime: &Runtime, model: ModelProto, optimize: bool) -> Result<Self> {
        let message = "a graph cannot be evaluated";
        let mut bytes = Vec::new();
        write_model(model, &mut bytes).map_err(|error| Error::internal(message).with_source(error))?;
        let level = if optimize { GraphOptimizationLevel::All } else { GraphOptimizationLevel::Disable };
        let builder = ort::session::Session::builder(runtime.environment()).map_err(|error| failed(message, &error))?;
        #[expect(
            clippy::result_large_err,
            reason = "the builder that `ort` returns with its error is dropped right here"
        )]
        let configured = (|| {
            builder
                .with_optimization_level(level)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .with_inter_op_spinning(false)
        })();
        let mut builder = configured.map_err(|error: ort::Error<_>| failed(message, &error))?;
        let inner = builder.commit_from_memory(&bytes).map_err(|error| failed(message, &error))?;
        Ok(Self { inner })
    }

    /// Runs the graph on its inputs, in the graph's order, and returns its outputs in the graph's order.
    ///
    /// # Errors
    /// `Internal` when the run fails, with ONNX Runtime's own reason as the source.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let tensor = |(name, value): (&str, ort::value::ValueRef<'_>)| {
            let ValueType::Tensor { ty, .. } = value.dtype() else {
                return Err(Error::internal(format!("{name} is not a tensor")));
            };
            to_tensor(&value, data_type(*ty, name)?)
        };
        self.outputs(inputs)?.iter().map(tensor).collect()
    }

    /// Runs the graph, and returns the shapes of its outputs, in the graph's order; `None` of what is no tensor.
    ///
    /// # Errors
    /// As [`Evaluation::run`].
    pub fn shapes(&mut self, inputs: &[Tensor]) -> Result<Vec<Option<Vec<usize>>>> {
        let shape = |(_, value): (&str, ort::value::ValueRef<'_>)| match value.dtype() {
            ValueType::Tensor { shape, .. } => shape.iter().map(|&dimension| usize::try_from(dimension).ok()).collect(),
            _ => None,
        };
        Ok(self.outputs(inputs)?.iter().map(shape).collect())
    }

    fn outputs(&mut self, inputs: &[Tensor]) -> Result<SessionOutputs<'_>> {
        let values = inputs.iter().map(to_value).collect::<Result<Vec<_>>>()?;
        let values: Vec<SessionInputValue<'_>> = values.iter().map(SessionInputValue::from).collect();
        self.inner.run(values.as_slice()).map_err(|error| failed("the evaluation of a graph failed", &error))
    }
}

fn to_value(tensor: &Tensor) -> Result<DynValue> {
    fn value<T>(tensor: &Tensor) -> Result<DynValue>
    where
        T: Element + PrimitiveTensorElementType + Debug,
    {
        let shape: Vec<i64> = tensor.shape().iter().map(|&dimension| dimension as i64).collect();
        let value = ort::value::Tensor::from_array((shape, tensor.to_slice::<T>()?.into_owned()));
        Ok(value.map_err(|error| failed("a tensor cannot be given to ONNX Runtime", &error))?.into_dyn())
    }
    match tensor.data_type() {
        DataType::Fp32 => value::<f32>(tensor),
        DataType::Fp16 => value::<half::f16>(tensor),
        DataType::Int64 => value::<i64>(tensor),
        DataType::Uint8 => value::<u8>(tensor),
        other => Err(Error::internal(format!("an input of {other} is not supported"))),
    }
}
