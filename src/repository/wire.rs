//! The shapes in which clients see a model's tensors, where Triton's configuration says others than the graph has.
//!
//! Triton can show a graph of `[1, 3, 224, 224]` as one of `[3, 224, 224]`, and its answer of `[1, 1000, 1, 1]` as `[1000]`. Only the
//! shape changes; the elements and their order are the same.

use crate::error::Result;
use crate::tensor::{Tensor, TensorSpec};
use crate::triton;
use crate::triton::proto::ModelTensorReshape;

/// How clients see a model's tensors.
#[derive(Debug)]
pub(super) struct Wire {
    /// Whether the shapes of [`Reshape`] are a row's; else they are the whole tensor's.
    is_batched: bool,
    pub(super) input: TensorSpec,
    pub(super) outputs: Vec<TensorSpec>,
    reshaped_input: Option<Reshape>,
    reshaped_outputs: Vec<Option<Reshape>>,
}

/// Two shapes of as many elements.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reshape {
    client: Vec<usize>,
    graph: Vec<usize>,
}

impl Reshape {
    /// `None` where both are the same.
    fn read(field: &str, dims: &[i64], reshape: Option<&ModelTensorReshape>) -> Result<Option<Self>, String> {
        let Some(reshape) = reshape.filter(|reshape| reshape.shape != dims) else { return Ok(None) };
        let fixed = |shape: &[i64]| shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>();
        let (Some(client), Some(graph)) = (fixed(dims), fixed(&reshape.shape)) else {
            return Err(format!(
                "{field}.reshape: is not supported where a dimension is open: {dims:?}, {:?}",
                reshape.shape
            ));
        };
        let elements = |shape: &[usize]| shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if elements(&client).is_none() || elements(&client) != elements(&graph) {
            return Err(format!("{field}.reshape: {graph:?} has not as many elements as {client:?}"));
        }
        Ok(Some(Self { client, graph }))
    }
}

impl Wire {
    /// How the configuration `read` shows a graph of these tensors, against which it has been checked.
    ///
    /// # Errors
    /// What cannot be shown so, beginning with the field.
    pub(super) fn new(read: &triton::ModelConfig, input: &TensorSpec, outputs: &[TensorSpec]) -> Result<Self, String> {
        let is_batched = read.max_batch_size > 0;
        let seen = |spec: &TensorSpec, dims: &[i64]| {
            let batch = spec.shape.first().copied().filter(|_| is_batched);
            TensorSpec { shape: batch.into_iter().chain(dims.iter().copied()).collect(), ..spec.clone() }
        };
        let mut wire = Self {
            is_batched,
            input: input.clone(),
            outputs: outputs.to_vec(),
            reshaped_input: None,
            reshaped_outputs: vec![None; outputs.len()],
        };
        if let Some(named) = read.input.first() {
            wire.input = seen(input, &named.dims);
            wire.reshaped_input = Reshape::read("input", &named.dims, named.reshape.as_ref())?;
        }
        for (index, spec) in outputs.iter().enumerate() {
            if let Some(output) = read.output.iter().find(|output| output.name == spec.name) {
                wire.outputs[index] = seen(spec, &output.dims);
                wire.reshaped_outputs[index] = Reshape::read("output", &output.dims, output.reshape.as_ref())?;
            }
        }
        Ok(wire)
    }

    pub(super) fn reshapes_input(&self) -> bool {
        self.reshaped_input.is_some()
    }

    /// Whether `shape` is an input's as clients see it. Rows that are not reshaped may be of any number.
    pub(super) fn fits(&self, shape: &[usize]) -> bool {
        let free = usize::from(self.is_batched || self.reshaped_input.is_none());
        self.input.takes(shape, free)
    }

    /// An input that [fits](Self::fits), in the graph's shape.
    pub(super) fn to_graph(&self, input: Tensor) -> Result<Tensor> {
        match &self.reshaped_input {
            None => Ok(input),
            Some(reshape) => {
                let rows = input.shape().first().copied().filter(|_| self.is_batched);
                input.reshape(rows.into_iter().chain(reshape.graph.iter().copied()).collect())
            }
        }
    }

