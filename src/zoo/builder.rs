//! Building a [`Graph`] layer by layer, which is how an architecture is written down.

use super::graph::{Conv, Graph, Layer, Lrn, Operation, Padding, Pool, SideBranch, Value};

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
        let graph = Graph { input: [3, size, size], layers: vec![], output: Value::INPUT, side_branches: vec![] };
        Self { graph }
    }

    /// The graph, whose output is `logits`.
    pub fn finish(self, logits: Value) -> Graph {
        Graph { output: logits, ..self.graph }
    }

    /// Makes `logits` the output of a side branch called `name`.
    pub fn side_branch(&mut self, name: &'static str, logits: Value) {
        self.graph.side_branches.push(SideBranch { name, output: logits });
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

    /// [`Operation::Conv`] with a bias, and the [`Operation::Relu`] `{name}.relu`: what networks before batch norm consist of.
    ///
    /// # Panics
    /// As [`Self::conv`].
    pub fn conv_relu(&mut self, name: impl Into<String>, input: Value, conv: Conv) -> Value {
        let name = name.into();
        let relu_name = format!("{name}.relu");
        let x = self.conv(name, input, conv.bias());
        self.relu(relu_name, x)
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

    /// The mean of `size` times `size` windows that cover the input evenly, PyTorch's `AdaptiveAvgPool2d`: window `i` of `n` over
    /// `s` rows is the rows `floor(i * s / n)` to `ceil((i + 1) * s / n)`.
    ///
    /// ONNX has no such operator. Where all windows are equally large, and in the networks here they are, the result is an
    /// average pool of stride 1 of which some rows and columns are taken.
    ///
    /// # Panics
    /// When the windows differ in size.
    pub fn adaptive_average_pool(&mut self, name: impl Into<String>, input: Value, size: usize) -> Value {
        let name = name.into();
        let [_, height, width] = self.picture(input);
        assert_eq!(height, width, "the maps here are square");
        let starts: Vec<_> = (0..size).map(|window| window * height / size).collect();
        let kernels = starts.iter().zip(1..).map(|(start, end)| (end * height).div_ceil(size) - start);
        let kernel = height.div_ceil(size);
        assert!(kernels.into_iter().all(|it| it == kernel), "the windows must be equally large");
        let mut x = self.average_pool(format!("{name}.windows"), input, Pool::new(kernel, 1));
        for (axis, suffix) in [(1, "rows"), (2, "columns")] {
            x = self.gather(format!("{name}.{suffix}"), x, axis, starts.clone());
        }
        x
    }

    /// [`Operation::Gather`].
    pub fn gather(&mut self, name: impl Into<String>, input: Value, axis: usize, indices: Vec<usize>) -> Value {
        let mut shape = self.picture(input).to_vec();
        shape[axis] = indices.len();
        self.push(name, Operation::Gather { axis, indices }, vec![input], shape)
    }

    /// [`Operation::Lrn`].
    pub fn lrn(&mut self, name: impl Into<String>, input: Value, lrn: Lrn) -> Value {
        let shape = self.picture(input).to_vec();
        self.push(name, Operation::Lrn(lrn), vec![input], shape)
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

    /// [`Operation::Linear`], and the [`Operation::Relu`] `{name}.relu`.
    ///
    /// # Panics
    /// As [`Self::linear`].
    pub fn linear_relu(&mut self, name: impl Into<String>, input: Value, features: usize) -> Value {
        let name = name.into();
        let relu_name = format!("{name}.relu");
        let x = self.linear(name, input, features);
        self.relu(relu_name, x)
    }

    fn push(&mut self, name: impl Into<String>, operation: Operation, inputs: Vec<Value>, shape: Vec<usize>) -> Value {
        let value = Value::of_layer(self.graph.layers.len());
        self.graph.layers.push(Layer { name: name.into(), operation, inputs, shape });
        value
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
    #[should_panic(expected = "only equal shapes can be added")]
    fn shapes_that_differ_cannot_be_added() {
        let mut builder = GraphBuilder::new(8);
        let narrow = builder.conv("narrow", Value::INPUT, Conv::new(4, 1));
        builder.add("add", narrow, Value::INPUT);
    }
}
