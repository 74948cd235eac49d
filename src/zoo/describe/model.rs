//! The costs of an ONNX model.

use std::collections::{HashMap, HashSet};

use super::shapes::{Call, Value};
use super::{Description, LayerCost, elements, macs, works_in_place};
use crate::error::{Error, Result};
use crate::onnx::proto::tensor_proto::DataType as OnnxType;
use crate::onnx::proto::tensor_shape_proto::dimension;
use crate::onnx::proto::type_proto;
use crate::onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

/// The rows and columns of a picture where the graph leaves them open: what nearly every ImageNet network takes.
const OPEN_SIZE: usize = 224;

impl Description {
    /// The costs of `model` for one picture. Where its graph leaves rows and columns open, they are those of `picture`, a shape
    /// without the batch dimension, or else 224.
    ///
    /// # Errors
    /// `InvalidArgument` when the model has no input.
    pub fn of_model(model: &ModelProto, picture: Option<[usize; 3]>) -> Result<Self> {
        let (graph, costs) = costs(model, picture)?;
        Ok(costs.finish(&graph.name))
    }
}

/// The shapes, batch dimension included, of the values of `model` by name, for one picture or as many as the graph fixes. Where
/// its graph leaves rows and columns open, they are those of `picture`, as in [`Description::of_model`]. Values whose shape
/// cannot be inferred are left out.
///
/// # Errors
/// `InvalidArgument` when the model has no input.
pub fn shapes_of_model(model: &ModelProto, picture: Option<[usize; 3]>) -> Result<HashMap<String, Vec<usize>>> {
    let (_, costs) = costs(model, picture)?;
    Ok(costs.values.into_iter().map(|(name, value)| (name.to_owned(), value.shape)).collect())
}

/// What is known of the values and layers of `model`.
fn costs(model: &ModelProto, picture: Option<[usize; 3]>) -> Result<(&GraphProto, Costs<'_>)> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::invalid("the model has no graph"))?;
    let constants: HashSet<_> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    // Before version 4 of the format, initializers were inputs too.
    let input = graph.input.iter().find(|input| !constants.contains(input.name.as_str()));
    let input = input.ok_or_else(|| Error::invalid("the model has no input"))?;
    let shape = input_shape(input, picture)
        .ok_or_else(|| Error::invalid(format!("the input {} has no shape of a picture", input.name)))?;
    let mut costs = Costs::new(graph, input, shape);
    for node in &graph.node {
        costs.node(node);
    }
    Ok((graph, costs))
}

/// The shape of the input with all dimensions known; the batch is 1 unless the graph fixes it.
fn input_shape(input: &ValueInfoProto, picture: Option<[usize; 3]>) -> Option<Vec<usize>> {
    let shape = dimensions(input)?;
    let (batch, row) = shape.split_first()?;
    let open = |index: usize| picture.and_then(|picture| picture.get(index).copied()).unwrap_or(OPEN_SIZE);
    let row = row.iter().enumerate().map(|(index, size)| size.unwrap_or_else(|| open(index)));
    Some(std::iter::once(batch.unwrap_or(1).max(1)).chain(row).collect())
}

/// A value's dimensions as the file states them, `None` where they are open.
fn dimensions(value: &ValueInfoProto) -> Option<Vec<Option<usize>>> {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref()?.value.as_ref() else { return None };
    let dimensions = tensor.shape.as_ref()?.dim.iter().map(|dimension| match dimension.value {
        Some(dimension::Value::DimValue(size)) => usize::try_from(size).ok(),
        _ => None,
    });
    Some(dimensions.collect())
}

/// Bytes of an element of the activations: those of the input, where it is floating-point.
fn element_bytes(input: &ValueInfoProto) -> u64 {
    let r#type = input.r#type.as_ref().and_then(|it| it.value.as_ref());
    match r#type {
        Some(type_proto::Value::TensorType(tensor)) if tensor.elem_type == i32::from(OnnxType::Float16) => 2,
        _ => 4,
    }
}

struct Costs<'a> {
    values: HashMap<&'a str, Value>,
    /// Shapes that the file states.
    stated: HashMap<&'a str, &'a ValueInfoProto>,
    /// Outputs whose shape cannot be inferred.
    unknown: HashSet<&'a str>,
    /// Constants whose parameters are counted.
    counted: HashSet<&'a str>,
    input_shape: Vec<usize>,
    element_bytes: u64,
    layers: Vec<LayerCost>,
    not_inferred: Vec<String>,
}

impl<'a> Costs<'a> {
    fn new(graph: &'a GraphProto, input: &'a ValueInfoProto, input_shape: Vec<usize>) -> Self {
        let initializers = graph.initializer.iter();
        let mut values: HashMap<_, _> =
            initializers.filter_map(|tensor| Some((tensor.name.as_str(), Value::of_tensor(tensor)?))).collect();
        values.insert(input.name.as_str(), Value::of_shape(input_shape.clone()));
        Self {
            values,
            stated: graph.value_info.iter().chain(&graph.output).map(|value| (value.name.as_str(), value)).collect(),
            unknown: HashSet::new(),
            counted: HashSet::new(),
            input_shape,
            element_bytes: element_bytes(input),
            layers: vec![],
            not_inferred: vec![],
        }
    }

