//! What a network costs for one picture: layer by layer the output's shape, the parameters, the multiply-accumulates and the
//! memory of the output. For the zoo's own graphs, and for any classifier's ONNX model.

mod model;
mod shapes;

pub use model::shapes_of_model;
use schemars::JsonSchema;
use serde::Serialize;

use super::graph::{Graph, Operation};

/// The cost of a network for one picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Description {
    /// The architecture's or the graph's name.
    pub name: String,
    /// The shape of one picture, `[3, H, W]` for the zoo's networks.
    pub input_shape: Vec<usize>,
    /// Learned parameters: kernels, biases, and the scale and shift of norms, but not the running statistics of batch norms.
    pub parameters: u64,
    /// Multiply-accumulates of convolutions and matrix products, without biases.
    pub macs: u64,
    /// The sum over the layers of the bytes of their outputs; see [`LayerCost::activation_bytes`].
    pub activation_bytes: u64,
    /// The layers in the order that they are computed in.
    pub layers: Vec<LayerCost>,
    /// Operators whose output shape could not be inferred, with their node's name: the costs of what depends on them are missing
    /// above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_inferred: Vec<String>,
}

/// The cost of one layer for one picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LayerCost {
    /// The layer's name.
    pub name: String,
    /// ONNX's name of what it computes.
    pub operator: String,
    /// The output's shape without the batch dimension; `None` where it could not be inferred.
    pub output_shape: Option<Vec<usize>>,
    /// Learned parameters; those that several layers share are the first one's.
    pub parameters: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes of the output: 0 for layers that can work in place (activation functions, batch norm, reshaping).
    pub activation_bytes: u64,
}

impl Description {
    /// The costs of the zoo's `graph`, side branches included, in FP32. Batch norms are layers of their own.
    pub fn of_graph(name: &str, graph: &Graph) -> Self {
        let layers = graph.layers().iter().map(|layer| {
            let parameters = layer.parameters(graph);
            let kernel = parameters.first().map(|kernel| kernel.shape.as_slice());
            let macs = match (&layer.operation, kernel) {
                (Operation::Conv(_) | Operation::Linear, Some(kernel)) => macs(kernel, &layer.shape),
                _ => 0,
            };
            let operator = layer.operation.op_type();
            LayerCost {
                name: layer.name.clone(),
                operator: operator.to_owned(),
                output_shape: Some(layer.shape.clone()),
                parameters: parameters.iter().filter(|it| it.learned).map(|it| elements(&it.shape)).sum(),
                macs,
                activation_bytes: if works_in_place(operator) { 0 } else { 4 * elements(&layer.shape) },
            }
        });
        Self::new(name, graph.input.to_vec(), layers.collect(), vec![])
    }

    fn new(name: &str, input_shape: Vec<usize>, layers: Vec<LayerCost>, not_inferred: Vec<String>) -> Self {
        let total = |cost: fn(&LayerCost) -> u64| layers.iter().map(cost).fold(0, u64::saturating_add);
        Self {
            name: name.to_owned(),
            input_shape,
            parameters: total(|layer| layer.parameters),
            macs: total(|layer| layer.macs),
            activation_bytes: total(|layer| layer.activation_bytes),
            layers,
            not_inferred,
        }
    }
}

/// The number of elements of a tensor, as large as can be said where a file claims more.
fn elements(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &size| product.saturating_mul(size as u64))
}

/// The multiply-accumulates of a layer whose kernel has the output features first: each output element takes one for each
/// element of its feature's part of the kernel.
fn macs(kernel: &[usize], output: &[usize]) -> u64 {
    elements(output).saturating_mul(elements(kernel.get(1..).unwrap_or_default()))
}

/// Whether an operator's output can take its input's place in memory: it is as large, and each element depends on one.
fn works_in_place(operator: &str) -> bool {
    const REPLACING: &[&str] = &[
        "BatchNormalization",
        "Clip",
        "DequantizeLinear",
        "Dropout",
        "Elu",
        "Flatten",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "LogSoftmax",
        "PRelu",
        "QuantizeLinear",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Softmax",
        "Squeeze",
        "Tanh",
        "Unsqueeze",
    ];
    REPLACING.contains(&operator)
}
