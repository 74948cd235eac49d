//! A [`Graph`] and its weights as an ONNX model: input `input` `[N, 3, H, W]`, output `logits` `[N, classes]`, both FP32, and
//! one output like `logits` for each side branch, where those are asked for.
//!
//! Batch norms are folded into the convolutions before them unless asked otherwise: the network computes the same up to
//! rounding, with fewer nodes.

use std::collections::BTreeMap;
use std::iter;
use std::ops::RangeInclusive;

use super::graph::{Graph, Layer, Lrn, Operation, Parameter, Pool, Value};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::onnx::proto::tensor_proto::DataType as OnnxType;
use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};
use crate::tensor::Tensor;

/// The versions of ONNX's operators that can be written. Before 11, `Clip` has its bounds as attributes; ONNX Runtime 1.20 knows
/// none after 21.
pub const OPSETS: RangeInclusive<i64> = 11..=21;
const INPUT: &str = "input";
const OUTPUT: &str = "logits";
/// The name of the open batch dimension.
const BATCH: &str = "N";

/// The bounds of [`Operation::Relu6`], which all its nodes share.
const RELU6_BOUNDS: [(&str, f32); 2] = [("relu6.min", 0.0), ("relu6.max", 6.0)];

/// How a graph is written as ONNX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Whether the side branches are outputs too. Otherwise they are left out.
    pub side_branches: bool,
    /// Whether batch norms stay nodes of their own. Otherwise they are folded into convolutions.
    pub keep_batch_norm: bool,
    /// The version of ONNX's operators, one of [`OPSETS`].
    pub opset: i64,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self { side_branches: false, keep_batch_norm: false, opset: 17 }
    }
}

impl Graph {
    /// The ONNX model of this graph with `weights`: FP32 `input` `[N, 3, H, W]` to FP32 `logits` `[N, classes]`, and the outputs
    /// of side branches under their names. `name` becomes the ONNX graph's.
    ///
    /// # Errors
    /// `InvalidArgument` when a tensor of the weights is missing, has another shape than the graph takes, or is not in the
    /// graph; the message names it. Weights may have those of the side branches or not when these are left out. Also when
    /// the graph has no side branches and they are asked for, or the operators' version cannot be written.
    pub fn to_onnx(&self, name: &str, weights: &Weights, options: OnnxOptions) -> Result<ModelProto> {
        let OnnxOptions { side_branches, keep_batch_norm, opset } = options;
        let Some(ir_version) = ir_version(opset) else {
            let (first, last) = OPSETS.into_inner();
            return Err(Error::invalid(format!("opset {opset} cannot be written, only {first} to {last}")));
        };
        if side_branches && self.side_branches().is_empty() {
            return Err(Error::invalid(format!("{name} has no side branches")));
        }
        let trunk;
        let graph = if side_branches {
            self
        } else {
            trunk = self.trunk();
            &trunk
        };
        weights.check(&graph.shapes(), &self.shapes())?;
        let mut emitter = Emitter { graph, weights, keep_batch_norm, names: vec![], onnx: GraphProto::default() };
        for (index, layer) in graph.layers().iter().enumerate() {
            emitter.layer(layer, Value::of_layer(index))?;
        }
        let mut model = emitter.finish(name)?;
        model.ir_version = ir_version;
        model.opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
        Ok(model)
    }

    /// The shapes of its parameters by key.
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.parameters().map(|parameter| (parameter.key, parameter.shape)).collect()
    }
}

/// The version of the file format that came with these operators, which whoever knows them can read.
fn ir_version(opset: i64) -> Option<i64> {
    match opset {
        11 => Some(6),
        12..=14 => Some(7),
        15..=18 => Some(8),
        19..=20 => Some(9),
        21 => Some(10),
        _ => None,
    }
}

struct Emitter<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    keep_batch_norm: bool,
    /// The name of each layer's output in the ONNX graph.
    names: Vec<String>,
    onnx: GraphProto,
}

