//! A session: one instance's own handle on a graph, which runs one batch at a time.

use std::time::Instant;

use ort::logging::LogLevel;
use ort::session::RunOptions;
use ort::value::{Shape, TensorElementType, TensorRef, ValueType};

use super::failed;
use crate::error::{Error, Result};
use crate::telemetry::BatchTimes;
use crate::tensor::{DataType, Element, Tensor, TensorSpec};

/// A session of ONNX Runtime's with one input. Each instance owns one; it is never shared between threads.
pub struct Session {
    inner: ort::session::Session,
    options: RunOptions,
    input: TensorSpec,
    outputs: Vec<TensorSpec>,
    /// The batch that is being put together, kept between runs so that a batch costs no page faults.
    batch: Vec<u64>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("input", &self.input).field("outputs", &self.outputs).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(session: ort::session::Session) -> Result<Self> {
        let [input] = session.inputs() else {
            let names: Vec<_> = session.inputs().iter().map(ort::value::Outlet::name).collect();
            return Err(Error::invalid(format!(
                "an image classifier has one input, but the graph has {}: {}",
                names.len(),
                names.join(", ")
            )));
        };
        let input = spec(input)?;
        let outputs = session.outputs().iter().map(spec).collect::<Result<Vec<_>>>()?;
        // A run that fails says so to its caller: ONNX Runtime's own line of the log would be the second of one failure.
        let mut options = RunOptions::new().map_err(|error| failed("a session cannot be set up", &error))?;
        options.set_log_level(LogLevel::Fatal).map_err(|error| failed("a session cannot be set up", &error))?;
        Ok(Self { inner: session, options, input, outputs, batch: Vec::new() })
    }

    /// The graph's input.
    pub fn input(&self) -> &TensorSpec {
        &self.input
    }

    /// The graph's outputs, in the graph's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Puts `parts` together along the first dimension, fills up with zero rows to `rows`, and runs that batch.
    ///
    /// The parts agree in data type and in all dimensions but the first. The outputs come in the graph's order, `rows` rows
    /// each, with the time that each step took.
    ///
    /// # Errors
    /// `Internal` when the run fails, with ONNX Runtime's reason as the source.
    pub fn run(&mut self, parts: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)> {
        match self.input.data_type {
            DataType::Fp32 => self.run_as::<f32>(parts, rows),
            DataType::Fp16 => self.run_as::<half::f16>(parts, rows),
            DataType::Uint8 => self.run_as::<u8>(parts, rows),
            other => Err(Error::internal(format!("an input of {other} is not supported"))),
        }
    }

    fn run_as<T>(&mut self, parts: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)>
    where
        T: Element + ort::value::PrimitiveTensorElementType + std::fmt::Debug,
    {
        let started = Instant::now();
        let Some(first) = parts.first() else {
            return Err(Error::internal("a batch without rows cannot be run"));
        };
        let mut shape: Vec<i64> = first.shape().iter().map(|&dimension| dimension as i64).collect();
        shape[0] = rows as i64;
        let whole;
        let values: &[T] = if parts.len() == 1 && first.shape()[0] == rows {
            whole = first.to_slice::<T>()?;
            &whole
        } else {
            let row_elements = first.len().checked_div(first.shape()[0]).unwrap_or(0);
            assemble::<T>(&mut self.batch, parts, rows * row_elements)
        };
        let input = TensorRef::from_array_view((shape, values))
            .map_err(|error| failed("the batch cannot be given to ONNX Runtime", &error))?;
        let assembled = Instant::now();
        let inputs = ort::inputs![input];
        let outputs = self
            .inner
            .run_with_options(inputs, &self.options)
            .map_err(|error| failed("the model's run failed", &error))?;
        let ran = Instant::now();
        let mut tensors = Vec::with_capacity(self.outputs.len());
        for spec in &self.outputs {
            let value = outputs
                .get(&spec.name)
                .ok_or_else(|| Error::internal(format!("the run gave no output called {}", spec.name)))?;
            tensors.push(to_tensor(value, spec.data_type)?);
        }
        let times = BatchTimes { input: assembled - started, infer: ran - assembled, output: ran.elapsed() };
        Ok((tensors, times))
    }
}

/// Copies the parts into `buffer` one after the other and returns its first `elements` elements, zero past the parts.
fn assemble<'b, T: Element>(buffer: &'b mut Vec<u64>, parts: &[Tensor], elements: usize) -> &'b [T] {
    let bytes = elements * size_of::<T>();
    let words = bytes.div_ceil(size_of::<u64>());
    if buffer.len() < words {
        buffer.resize(words, 0);
    }
    let target = &mut bytemuck::cast_slice_mut::<u64, u8>(buffer)[..bytes];
    let mut offset = 0;
    for part in parts {
        target[offset..offset + part.bytes().len()].copy_from_slice(part.bytes());
        offset += part.bytes().len();
    }
    target[offset..].fill(0);
    bytemuck::cast_slice(target)
}

/// The tensor in `value`, whose elements are of `data_type`.
pub(super) fn to_tensor(value: &ort::value::DynValue, data_type: DataType) -> Result<Tensor> {
    fn copy<T: Element + ort::value::PrimitiveTensorElementType>(value: &ort::value::DynValue) -> Result<Tensor> {
        let (shape, values) =
            value.try_extract_tensor::<T>().map_err(|error| failed("an output cannot be read", &error))?;
        Tensor::from_vec(shape.iter().map(|&dimension| dimension as usize).collect(), values.to_vec())
    }
    match data_type {
        DataType::Fp32 => copy::<f32>(value),
        DataType::Fp16 => copy::<half::f16>(value),
        DataType::Fp64 => copy::<f64>(value),
        DataType::Int64 => copy::<i64>(value),
        DataType::Int32 => copy::<i32>(value),
        DataType::Int8 => copy::<i8>(value),
        DataType::Uint8 => copy::<u8>(value),
        other => Err(Error::internal(format!("an output of {other} is not supported"))),
    }
}

fn spec(outlet: &ort::value::Outlet) -> Result<TensorSpec> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(Error::invalid(format!("{} is not a tensor", outlet.name())));
    };
    Ok(TensorSpec {
        name: outlet.name().to_owned(),
        data_type: data_type(*ty, outlet.name())?,
        shape: dimensions(shape),
    })
}

fn dimensions(shape: &Shape) -> Vec<i64> {
    shape.iter().map(|&dimension| dimension.max(-1)).collect()
}

/// The data type of `element`; `name` is whose it is.
pub(super) fn data_type(element: TensorElementType, name: &str) -> Result<DataType> {
    Ok(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        other => return Err(Error::invalid(format!("{name} holds elements of {other:?}, which are not supported"))),
    })
}
