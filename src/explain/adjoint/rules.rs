//! The adjoint of each operator.

use super::writer::Writer;
use super::{Call, Rule};
use crate::error::Result;
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::tensor_proto::DataType as OnnxType;
use crate::onnx::{AttributeProto, NodeProto};
use crate::postprocess::to_f32;
use crate::tensor::Tensor;

/// The operators that have an adjoint here.
const OPERATORS: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "Div",
    "Dropout",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LRN",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// Whether `node` can be run backwards, as far as its operator says.
pub(super) fn is_known(node: &NodeProto) -> bool {
    node.is_standard() && OPERATORS.contains(&node.op_type.as_str())
}

/// What comes back to the inputs with these indices.
type Parts = Vec<(usize, String)>;

impl Call<'_> {
    /// Writes the adjoint, and returns what comes back to each input that lies on the way.
    pub(super) fn adjoint(&self, writer: &mut Writer<'_>) -> Result<Parts> {
        let operator = self.node.op_type.as_str();
        match operator {
            "Add" | "Sum" => return self.each_input(writer, |_, _, arrived| Ok(arrived)),
            "Sub" => {
                return self.each_input(writer, |writer, index, arrived| {
                    Ok(if index == 1 { writer.node("Neg", &[&arrived], vec![]) } else { arrived })
                });
            }
            "Mul" if self.node.input.len() == 2 => {
                return self.each_input(writer, |writer, index, arrived| {
                    let other = writer.forward(&self.node.input[1 - index])?;
                    Ok(writer.node("Mul", &[&arrived, &other], vec![]))
                });
            }
            "Concat" => return self.concat(writer),
            _ => {}
        }
        // All others have one input that depends on the picture, the first.
        if self.is_input_active.iter().skip(1).any(|&active| active) {
            return Err(self.refused("has weights that depend on the picture, and cannot be run backwards"));
        }
        let part = match operator {
            "Relu" | "LeakyRelu" | "Clip" => self.rectifier(writer)?,
            "Sigmoid" | "Tanh" | "HardSigmoid" | "HardSwish" => self.squash(writer)?,
            "Identity" => self.arrived.to_owned(),
            // Between floating-point types. An integer does not follow what it was made of.
            "Cast" if self.is_cast_to_float() => self.arrived.to_owned(),
            // Its second output is a mask, which nothing comes back to.
            "Dropout" if self.output == 0 => self.arrived.to_owned(),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                let shape = self.input_shape(writer)?;
                writer.reshape(self.arrived, &shape)?
            }
            "Transpose" => self.transpose(writer)?,
            "Gather" | "Slice" | "Split" => self.selection(writer)?,
            "Pad" => self.pad(writer)?,
            "Div" => {
                let divisor = writer.forward(&self.node.input[1])?;
                let part = writer.node("Div", &[self.arrived, &divisor], vec![]);
                let shape = self.input_shape(writer)?;
                self.unbroadcast(writer, &part, &shape)?
            }
            "BatchNormalization" => self.batch_normalization(writer)?,
            "LRN" => self.local_response_normalization(writer)?,
            "Gemm" => self.gemm(writer)?,
            "MatMul" => self.mat_mul(writer)?,
            "Conv" => self.conv(writer)?,
            "MaxPool" if self.output == 0 => self.max_pool(writer)?,
            "AveragePool" => self.average_pool(writer)?,
            "GlobalAveragePool" => self.mean(writer, &(2..self.input_shape(writer)?.len()).collect::<Vec<_>>())?,
            "ReduceMean" => self.reduce_mean(writer)?,
            _ => return Err(self.unsupported()),
        };
        Ok(vec![(0, part)])
    }

    /// The shape of the first input.
    pub(super) fn input_shape(&self, writer: &Writer<'_>) -> Result<Vec<usize>> {
        Ok(writer.network.shape(&self.node.input[0])?.to_vec())
    }

    /// The shape of the output.
    pub(super) fn output_shape(&self, writer: &Writer<'_>) -> Result<Vec<usize>> {
        Ok(writer.network.shape(&self.node.output[self.output])?.to_vec())
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute(name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |attribute| attribute.f)
    }

    /// Integers that older versions of an operator have as an attribute, and newer ones as an input.
    pub(super) fn ints(&self, writer: &Writer<'_>, name: &str, input: usize) -> Result<Option<Vec<i64>>> {
        if let Some(attribute) = self.attribute(name) {
            return Ok(Some(match attribute.r#type() {
                AttributeType::Int => vec![attribute.i],
                _ => attribute.ints.clone(),
            }));
        }
        match self.node.input.get(input).filter(|name| !name.is_empty()) {
            Some(name) => {
                let tensor = self.constant(writer, name)?;
                Ok(Some(match tensor.to_slice::<i32>() {
                    Ok(values) => values.iter().map(|&value| value.into()).collect(),
                    Err(_) => tensor.to_slice::<i64>()?.into_owned(),
                }))
            }
            None => Ok(None),
        }
    }

    /// The elements of an input that must be known now.
    pub(super) fn constant(&self, writer: &Writer<'_>, name: &str) -> Result<Tensor> {
        let constant = writer.network.constant(name);
        constant.ok_or_else(|| self.refused(&format!("has the input {name}, which is no constant of the file")))
    }

    /// What comes back to each input of an operator that broadcasts them.
    fn each_input(
        &self,
        writer: &mut Writer<'_>,
        mut part: impl FnMut(&mut Writer<'_>, usize, String) -> Result<String>,
    ) -> Result<Parts> {
        let mut parts = Vec::new();
        for (index, name) in self.node.input.iter().enumerate().filter(|(index, _)| self.is_input_active[*index]) {
            let shape = writer.network.shape(name)?.to_vec();
            let part = part(writer, index, self.arrived.to_owned())?;
            parts.push((index, self.unbroadcast(writer, &part, &shape)?));
        }
        Ok(parts)
    }

    /// Sums `part`, which has the output's shape, over the dimensions that were broadcast from `shape`.
    fn unbroadcast(&self, writer: &mut Writer<'_>, part: &str, shape: &[usize]) -> Result<String> {
        let broadcast = self.output_shape(writer)?;
        if broadcast == shape {
            return Ok(part.to_owned());
        }
        let added = broadcast.len() - shape.len();
        let is_summed = |&axis: &usize| axis < added || shape[axis - added] != broadcast[axis];
        let axes: Vec<_> = (0..broadcast.len()).filter(is_summed).collect();
        let axes = writer.integers(&axes)?;
        let summed = writer.node("ReduceSum", &[part, &axes], vec![AttributeProto::int("keepdims", 1)]);
        writer.reshape(&summed, shape)
    }

    /// A rectifier, of which [`Rule`] tells three ways back.
    fn rectifier(&self, writer: &mut Writer<'_>) -> Result<String> {
        let (low, high) = match self.node.op_type.as_str() {
            "Clip" => self.bounds(writer)?,
            _ => (0.0, f32::INFINITY),
        };
        let slope = if self.node.op_type == "LeakyRelu" { self.float("alpha", 0.01) } else { 0.0 };
        let mut part = self.arrived.to_owned();
        if self.rule != Rule::Gradient {
            part = if slope == 0.0 {
                writer.node("Relu", &[&part], vec![])
            } else {
                writer.node("LeakyRelu", &[&part], vec![AttributeProto::float("alpha", slope)])
            };
        }
        if self.rule == Rule::Deconvnet {
            return Ok(part);
        }
        // Out of the output: the last bits of the input may differ from those that were rectified.
        let output = writer.forward(&self.node.output[0])?;
        let zero = writer.scalar(0.0)?;
        let low = writer.scalar(low)?;
        let mut passes = writer.node("Greater", &[&output, &low], vec![]);
        // The guided rule asks whether a unit answered, which one at its upper bound did.
        if high.is_finite() && self.rule == Rule::Gradient {
            let high = writer.scalar(high)?;
            let under = writer.node("Less", &[&output, &high], vec![]);
            passes = writer.node("And", &[&passes, &under], vec![]);
        }
        let otherwise = if slope == 0.0 {
            zero
        } else {
            let slope = writer.scalar(slope)?;
            writer.node("Mul", &[&part, &slope], vec![])
        };
        Ok(writer.node("Where", &[&passes, &part, &otherwise], vec![]))
    }

    /// The bounds of a `Clip`.
    fn bounds(&self, writer: &Writer<'_>) -> Result<(f32, f32)> {
        let bound = |name: &str, input: usize, default: f32| -> Result<f32> {
            if let Some(attribute) = self.attribute(name) {
                return Ok(attribute.f);
            }
            match self.node.input.get(input).filter(|name| !name.is_empty()) {
                Some(name) => Ok(to_f32(&self.constant(writer, name)?)?.first().copied().unwrap_or(default)),
                None => Ok(default),
            }
        };
        let (low, high) = (bound("min", 1, f32::NEG_INFINITY)?, bound("max", 2, f32::INFINITY)?);
        // Exporters write no bound as the largest number.
        Ok((low, if high >= f32::MAX { f32::INFINITY } else { high }))
    }

    /// Smooth functions of one value.
    fn squash(&self, writer: &mut Writer<'_>) -> Result<String> {
        let one = writer.scalar(1.0)?;
        let slope = match self.node.op_type.as_str() {
            // y * (1 - y)
            "Sigmoid" => {
                let output = writer.forward(&self.node.output[0])?;
                let rest = writer.node("Sub", &[&one, &output], vec![]);
                writer.node("Mul", &[&output, &rest], vec![])
            }
            // 1 - y * y
            "Tanh" => {
                let output = writer.forward(&self.node.output[0])?;
                let square = writer.node("Mul", &[&output, &output], vec![]);
                writer.node("Sub", &[&one, &square], vec![])
            }
            // alpha where 0 < y < 1
            "HardSigmoid" => {
                let output = writer.forward(&self.node.output[0])?;
                let zero = writer.scalar(0.0)?;
                let over = writer.node("Greater", &[&output, &zero], vec![]);
                let under = writer.node("Less", &[&output, &one], vec![]);
                let within = writer.node("And", &[&over, &under], vec![]);
                let alpha = writer.scalar(self.float("alpha", 0.2))?;
                writer.node("Where", &[&within, &alpha, &zero], vec![])
            }
            // x / 3 + 1/2 between -3 and 3, then 0 and 1
            _ => {
                let input = writer.forward(&self.node.input[0])?;
                let [three, low] = [writer.scalar(3.0)?, writer.scalar(-3.0)?];
                let [half, zero] = [writer.scalar(0.5)?, writer.scalar(0.0)?];
                let third = writer.node("Div", &[&input, &three], vec![]);
                let inner = writer.node("Add", &[&third, &half], vec![]);
                let over = writer.node("Greater", &[&input, &three], vec![]);
                let under = writer.node("Less", &[&input, &low], vec![]);
                let upper = writer.node("Where", &[&over, &one, &inner], vec![]);
                writer.node("Where", &[&under, &zero, &upper], vec![])
            }
        };
        Ok(writer.node("Mul", &[self.arrived, &slope], vec![]))
    }

    fn is_cast_to_float(&self) -> bool {
        let element = OnnxType::try_from(self.int("to", 0) as i32);
        matches!(element, Ok(OnnxType::Float | OnnxType::Float16 | OnnxType::Bfloat16 | OnnxType::Double))
    }

    fn batch_normalization(&self, writer: &mut Writer<'_>) -> Result<String> {
        if self.int("training_mode", 0) != 0 || self.output != 0 {
            return Err(self.unsupported());
        }
        let parameter = |index: usize| self.constant(writer, &self.node.input[index]);
        let (scale, variance) = (parameter(1)?, parameter(4)?);
        let epsilon = f64::from(self.float("epsilon", 1e-5));
        let factor =
            |(&scale, &variance): (&f32, &f32)| (f64::from(scale) / (f64::from(variance) + epsilon).sqrt()) as f32;
        let factors: Vec<f32> = to_f32(&scale)?.iter().zip(to_f32(&variance)?.iter()).map(factor).collect();
        let mut shape = vec![1; self.input_shape(writer)?.len()];
        if let Some(channels) = shape.get_mut(1) {
            *channels = factors.len();
        }
        let factors = writer.constant(&shape, factors)?;
        Ok(writer.node("Mul", &[self.arrived, &factors], vec![]))
    }

    /// With `d = bias + alpha / size * sum of x^2` over a channel's neighbours and `p = d^-beta`, the output is `x * p`, and what
    /// comes back is `g * p - 2 * alpha * beta / size * x * sum of (g * x * p / d)` over those whose neighbour the channel is. The sums
    /// are convolutions with a band of ones.
    fn local_response_normalization(&self, writer: &mut Writer<'_>) -> Result<String> {
        let shape = self.input_shape(writer)?;
        let [_, channels, ..] = shape[..] else { return Err(self.unsupported()) };
        let size = usize::try_from(self.int("size", 1)).unwrap_or(1).max(1);
        let (alpha, beta) = (self.float("alpha", 1e-4), self.float("beta", 0.75));
        let (before, after) = ((size - 1) / 2, size / 2);
        // Whether `other` is among the neighbours of `channel`.
        let is_near = |channel: usize, other: usize| other + before >= channel && other <= channel + after;
        let band = |near: &dyn Fn(usize, usize) -> bool| -> Vec<f32> {
            (0..channels * channels).map(|at| if near(at / channels, at % channels) { 1.0 } else { 0.0 }).collect()
        };
        let kernel = [channels, channels, 1, 1];
        let around = writer.constant(&kernel, band(&is_near))?;
        let back = writer.constant(&kernel, band(&|channel, other| is_near(other, channel)))?;
        let x = writer.forward(&self.node.input[0])?;
        let [weight, bias] = [writer.scalar(alpha / size as f32)?, writer.scalar(self.float("bias", 1.0))?];
        let [exponent, factor] = [writer.scalar(-beta)?, writer.scalar(2.0 * alpha * beta / size as f32)?];

        let square = writer.node("Mul", &[&x, &x], vec![]);
        let sum = writer.node("Conv", &[&square, &around], vec![]);
        let scaled = writer.node("Mul", &[&sum, &weight], vec![]);
        let d = writer.node("Add", &[&scaled, &bias], vec![]);
        let p = writer.node("Pow", &[&d, &exponent], vec![]);
        let direct = writer.node("Mul", &[self.arrived, &p], vec![]);
        let weighted = writer.node("Mul", &[&direct, &x], vec![]);
        let weighted = writer.node("Div", &[&weighted, &d], vec![]);
        let gathered = writer.node("Conv", &[&weighted, &back], vec![]);
        let gathered = writer.node("Mul", &[&gathered, &x], vec![]);
        let gathered = writer.node("Mul", &[&gathered, &factor], vec![]);
        Ok(writer.node("Sub", &[&direct, &gathered], vec![]))
    }

    fn gemm(&self, writer: &mut Writer<'_>) -> Result<String> {
        if self.int("transA", 0) != 0 {
            return Err(self.unsupported());
        }
        let weights = writer.forward(&self.node.input[1])?;
        let transposed = 1 - self.int("transB", 0);
        let attributes =
            vec![AttributeProto::int("transB", transposed), AttributeProto::float("alpha", self.float("alpha", 1.0))];
        Ok(writer.node("Gemm", &[self.arrived, &weights], attributes))
    }

    fn mat_mul(&self, writer: &mut Writer<'_>) -> Result<String> {
        let name = &self.node.input[1];
        let rank = writer.network.shape(name)?.len();
        let weights = writer.forward(name)?;
        if rank == 2 && self.output_shape(writer)?.len() == 2 {
            return Ok(writer.node("Gemm", &[self.arrived, &weights], vec![AttributeProto::int("transB", 1)]));
        }
        if rank != 2 {
            return Err(self.unsupported());
        }
        let weights = writer.node("Transpose", &[&weights], vec![AttributeProto::ints("perm", [1, 0])]);
        Ok(writer.node("MatMul", &[self.arrived, &weights], vec![]))
    }
}
