//! A [`Graph`] and its weights as an ONNX model: input `input` `[N, 3, H, W]`, output `logits` `[N, classes]`, both FP32.
//!
//! Batch norms are folded into the convolutions before them unless asked otherwise: the network computes the same up to
//! rounding, with fewer nodes.

use super::graph::{Graph, Layer, Operation, Parameter, Pool, Value};
use super::weights::Weights;
use crate::error::Result;
use crate::onnx::proto::tensor_proto::DataType as OnnxType;
use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};
use crate::tensor::Tensor;

/// The version of ONNX's operators.
const OPSET_VERSION: i64 = 17;
/// The version of ONNX's file format.
const IR_VERSION: i64 = 8;
const INPUT: &str = "input";
const OUTPUT: &str = "logits";
/// The name of the open batch dimension.
const BATCH: &str = "N";

/// The bounds of [`Operation::Relu6`], which all its nodes share.
const RELU6_BOUNDS: [(&str, f32); 2] = [("relu6.min", 0.0), ("relu6.max", 6.0)];

impl Graph {
    /// The ONNX model of this graph with `weights`: FP32 `input` `[N, 3, H, W]` to FP32 `logits` `[N, classes]`. `name` becomes
    /// the ONNX graph's. Batch norms are folded into convolutions unless `keep_batch_norm`.
    ///
    /// # Errors
    /// `InvalidArgument` when a tensor of the weights is missing, has another shape than the graph takes, or is not in the
    /// graph; the message names it.
    pub fn to_onnx(&self, name: &str, weights: &Weights, keep_batch_norm: bool) -> Result<ModelProto> {
        weights.check(&self.parameters().map(|parameter| (parameter.key, parameter.shape)).collect())?;
        let mut emitter = Emitter { graph: self, weights, keep_batch_norm, names: vec![], onnx: GraphProto::default() };
        for (index, layer) in self.layers().iter().enumerate() {
            emitter.layer(layer, Value::of_layer(index))?;
        }
        emitter.finish(name)
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
        let (op_type, attributes, parameters) = match &layer.operation {
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
                ("Conv", attributes, parameters)
            }
            Operation::BatchNorm { .. } if self.folded_batch_norm(layer.inputs[0]).is_some() => {
                self.names.push(self.name(layer.inputs[0]).to_owned());
                return Ok(());
            }
            Operation::BatchNorm { epsilon } => {
                ("BatchNormalization", vec![AttributeProto::float("epsilon", *epsilon)], self.parameters(layer)?)
            }
            Operation::Relu => ("Relu", vec![], vec![]),
            Operation::Relu6 => ("Clip", vec![], RELU6_BOUNDS.map(|(name, _)| name.to_owned()).to_vec()),
            Operation::MaxPool(pool) => ("MaxPool", pool_attributes(*pool), vec![]),
            Operation::AveragePool(pool) => {
                let mut attributes = pool_attributes(*pool);
                attributes.push(AttributeProto::int("count_include_pad", 1));
                ("AveragePool", attributes, vec![])
            }
            Operation::GlobalAveragePool => ("GlobalAveragePool", vec![], vec![]),
            Operation::Add => ("Add", vec![], vec![]),
            Operation::Concat => ("Concat", vec![AttributeProto::int("axis", 1)], vec![]),
            Operation::Flatten => ("Flatten", vec![AttributeProto::int("axis", 1)], vec![]),
            // The weights lie as [features, inputs].
            Operation::Linear => ("Gemm", vec![AttributeProto::int("transB", 1)], self.parameters(layer)?),
        };
        let output = if value == self.graph.output() { OUTPUT } else { &layer.name };
        let inputs = layer.inputs.iter().map(|&input| self.name(input).to_owned());
        self.onnx.node.push(NodeProto {
            name: layer.name.clone(),
            op_type: op_type.to_owned(),
            input: inputs.chain(parameters).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
        if value != self.graph.output() {
            self.onnx.value_info.push(ValueInfoProto::batched(output, OnnxType::Float, BATCH, &layer.shape));
        }
        self.names.push(output.to_owned());
        Ok(())
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
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET_VERSION }],
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
                output: vec![describe(OUTPUT, self.graph.output())],
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
