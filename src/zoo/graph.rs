//! A network as a graph of layers, without weights.
//!
//! An architecture is a function over [`GraphBuilder`]. What it builds knows every layer's name, shape and parameters, and
//! nothing of checkpoints or of ONNX; [`super::emit`] brings the three together. A layer's name is the prefix of its tensors'
//! names in the checkpoint, or, where it has none, what the architecture's paper or reference implementation calls it.

/// An architecture's layers in topological order.
#[derive(Debug, Clone)]
pub struct Graph {
    input: [usize; 3],
    layers: Vec<Layer>,
    output: Value,
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
    /// The sum of equally shaped inputs.
    Add,
    /// The inputs one after the other along the channels.
    Concat,
    /// `[C, H, W]` to `[C * H * W]`.
    Flatten,
    /// A fully connected layer.
    Linear,
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

/// Builds a [`Graph`] layer by layer. Every method adds one layer and returns its output.
///
/// A layer that cannot be applied to its input is a panic: an architecture fixes all sizes, so this is an error in its own
/// code, which no checkpoint and no request can bring about.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// A graph over pictures of three channels and `size` rows and columns.
    pub fn new(size: usize) -> Self {
        Self { graph: Graph { input: [3, size, size], layers: vec![], output: Value::INPUT } }
    }

    /// The graph, whose output is `logits`.
    pub fn finish(self, logits: Value) -> Graph {
        Graph { output: logits, ..self.graph }
    }

    /// The number of channels of `value`.
    pub fn channels(&self, value: Value) -> usize {
        self.graph.shape(value)[0]
    }

    /// [`Operation::Conv`].
    ///
    /// # Panics
    /// When the input is flattened, smaller than the kernel, or its channels don't split into the groups.
    pub fn conv(&mut self, name: impl Into<String>, input: Value, mut conv: Conv) -> Value {
        let [in_channels, height, width] = self.picture(input);
        conv.in_channels = in_channels;
        let splits = |channels: usize| channels.is_multiple_of(conv.groups);
        assert!(splits(in_channels) && splits(conv.out_channels), "the channels must split into the groups");
        if conv.padding == Padding::Same {
            let [(top, bottom), (left, right)] = [(height, conv.kernel[0]), (width, conv.kernel[1])]
                .map(|(size, kernel)| same(size, kernel, conv.stride));
            conv.padding = Padding::Explicit([top, left, bottom, right]);
        }
        let [top, left, bottom, right] = conv.pads();
        let shape = vec![
            conv.out_channels,
            (height + top + bottom - conv.kernel[0]) / conv.stride + 1,
            (width + left + right - conv.kernel[1]) / conv.stride + 1,
        ];
        self.push(name, Operation::Conv(conv), vec![input], shape)
    }

    /// [`Operation::BatchNorm`].
    pub fn batch_norm(&mut self, name: impl Into<String>, input: Value, epsilon: f32) -> Value {
        let shape = self.graph.shape(input).to_vec();
        self.push(name, Operation::BatchNorm { epsilon }, vec![input], shape)
    }

    /// [`Operation::Relu`].
    pub fn relu(&mut self, name: impl Into<String>, input: Value) -> Value {
        let shape = self.graph.shape(input).to_vec();
        self.push(name, Operation::Relu, vec![input], shape)
    }

    /// [`Operation::Relu6`].
    pub fn relu6(&mut self, name: impl Into<String>, input: Value) -> Value {
        let shape = self.graph.shape(input).to_vec();
        self.push(name, Operation::Relu6, vec![input], shape)
    }

    /// [`Operation::MaxPool`].
    pub fn max_pool(&mut self, name: impl Into<String>, input: Value, pool: Pool) -> Value {
        let shape = self.pooled(input, pool);
        self.push(name, Operation::MaxPool(pool), vec![input], shape)
    }

    /// [`Operation::AveragePool`].
    pub fn average_pool(&mut self, name: impl Into<String>, input: Value, pool: Pool) -> Value {
        let shape = self.pooled(input, pool);
        self.push(name, Operation::AveragePool(pool), vec![input], shape)
    }

    /// [`Operation::GlobalAveragePool`].
    pub fn global_average_pool(&mut self, name: impl Into<String>, input: Value) -> Value {
        let [channels, ..] = self.picture(input);
        self.push(name, Operation::GlobalAveragePool, vec![input], vec![channels, 1, 1])
    }

