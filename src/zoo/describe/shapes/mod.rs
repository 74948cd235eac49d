//! Shape inference for the operators that convolutional classifiers consist of.
//!
//! A value is its shape, and its elements where they are few and whole: exported graphs compute the shapes of their reshapes
//! from such. Files may claim anything: arithmetic that overflows is a shape that cannot be inferred.

mod rearrange;

use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::{AttributeProto, NodeProto, TensorProto};
use crate::tensor::{DataType, Tensor};

/// More elements than this are weights and no shape.
const MAX_INTEGERS: usize = 64;

/// What is known of a value.
#[derive(Debug, Clone, Default)]
pub(super) struct Value {
    pub(super) shape: Vec<usize>,
    /// Whether it is the same for every picture.
    pub(super) constant: bool,
    /// The elements of an integer scalar or vector.
    pub(super) integers: Option<Vec<i64>>,
}

impl Value {
    pub(super) fn of_shape(shape: Vec<usize>) -> Self {
        Self { shape, ..Self::default() }
    }

    fn of_integers(integers: Vec<i64>, scalar: bool) -> Option<Self> {
        (integers.len() <= MAX_INTEGERS).then(|| Self {
            shape: if scalar { vec![] } else { vec![integers.len()] },
            constant: true,
            integers: Some(integers),
        })
    }

    /// What is known of an initializer or constant, `None` for an impossible shape.
    pub(super) fn of_tensor(tensor: &TensorProto) -> Option<Self> {
        let shape = tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>()?;
        let few = shape.len() <= 1 && shape.iter().all(|&size| size <= MAX_INTEGERS);
        let integers = few.then(|| tensor.to_tensor().ok()).flatten().and_then(|tensor| integers(&tensor));
        Some(Self { shape, constant: true, integers })
    }
}

fn integers(tensor: &Tensor) -> Option<Vec<i64>> {
    match tensor.data_type() {
        DataType::Int64 => Some(tensor.to_slice::<i64>().ok()?.to_vec()),
        DataType::Int32 => Some(tensor.to_slice::<i32>().ok()?.iter().map(|&value| value.into()).collect()),
        _ => None,
    }
}

/// A node with what is known of its inputs; optional inputs that are left out are `None`.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) inputs: Vec<Option<&'a Value>>,
}