    /// Output number `index` of the graph, of any number of rows, as clients see it. A classification of it has lost its dimensions
    /// but for the rows, which an answer without a batch dimension does not have.
    pub(super) fn to_client(&self, index: usize, is_classification: bool, output: Tensor) -> Result<Tensor> {
        let Some(reshape) = &self.reshaped_outputs[index] else { return Ok(output) };
        let shape: Vec<usize> = match output.shape().split_first() {
            Some((1, row)) if is_classification && !self.is_batched => row.to_vec(),
            _ if is_classification => return Ok(output),
            Some((&rows, _)) if self.is_batched => {
                std::iter::once(rows).chain(reshape.client.iter().copied()).collect()
            }
            _ if output.len() == reshape.client.iter().product::<usize>() => reshape.client.clone(),
            _ => return Ok(output),
        };
        output.reshape(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn wire(text: &str, input: &[i64], output: &[i64]) -> Result<Wire, String> {
        let spec = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            data_type: DataType::Fp32,
            shape: shape.into(),
        };
        Wire::new(&triton::parse_text(text).unwrap(), &spec("x", input), &[spec("y", output)])
    }

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::zeros(DataType::Fp32, shape.to_vec()).unwrap()
    }

    #[test]
    fn a_graph_of_one_row_is_seen_without_it() {
        let text = "input { name: 'x' dims: [3, 4, 4] reshape { shape: [1, 3, 4, 4] } }
            output { name: 'y' dims: 5 reshape { shape: [1, 5, 1, 1] } }";
        let wire = wire(text, &[1, 3, 4, 4], &[1, 5, 1, 1]).unwrap();
        assert_eq!((&*wire.input.shape, &*wire.outputs[0].shape), (&[3, 4, 4][..], &[5][..]));
        assert!(wire.fits(&[3, 4, 4]) && !wire.fits(&[1, 3, 4, 4]) && !wire.fits(&[1, 4, 4]) && !wire.fits(&[]));
        assert_eq!(wire.to_graph(zeros(&[3, 4, 4])).unwrap().shape(), [1, 3, 4, 4]);
        assert_eq!(wire.to_client(0, false, zeros(&[1, 5, 1, 1])).unwrap().shape(), [5]);
        assert_eq!(wire.to_client(0, true, zeros(&[1, 2])).unwrap().shape(), [2]);
        // Several pictures are more than the configuration has a shape for.
        assert_eq!(wire.to_client(0, false, zeros(&[2, 5, 1, 1])).unwrap().shape(), [2, 5, 1, 1]);
        assert_eq!(wire.to_client(0, true, zeros(&[2, 2])).unwrap().shape(), [2, 2]);
    }

    #[test]
    fn rows_of_a_batch_are_seen_in_another_shape() {
        let text = "max_batch_size: 4 input { name: 'x' dims: 48 reshape { shape: [3, 4, 4] } }
            output { name: 'y' dims: 5 reshape { shape: [5, 1, 1] } }";
        let wire = wire(text, &[-1, 3, 4, 4], &[-1, 5, 1, 1]).unwrap();
        assert_eq!((&*wire.input.shape, &*wire.outputs[0].shape), (&[-1, 48][..], &[-1, 5][..]));
        assert!(wire.fits(&[7, 48]) && !wire.fits(&[7, 3, 4, 4]) && !wire.fits(&[7, 47]));
        assert_eq!(wire.to_graph(zeros(&[7, 48])).unwrap().shape(), [7, 3, 4, 4]);
        assert_eq!(wire.to_client(0, false, zeros(&[7, 5, 1, 1])).unwrap().shape(), [7, 5]);
        assert_eq!(wire.to_client(0, true, zeros(&[1, 2])).unwrap().shape(), [1, 2]);
    }

    #[test]
    fn dimensions_may_be_narrower_than_the_graphs() {
        let wire = wire("max_batch_size: 4 input { name: 'x' dims: [3, 4, 4] }", &[-1, 3, -1, -1], &[-1, 5]).unwrap();
        assert_eq!(wire.input.shape, [-1, 3, 4, 4]);
        assert!(wire.fits(&[2, 3, 4, 4]) && !wire.fits(&[2, 3, 5, 4]));
    }

    #[test]
    fn what_does_not_hold_the_same_elements_is_refused() {
        for (text, said) in [
            ("input { name: 'x' dims: [3, 4, 5] reshape { shape: [1, 3, 4, 4] } }", "as many elements"),
            ("input { name: 'x' dims: [3, -1, 4] reshape { shape: [1, 3, -1, 4] } }", "open"),
            ("output { name: 'y' dims: [9223372036854775807, 4] reshape { shape: [1] } }", "as many elements"),
        ] {
            let error = wire(text, &[1, 3, 4, 4], &[1, 5]).unwrap_err();
            assert!(error.contains(said) && error.contains("reshape"), "{error}");
        }
    }
}