    /// [`Operation::Add`].
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn add(&mut self, name: impl Into<String>, left: Value, right: Value) -> Value {
        let shape = self.graph.shape(left).to_vec();
        assert_eq!(shape, self.graph.shape(right), "only equal shapes can be added");
        self.push(name, Operation::Add, vec![left, right], shape)
    }

    /// [`Operation::Concat`].
    ///
    /// # Panics
    /// When there are no inputs, or their rows or columns differ.
    pub fn concat(&mut self, name: impl Into<String>, inputs: &[Value]) -> Value {
        let [_, height, width] = self.picture(inputs[0]);
        let channels = inputs.iter().map(|&input| self.picture(input)).map(|[channels, rows, columns]| {
            assert_eq!([rows, columns], [height, width], "only maps of equal size can be concatenated");
            channels
        });
        let shape = vec![channels.sum(), height, width];
        self.push(name, Operation::Concat, inputs.to_vec(), shape)
    }

    /// [`Operation::Flatten`].
    pub fn flatten(&mut self, name: impl Into<String>, input: Value) -> Value {
        let features = self.graph.shape(input).iter().product();
        self.push(name, Operation::Flatten, vec![input], vec![features])
    }

    /// [`Operation::Linear`], to `features`.
    ///
    /// # Panics
    /// When the input is not flattened.
    pub fn linear(&mut self, name: impl Into<String>, input: Value, features: usize) -> Value {
        assert_eq!(self.graph.shape(input).len(), 1, "a fully connected layer takes a flattened input");
        self.push(name, Operation::Linear, vec![input], vec![features])
    }

    fn push(&mut self, name: impl Into<String>, operation: Operation, inputs: Vec<Value>, shape: Vec<usize>) -> Value {
        self.graph.layers.push(Layer { name: name.into(), operation, inputs, shape });
        Value(self.graph.layers.len())
    }

    /// `[C, H, W]` of a value that is not flattened.
    fn picture(&self, value: Value) -> [usize; 3] {
        self.graph.shape(value).try_into().expect("convolutions and pools take maps of channels, rows and columns")
    }

    fn pooled(&self, input: Value, pool: Pool) -> Vec<usize> {
        let [channels, height, width] = self.picture(input);
        vec![channels, pool.output(height), pool.output(width)]
    }
}

impl Pool {
    /// Windows of `kernel` rows and columns every `stride`, without padding.
    pub fn new(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: 0, ceil_mode: false }
    }

    /// Sets the padding.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Lets the last window hang over the end.
    pub fn ceil_mode(self) -> Self {
        Self { ceil_mode: true, ..self }
    }

    /// The number of windows along `size` rows or columns.
    fn output(self, size: usize) -> usize {
        let room = size + 2 * self.padding - self.kernel;
        if !self.ceil_mode {
            return room / self.stride + 1;
        }
        let windows = room.div_ceil(self.stride) + 1;
        // As in PyTorch and Caffe, a window must not begin in the padding after the end.
        if (windows - 1) * self.stride >= size + self.padding { windows - 1 } else { windows }
    }
}

/// The zeros before and after `size` rows or columns that [`Padding::Same`] asks for.
fn same(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
    (total / 2, total - total / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_gives_the_odd_row_to_the_end() {
        // The depthwise convolutions of EfficientNet-Lite0 with stride 2, and TensorFlow's examples of SAME.
        assert_eq!(same(224, 3, 2), (0, 1));
        assert_eq!(same(56, 5, 2), (1, 2));
        assert_eq!(same(7, 5, 1), (2, 2));
        assert_eq!(same(5, 1, 2), (0, 0));
    }

    #[test]
    fn pools_count_their_windows_as_pytorch_does() {
        // torch.nn.MaxPool2d over 112, 55, 13 and 2 rows.
        assert_eq!(Pool::new(3, 2).padding(1).output(112), 56);
        assert_eq!(Pool::new(3, 2).output(55), 27);
        assert_eq!(Pool::new(3, 2).ceil_mode().output(112), 56);
        assert_eq!(Pool::new(2, 2).ceil_mode().output(13), 7);
        assert_eq!(Pool::new(2, 2).padding(1).ceil_mode().output(2), 2);
    }

    #[test]
    #[should_panic(expected = "only equal shapes can be added")]
    fn shapes_that_differ_cannot_be_added() {
        let mut builder = GraphBuilder::new(8);
        let narrow = builder.conv("narrow", Value::INPUT, Conv::new(4, 1));
        builder.add("add", narrow, Value::INPUT);
    }
}