impl<'a> Emitter<'a> {
    fn layer(&mut self, layer: &'a Layer, value: Value) -> Result<()> {
        let (attributes, parameters) = match &layer.operation {
            Operation::Conv(conv) => {
                let attributes = vec![
                    AttributeProto::ints("kernel_shape", conv.kernel),
                    AttributeProto::ints("pads", conv.pads()),
                    AttributeProto::ints("strides", [conv.stride; 2]),
                    AttributeProto::int("group", conv.groups as i64),
                ];
                let parameters = match self.folded_batch_norm(value) {
                    Some((batch_norm, epsilon)) => self.folded_parameters(layer, batch_norm, epsilon)?,
                    None => self.parameters(layer)?,
                };
                (attributes, parameters)
            }
            Operation::BatchNorm { .. } if self.folded_batch_norm(layer.inputs[0]).is_some() => {
                self.names.push(self.name(layer.inputs[0]).to_owned());
                return Ok(());
            }
            Operation::BatchNorm { epsilon } => {
                (vec![AttributeProto::float("epsilon", *epsilon)], self.parameters(layer)?)
            }
            Operation::Relu6 => (vec![], RELU6_BOUNDS.map(|(name, _)| name.to_owned()).to_vec()),
            Operation::MaxPool(pool) => (pool_attributes(*pool), vec![]),
            Operation::AveragePool(pool) => {
                let mut attributes = pool_attributes(*pool);
                attributes.push(AttributeProto::int("count_include_pad", 1));
                (attributes, vec![])
            }
            Operation::Lrn(lrn) => (lrn_attributes(*lrn), vec![]),
            // Axis 0 is the batch.
            Operation::Gather { axis, indices } => {
                (vec![AttributeProto::int("axis", *axis as i64 + 1)], vec![self.indices(layer, indices)?])
            }
            Operation::Concat | Operation::Flatten => (vec![AttributeProto::int("axis", 1)], vec![]),
            // The weights lie as [features, inputs].
            Operation::Linear => (vec![AttributeProto::int("transB", 1)], self.parameters(layer)?),
            Operation::Relu | Operation::GlobalAveragePool | Operation::Add => (vec![], vec![]),
        };
        let graph_output = self.graph_outputs().find(|(_, output)| *output == value).map(|(name, _)| name);
        let output = graph_output.unwrap_or(&layer.name);
        let inputs = layer.inputs.iter().map(|&input| self.name(input).to_owned());
        self.onnx.node.push(NodeProto {
            name: layer.name.clone(),
            op_type: layer.operation.op_type().to_owned(),
            input: inputs.chain(parameters).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
        if graph_output.is_none() {
            self.onnx.value_info.push(ValueInfoProto::batched(output, OnnxType::Float, BATCH, &layer.shape));
        }
        self.names.push(output.to_owned());
        Ok(())
    }

    /// The values that leave the graph, and their names.
    fn graph_outputs(&self) -> impl Iterator<Item = (&'static str, Value)> + use<'a> {
        let side_branches = self.graph.side_branches().iter().map(|branch| (branch.name, branch.output));
        iter::once((OUTPUT, self.graph.output())).chain(side_branches)
    }

    fn name(&self, value: Value) -> &str {
        value.layer().map_or(INPUT, |layer| &self.names[layer])
    }

    /// The batch norm that the convolution `value` takes over, with its epsilon: one that is its only reader.
    fn folded_batch_norm(&self, value: Value) -> Option<(&'a Layer, f32)> {
        let mut readers = self.graph.layers().iter().filter(|layer| layer.inputs.contains(&value));
        let batch_norm = readers.next()?;
        let Operation::BatchNorm { epsilon } = batch_norm.operation else { return None };
        let is_conv = matches!(self.graph.layers()[value.layer()?].operation, Operation::Conv(_));
        (is_conv && readers.next().is_none() && !self.keep_batch_norm).then_some((batch_norm, epsilon))
    }

    /// Takes the layer's tensors over as they are and returns their names.
    fn parameters(&mut self, layer: &Layer) -> Result<Vec<String>> {
        layer
            .parameters(self.graph)
            .into_iter()
            .map(|parameter| {
                let tensor = self.weights.tensor(&parameter.key, &parameter.shape)?;
                self.onnx.initializer.push(TensorProto::new(&parameter.key, &tensor)?);
                Ok(parameter.key)
            })
            .collect()
    }

    /// Adds the indices of a [`Operation::Gather`] and returns their name.
    fn indices(&mut self, layer: &Layer, indices: &[usize]) -> Result<String> {
        let name = layer.key("indices");
        let indices = indices.iter().map(|&index| index as i64).collect::<Vec<_>>();
        self.onnx.initializer.push(TensorProto::new(&name, &Tensor::from_vec(vec![indices.len()], indices)?)?);
        Ok(name)
    }

    /// The parameters of `conv` with a batch norm folded into them, under the convolution's names.
    fn folded_parameters(&mut self, conv: &Layer, batch_norm: &Layer, epsilon: f32) -> Result<Vec<String>> {
        let read = |parameter: &Parameter| self.weights.tensor(&parameter.key, &parameter.shape);
        let conv_tensors = conv.parameters(self.graph).iter().map(read).collect::<Result<Vec<_>>>()?;
        let batch_norm_tensors = batch_norm.parameters(self.graph).iter().map(read).collect::<Result<Vec<_>>>()?;
        let (kernel, bias) = fold(&conv_tensors, &batch_norm_tensors, epsilon)?;
        let keys = ["weight", "bias"].map(|tensor| conv.key(tensor));
        self.onnx.initializer.push(TensorProto::new(&keys[0], &kernel)?);
        self.onnx.initializer.push(TensorProto::new(&keys[1], &bias)?);
        Ok(keys.to_vec())
    }

    fn finish(mut self, name: &str) -> Result<ModelProto> {
        if self.graph.layers().iter().any(|layer| layer.operation == Operation::Relu6) {
            for (name, bound) in RELU6_BOUNDS {
                self.onnx.initializer.push(TensorProto::new(name, &Tensor::from_vec(vec![], vec![bound])?)?);
            }
        }
        let describe = |name, value| ValueInfoProto::batched(name, OnnxType::Float, BATCH, self.graph.shape(value));
        let version = env!("CARGO_PKG_VERSION");
        Ok(ModelProto {
            producer_name: "convoy".to_owned(),
            producer_version: version.to_owned(),
            metadata_props: vec![
                StringStringEntryProto::new("convoy.architecture", name),
                StringStringEntryProto::new("convoy.weights", self.weights.origin()),
                StringStringEntryProto::new("convoy.version", version),
            ],
            graph: Some(GraphProto {
                name: name.to_owned(),
                input: vec![describe(INPUT, Value::INPUT)],
                output: self.graph_outputs().map(|(name, value)| describe(name, value)).collect(),
                ..self.onnx
            }),
            ..ModelProto::default()
        })
    }
}

fn pool_attributes(pool: Pool) -> Vec<AttributeProto> {
    vec![
        AttributeProto::ints("kernel_shape", [pool.kernel; 2]),
        AttributeProto::ints("pads", [pool.padding; 4]),
        AttributeProto::ints("strides", [pool.stride; 2]),
        AttributeProto::int("ceil_mode", pool.ceil_mode.into()),
    ]
}

fn lrn_attributes(lrn: Lrn) -> Vec<AttributeProto> {
    vec![
        AttributeProto::int("size", lrn.size as i64),
        AttributeProto::float("alpha", lrn.alpha),
        AttributeProto::float("beta", lrn.beta),
        AttributeProto::float("bias", lrn.bias),
    ]
}

/// The kernel and the bias of a convolution that does the work of a batch norm too.
///
/// With the batch norm's `scale = weight / sqrt(variance + epsilon)`, the kernel of each output channel is multiplied by its
/// scale, and the bias becomes `(bias - mean) * scale + the batch norm's bias`. In FP64, rounded once.
fn fold(conv: &[Tensor], batch_norm: &[Tensor], epsilon: f32) -> Result<(Tensor, Tensor)> {
    let kernel = conv[0].to_slice::<f32>()?;
    let conv_bias = conv.get(1).map(Tensor::to_slice::<f32>).transpose()?;
    let [weight, bias, mean, variance] = [0, 1, 2, 3].map(|index| batch_norm[index].to_slice::<f32>());
    let (weight, bias, mean, variance) = (weight?, bias?, mean?, variance?);

    let channels = weight.len();
    let mut folded_kernel = Vec::with_capacity(kernel.len());
    let mut folded_bias = Vec::with_capacity(channels);
    for (channel, kernel) in kernel.chunks_exact(kernel.len() / channels).enumerate() {
        let scale = f64::from(weight[channel]) / (f64::from(variance[channel]) + f64::from(epsilon)).sqrt();
        folded_kernel.extend(kernel.iter().map(|&value| (f64::from(value) * scale) as f32));
        let conv_bias = conv_bias.as_ref().map_or(0.0, |bias| f64::from(bias[channel]));
        folded_bias.push(((conv_bias - f64::from(mean[channel])) * scale + f64::from(bias[channel])) as f32);
    }
    Ok((Tensor::from_vec(conv[0].shape().to_vec(), folded_kernel)?, Tensor::from_vec(vec![channels], folded_bias)?))
}