impl Call<'_> {
    /// What is known of the outputs, from the first on. `None` where the operator, or this use of it, is not known here.
    pub(super) fn infer(&self) -> Option<Vec<Value>> {
        let mut values = self.outputs()?;
        for Value { shape, integers, .. } in &mut values {
            // Elements are kept for scalars and vectors only.
            if shape.len() > 1 || integers.as_ref().map(Vec::len) != product(shape) {
                *integers = None;
            }
        }
        Some(values)
    }

    fn outputs(&self) -> Option<Vec<Value>> {
        let one = |shape| Some(vec![Value::of_shape(shape)]);
        match self.node.op_type.as_str() {
            "Conv" => one(self.conv()?),
            "MaxPool" | "AveragePool" | "LpPool" => {
                let kernel = self.ints("kernel_shape")?;
                let channels = *self.shape(0)?.get(1)?;
                one(self.windows(&kernel, channels)?)
            }
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let mut shape = self.shape(0)?.to_vec();
                shape.get_mut(2..)?.fill(1);
                one(shape)
            }
            "Gemm" => one(self.gemm()?),
            "MatMul" => one(self.mat_mul()?),
            "Flatten" => {
                let shape = self.shape(0)?;
                let (rows, columns) = shape.split_at_checked(axis(self.int("axis", 1), shape.len() + 1)?)?;
                one(vec![product(rows)?, product(columns)?])
            }
            "Reshape" => Some(vec![Value { integers: self.integers(0), ..Value::of_shape(self.reshape()?) }]),
            "Transpose" => {
                let shape = self.shape(0)?;
                let reversed = || (0..shape.len() as i64).rev().collect();
                let order = self.ints("perm").unwrap_or_else(reversed);
                one(order
                    .into_iter()
                    .map(|axis| shape.get(usize::try_from(axis).ok()?).copied())
                    .collect::<Option<_>>()?)
            }
            "Concat" => Some(vec![self.concat()?]),
            "Split" => self.split(),
            "Squeeze" | "Unsqueeze" => Some(vec![Value { integers: self.integers(0), ..self.squeeze()? }]),
            "Slice" => Some(vec![self.slice()?]),
            "Pad" => one(self.pad()?),
            "Gather" => Some(vec![self.gather()?]),
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL2" => one(self.reduce()?),
            "Shape" => {
                let shape = self.shape(0)?.iter().map(|&size| size as i64).collect();
                Some(vec![Value::of_integers(shape, false)?])
            }
            "Constant" => Some(vec![self.constant()?]),
            "ConstantOfShape" => {
                let shape = self.integers(0)?.into_iter().map(|size| usize::try_from(size).ok());
                Some(vec![Value { constant: true, ..Value::of_shape(shape.collect::<Option<_>>()?) }])
            }
            "Cast" => Some(vec![Value { constant: false, ..(*self.inputs.first()?)?.clone() }]),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" | "Mean" => Some(vec![self.broadcast()?]),
            operator => {
                SAME_SHAPE.contains(&operator).then(|| self.shape(0).map(<[usize]>::to_vec)).flatten().and_then(one)
            }
        }
    }

    fn shape(&self, index: usize) -> Option<&[usize]> {
        self.inputs.get(index).copied().flatten().map(|value| value.shape.as_slice())
    }

    fn integers(&self, index: usize) -> Option<Vec<i64>> {
        self.inputs.get(index).copied().flatten().and_then(|value| value.integers.clone())
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute(name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|attribute| attribute.ints.clone())
    }

    /// Integers that were an attribute in older versions of an operator and are an input in newer ones.
    fn ints_or_input(&self, name: &str, index: usize) -> Option<Vec<i64>> {
        self.ints(name).or_else(|| self.integers(index))
    }

    fn conv(&self) -> Option<Vec<usize>> {
        let [features, _, kernel @ ..] = self.shape(1)? else { return None };
        let kernel: Vec<_> = kernel.iter().map(|&size| size as i64).collect();
        self.windows(&kernel, *features)
    }

    /// `[N, channels, …]` with as many rows, columns, … as windows of `kernel` fit into the first input.
    fn windows(&self, kernel: &[i64], channels: usize) -> Option<Vec<usize>> {
        let [batch, _, sizes @ ..] = self.shape(0)? else { return None };
        if sizes.len() != kernel.len() {
            return None;
        }
        let dimensions = kernel.len();
        let strides = self.ints("strides").unwrap_or_else(|| vec![1; dimensions]);
        let dilations = self.ints("dilations").unwrap_or_else(|| vec![1; dimensions]);
        let pads = self.ints("pads").unwrap_or_else(|| vec![0; 2 * dimensions]);
        let auto_pad = self.attribute("auto_pad").map_or(&b"NOTSET"[..], |attribute| &attribute.s);
        let ceil_mode = self.int("ceil_mode", 0) != 0;
        let mut shape = vec![*batch, channels];
        for (index, &size) in sizes.iter().enumerate() {
            let (size, stride) = (size as i128, i128::from(*strides.get(index)?));
            let window = (i128::from(kernel[index]) - 1) * i128::from(*dilations.get(index)?) + 1;
            if stride < 1 || window < 1 {
                return None;
            }
            let [before, after] = match auto_pad {
                b"NOTSET" => [*pads.get(index)?, *pads.get(dimensions + index)?].map(i128::from),
                b"VALID" => [0, 0],
                // SAME_UPPER and SAME_LOWER: as many windows as strides fit.
                _ => {
                    shape.push(usize::try_from((size + stride - 1) / stride).ok()?);
                    continue;
                }
            };
            let room = size + before + after - window;
            let mut windows =
                if ceil_mode { (room + stride - 1).div_euclid(stride) } else { room.div_euclid(stride) } + 1;
            // A window must not begin in the padding after the end.
            if ceil_mode && (windows - 1) * stride >= size + before {
                windows -= 1;
            }
            shape.push(usize::try_from(windows).ok().filter(|&windows| windows > 0)?);
        }
        Some(shape)
    }

    fn gemm(&self) -> Option<Vec<usize>> {
        let (&[a_rows, a_columns], &[b_rows, b_columns]) = (self.shape(0)?, self.shape(1)?) else { return None };
        let rows = if self.int("transA", 0) == 0 { a_rows } else { a_columns };
        let columns = if self.int("transB", 0) == 0 { b_columns } else { b_rows };
        Some(vec![rows, columns])
    }

    fn mat_mul(&self) -> Option<Vec<usize>> {
        let ([left @ .., rows, _], [right @ .., _, columns]) = (self.shape(0)?, self.shape(1)?) else { return None };
        let mut shape = broadcast(left, right)?;
        shape.extend([*rows, *columns]);
        Some(shape)
    }

    fn reduce(&self) -> Option<Vec<usize>> {
        let shape = self.shape(0)?;
        let all = || (0..shape.len() as i64).collect();
        let axes = self.ints_or_input("axes", 1).unwrap_or_else(all);
        let axes = axes.into_iter().map(|it| axis(it, shape.len())).collect::<Option<Vec<_>>>()?;
        let keep = self.int("keepdims", 1) != 0;
        let sizes = shape.iter().enumerate();
        Some(
            sizes
                .filter_map(|(index, &size)| if axes.contains(&index) { keep.then_some(1) } else { Some(size) })
                .collect(),
        )
    }

    fn constant(&self) -> Option<Value> {
        let attribute = self.node.attribute.first()?;
        match attribute.r#type() {
            AttributeType::Tensor => Value::of_tensor(attribute.t.as_ref()?),
            AttributeType::Int => Value::of_integers(vec![attribute.i], true),
            AttributeType::Ints => Value::of_integers(attribute.ints.clone(), false),
            AttributeType::Float => Some(Value { constant: true, ..Value::default() }),
            AttributeType::Floats => Some(Value { constant: true, ..Value::of_shape(vec![attribute.floats.len()]) }),
            _ => None,
        }
    }

    fn broadcast(&self) -> Option<Value> {
        let mut shape = vec![];
        for index in 0..self.inputs.len() {
            shape = broadcast(&shape, self.shape(index)?)?;
        }
        Some(Value { integers: self.arithmetic(), ..Value::of_shape(shape) })
    }

    /// The result of arithmetic on two integer vectors, one of which may be a scalar.
    fn arithmetic(&self) -> Option<Vec<i64>> {
        let (left, right) = (self.integers(0)?, self.integers(1)?);
        let at = |all: &[i64], index: usize| all.get(if all.len() == 1 { 0 } else { index }).copied();
        let compute = |index| {
            let (left, right) = (at(&left, index)?, at(&right, index)?);
            match self.node.op_type.as_str() {
                "Add" => left.checked_add(right),
                "Sub" => left.checked_sub(right),
                "Mul" => left.checked_mul(right),
                "Div" => left.checked_div(right),
                _ => None,
            }
        };
        (0..left.len().max(right.len())).map(compute).collect()
    }
}

/// Operators whose output has their first input's shape.
const SAME_SHAPE: &[&str] = &[
    "Abs",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Mish",
    "Neg",
    "PRelu",
    "QuantizeLinear",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
];

/// The dimension that `axis` names among `rank`; negative ones count from the end.
fn axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// Numpy's broadcasting.
fn broadcast(left: &[usize], right: &[usize]) -> Option<Vec<usize>> {
    let rank = left.len().max(right.len());
    let size = |shape: &[usize], index: usize| (index + shape.len()).checked_sub(rank).map_or(1, |index| shape[index]);
    let joined = (0..rank).map(|index| match (size(left, index), size(right, index)) {
        (left, right) if left == right => Some(left),
        (1, other) | (other, 1) => Some(other),
        _ => None,
    });
    joined.collect()
}