    fn node(&mut self, node: &'a NodeProto) {
        let present = || node.input.iter().filter(|name| !name.is_empty());
        let known = present().all(|name| self.values.contains_key(name.as_str()));
        let inputs = node.input.iter().map(|name| self.values.get(name.as_str())).collect();
        let inferred = if known && node.is_standard() { Call { node, inputs }.infer() } else { None };
        // A node without inputs is a constant, as is one with nothing but constants, and the shape of a value.
        let constant = present().all(|name| self.values.get(name.as_str()).is_some_and(|value| value.constant));
        let outputs = inferred.or_else(|| {
            let stated = self.stated(node);
            // What only follows from another node is that one's fault. An input that nothing before gives is this one's.
            let follows = present().any(|name| self.unknown.contains(name.as_str()));
            if stated.is_none() && !follows {
                let domain = if node.is_standard() { String::new() } else { format!("{}.", node.domain) };
                self.not_inferred.push(format!("{domain}{} ({})", node.op_type, node.called()));
            }
            stated
        });
        let outputs: Vec<_> = outputs
            .into_iter()
            .flatten()
            .map(|output| Value { constant: output.constant || constant, ..output })
            .collect();
        let is_layer = !(constant || outputs.iter().any(|output| output.constant));
        if is_layer {
            self.layer(node, outputs.first());
        }
        self.unknown.extend(node.output.iter().skip(outputs.len()).map(String::as_str));
        for (name, output) in node.output.iter().zip(outputs) {
            self.values.insert(name, output);
        }
    }

    /// The outputs' shapes as the file states them, of all or of none.
    fn stated(&self, node: &NodeProto) -> Option<Vec<Value>> {
        let batch = self.input_shape[0];
        let shape = |name: &String| {
            let mut dimensions = dimensions(self.stated.get(name.as_str())?)?;
            if let Some(first) = dimensions.first_mut() {
                first.get_or_insert(batch);
            }
            Some(Value::of_shape(dimensions.into_iter().collect::<Option<_>>()?))
        };
        node.output.iter().map(shape).collect()
    }

    fn layer(&mut self, node: &'a NodeProto, output: Option<&Value>) {
        let batch = self.input_shape[0] as u64;
        let output_shape = output.map(|output| output.shape.as_slice());
        let activation_bytes = match output_shape {
            Some(shape) if !works_in_place(&node.op_type) => self.element_bytes.saturating_mul(elements(shape) / batch),
            _ => 0,
        };
        let layer = LayerCost {
            name: node.called().to_owned(),
            operator: node.op_type.clone(),
            output_shape: output_shape.map(|shape| shape.get(1..).unwrap_or_default().to_vec()),
            parameters: self.parameters(node),
            macs: output_shape.and_then(|shape| self.macs(node, shape)).unwrap_or(0) / batch,
            activation_bytes,
        };
        self.layers.push(layer);
    }

    /// The parameters that no node before has counted: constant inputs of more than one element.
    fn parameters(&mut self, node: &'a NodeProto) -> u64 {
        let learned: &[String] = match node.op_type.as_str() {
            "Conv"
            | "ConvTranspose"
            | "Gemm"
            | "MatMul"
            | "InstanceNormalization"
            | "LayerNormalization"
            | "PRelu"
            | "Add"
            | "Sub"
            | "Mul"
            | "Div" => &node.input,
            // The other two are running statistics.
            "BatchNormalization" => node.input.get(..3).unwrap_or_default(),
            _ => &[],
        };
        let mut total: u64 = 0;
        for name in learned {
            let Some(value) = self.values.get(name.as_str()) else { continue };
            let count = elements(&value.shape);
            if value.constant && count > 1 && self.counted.insert(name) {
                total = total.saturating_add(count);
            }
        }
        total
    }

    fn macs(&self, node: &NodeProto, output: &[usize]) -> Option<u64> {
        let shape = |index: usize| Some(self.values.get(node.input.get(index)?.as_str())?.shape.as_slice());
        match node.op_type.as_str() {
            "Conv" => Some(macs(shape(1)?, output)),
            "Gemm" => {
                let transposed = node.attribute("transA").is_some_and(|attribute| attribute.i != 0);
                let depth = *shape(0)?.get(usize::from(!transposed))?;
                Some(elements(output).saturating_mul(depth as u64))
            }
            "MatMul" => Some(elements(output).saturating_mul(*shape(0)?.last()? as u64)),
            _ => None,
        }
    }

    fn finish(self, name: &str) -> Description {
        Description::new(name, self.input_shape[1..].to_vec(), self.layers, self.not_inferred)
    }
}
