//! A network as a graph of layers, without weights.
//!
//! A graph knows every layer's name, shape and parameters, and nothing of checkpoints, or of ONNX but the operators' names. A layer's name is the prefix
//! of its tensors' names in the checkpoint; a layer without tensors is called what the reference implementation calls it.

use std::iter;

/// An architecture's layers in topological order.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(super) input: [usize; 3],
    pub(super) layers: Vec<Layer>,
    pub(super) output: Value,
    pub(super) side_branches: Vec<SideBranch>,
}

/// A classifier of its own on maps from the middle of the network, which helped to train the layers before it (GoogLeNet's and
/// Inception v3's "auxiliary classifiers").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SideBranch {
    /// The branch's name, unique in its graph.
    pub name: &'static str,
    /// The value that holds its logits.
    pub output: Value,
}

/// One layer, its input and its output.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The layer's name, unique in its graph.
    pub name: String,
    /// What it computes.
    pub operation: Operation,
    /// What it reads.
    pub inputs: Vec<Value>,
    /// The shape of one image's output: `[C, H, W]`, or `[features]` after flattening.
    pub shape: Vec<usize>,
}

/// The input of a graph, or the output of one of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(usize);

impl Value {
    /// The picture: FP32, `[N, 3, H, W]`.
    pub const INPUT: Self = Self(0);

    /// The output of the layer with this index.
    pub(super) fn of_layer(index: usize) -> Self {
        Self(index + 1)
    }

    /// The index of the layer that computes it, `None` for the graph's input.
    pub fn layer(self) -> Option<usize> {
        self.0.checked_sub(1)
    }
}

/// What a layer computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// A convolution.
    Conv(Conv),
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias` per channel.
    BatchNorm {
        /// What is added to the variance.
        epsilon: f32,
    },
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// The maximum of each window. Padding never wins.
    MaxPool(Pool),
    /// The mean of each window, padding included.
    AveragePool(Pool),
    /// The mean over height and width, `[C, 1, 1]`.
    GlobalAveragePool,
    /// Local response normalisation.
    Lrn(Lrn),
    /// The rows or columns with these indices.
    Gather {
        /// 1 for rows, 2 for columns.
        axis: usize,
        /// In the order of the output.
        indices: Vec<usize>,
    },
    /// The sum of equally shaped inputs.
    Add,
    /// The inputs one after the other along the channels.
    Concat,
    /// `[C, H, W]` to `[C * H * W]`.
    Flatten,
    /// A fully connected layer.
    Linear,
}

impl Operation {
    /// ONNX's name of the operator.
    pub fn op_type(&self) -> &'static str {
        match self {
            Self::Conv(_) => "Conv",
            Self::BatchNorm { .. } => "BatchNormalization",
            Self::Relu => "Relu",
            Self::Relu6 => "Clip",
            Self::MaxPool(_) => "MaxPool",
            Self::AveragePool(_) => "AveragePool",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::Lrn(_) => "LRN",
            Self::Gather { .. } => "Gather",
            Self::Add => "Add",
            Self::Concat => "Concat",
            Self::Flatten => "Flatten",
            Self::Linear => "Gemm",
        }
    }
}

/// A 2-D convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// The channels that come in; the graph fills this in.
    pub in_channels: usize,
    /// The channels that go out.
    pub out_channels: usize,
    /// Height and width.
    pub kernel: [usize; 2],
    /// The same in both directions.
    pub stride: usize,
    /// Rows and columns of zeros around the input.
    pub padding: Padding,
    /// How many groups the channels are split into.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

/// Zeros around a convolution's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Top, left, bottom, right.
    Explicit([usize; 4]),
    /// As many as make the output `ceil(input / stride)`; the odd one goes to the bottom and right. This is TensorFlow's
    /// `SAME` and ONNX's `SAME_UPPER`. The graph turns it into explicit padding.
    Same,
}

/// The windows of a pooling layer, square and symmetrically padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Height and width of a window.
    pub kernel: usize,
    /// Rows or columns from one window to the next.
    pub stride: usize,
    /// Rows and columns around the input.
    pub padding: usize,
    /// Whether a window may hang over the end.
    pub ceil_mode: bool,
}

/// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3):
/// `x / (bias + alpha / size * sum of x^2 over the size channels around x's own) ^ beta`.
///
/// This divides `alpha` by `size`, as Caffe, ONNX and PyTorch do; the paper's formula and cuda-convnet don't.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lrn {
    /// How many neighbouring channels are summed over: the channel's own and half the rest on each side.
    pub size: usize,
    /// The weight of their mean square.
    pub alpha: f32,
    /// The exponent.
    pub beta: f32,
    /// What is added to the mean square (the paper's k).
    pub bias: f32,
}

impl Conv {
    /// A convolution with a square kernel, stride 1, no padding, one group and no bias.
    pub fn new(out_channels: usize, kernel: usize) -> Self {
        Self {
            in_channels: 0,
            out_channels,
            kernel: [kernel, kernel],
            stride: 1,
            padding: Padding::Explicit([0; 4]),
            groups: 1,
            bias: false,
        }
    }

    /// A convolution with a kernel of odd height and width, padded so that the output is as large as the input.
    pub fn rectangular(out_channels: usize, kernel: [usize; 2]) -> Self {
        let [vertical, horizontal] = kernel.map(|size| size / 2);
        let padding = Padding::Explicit([vertical, horizontal, vertical, horizontal]);
        Self { kernel, padding, ..Self::new(out_channels, 1) }
    }

    /// Sets the stride.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the padding, the same on all sides.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding: Padding::Explicit([padding; 4]), ..self }
    }

    /// Sets the padding to [`Padding::Same`].
    pub fn same_padding(self) -> Self {
        Self { padding: Padding::Same, ..self }
    }

    /// Sets the number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Adds a bias.
    pub fn bias(self) -> Self {
        Self { bias: true, ..self }
    }

    /// The shape of the kernel: `[out_channels, in_channels / groups, height, width]`.
    pub fn kernel_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// The explicit padding, top, left, bottom and right.
    pub fn pads(&self) -> [usize; 4] {
        match self.padding {
            Padding::Explicit(pads) => pads,
            Padding::Same => [0; 4],
        }
    }
}

impl Pool {
    /// Windows of `kernel` rows and columns every `stride`, without padding.
    pub const fn new(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: 0, ceil_mode: false }
    }

    /// Sets the padding.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Lets the last window hang over the end.
    pub const fn ceil_mode(self) -> Self {
        Self { ceil_mode: true, ..self }
    }

    /// The number of windows along `size` rows or columns.
    pub(super) fn output(self, size: usize) -> usize {
        let room = size + 2 * self.padding - self.kernel;
        if !self.ceil_mode {
            return room / self.stride + 1;
        }
        let windows = room.div_ceil(self.stride) + 1;
        // As in PyTorch and Caffe, a window must not begin in the padding after the end.
        if (windows - 1) * self.stride >= size + self.padding { windows - 1 } else { windows }
    }
}

/// A tensor that a graph takes from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name there.
    pub key: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is learned, as opposed to the running statistics of a batch norm.
    pub learned: bool,
}

impl Layer {
    /// The tensors that this layer takes from a checkpoint.
    pub fn parameters(&self, graph: &Graph) -> Vec<Parameter> {
        let parameter =
            |tensor, shape: &[usize], learned| Parameter { key: self.key(tensor), shape: shape.to_vec(), learned };
        match &self.operation {
            Operation::Conv(conv) => {
                let mut parameters = vec![parameter("weight", &conv.kernel_shape(), true)];
                if conv.bias {
                    parameters.push(parameter("bias", &[conv.out_channels], true));
                }
                parameters
            }
            Operation::BatchNorm { .. } => {
                [("weight", true), ("bias", true), ("running_mean", false), ("running_var", false)]
                    .map(|(tensor, learned)| parameter(tensor, &self.shape[..1], learned))
                    .to_vec()
            }
            Operation::Linear => {
                let inputs = graph.shape(self.inputs[0])[0];
                vec![parameter("weight", &[self.shape[0], inputs], true), parameter("bias", &self.shape, true)]
            }
            _ => vec![],
        }
    }

    /// The name of this layer's `tensor` in a checkpoint.
    pub fn key(&self, tensor: &str) -> String {
        format!("{}.{tensor}", self.name)
    }
}

impl Graph {
    /// The layers in topological order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The value that holds the logits.
    pub fn output(&self) -> Value {
        self.output
    }

    /// The side branches, from the input to the logits.
    pub fn side_branches(&self) -> &[SideBranch] {
        &self.side_branches
    }

    /// The same network without its side branches.
    pub fn trunk(&self) -> Self {
        let mut needed = vec![false; self.layers.len()];
        let mut pending: Vec<_> = self.output.layer().into_iter().collect();
        while let Some(layer) = pending.pop() {
            if !std::mem::replace(&mut needed[layer], true) {
                pending.extend(self.layers[layer].inputs.iter().filter_map(|input| input.layer()));
            }
        }
        // Where each value lies when the layers that are not needed are gone.
        let mut position = Value::INPUT;
        let moved: Vec<_> = iter::once(position)
            .chain(needed.iter().map(|&needed| {
                position.0 += usize::from(needed);
                position
            }))
            .collect();
        let layers = self.layers.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(layer, _)| {
            let inputs = layer.inputs.iter().map(|input| moved[input.0]).collect();
            Layer { inputs, ..layer.clone() }
        });
        Self { input: self.input, layers: layers.collect(), output: moved[self.output.0], side_branches: vec![] }
    }

    /// The shape of one image's `value`.
    pub fn shape(&self, value: Value) -> &[usize] {
        value.layer().map_or(&self.input, |layer| &self.layers[layer].shape)
    }

    /// The tensors that the graph takes from a checkpoint, layer by layer.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.layers.iter().flat_map(|layer| layer.parameters(self))
    }

    /// The number of learned parameters.
    pub fn parameter_count(&self) -> usize {
        self.parameters().filter(|parameter| parameter.learned).map(|it| it.shape.iter().product::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_count_their_windows_as_pytorch_does() {
        // torch.nn.MaxPool2d over 112, 55, 13 and 2 rows.
        assert_eq!(Pool::new(3, 2).padding(1).output(112), 56);
        assert_eq!(Pool::new(3, 2).output(55), 27);
        assert_eq!(Pool::new(3, 2).ceil_mode().output(112), 56);
        assert_eq!(Pool::new(2, 2).ceil_mode().output(13), 7);
        assert_eq!(Pool::new(2, 2).padding(1).ceil_mode().output(2), 2);
    }
}
