//! Writing an ONNX graph node by node.

use std::collections::HashSet;

use super::super::network::Network;
use crate::error::Result;
use crate::onnx::proto::tensor_proto::DataType as OnnxType;
use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::{TensorShapeProto, type_proto};
use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
};
use crate::tensor::{Element, Tensor};

/// The version of ONNX's operators in which the graph is written: the first that has `ScatterElements` adding is 16.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// A graph that is being written.
pub(super) struct Writer<'a> {
    pub(super) network: &'a Network,
    graph: GraphProto,
    /// The values of the forward graph that this one is given.
    saved: Vec<String>,
    /// Whether among these are the switches of a max-pooling node.
    pub(super) has_switches: bool,
    initializers: HashSet<String>,
    count: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(network: &'a Network) -> Self {
        Self {
            network,
            graph: GraphProto::default(),
            saved: Vec::new(),
            has_switches: false,
            initializers: HashSet::new(),
            count: 0,
        }
    }

    /// Adds a node with one output, and returns that.
    pub(super) fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh();
        self.graph.node.push(NodeProto {
            op_type: operator.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attributes,
            ..NodeProto::default()
        });
        output
    }

    /// Adds a constant.
    pub(super) fn constant<T: Element>(&mut self, shape: &[usize], values: Vec<T>) -> Result<String> {
        let name = self.fresh();
        let tensor = Tensor::from_vec(shape.to_vec(), values)?;
        self.graph.initializer.push(TensorProto::new(&name, &tensor)?);
        Ok(name)
    }

    /// Adds a number.
    pub(super) fn scalar(&mut self, value: f32) -> Result<String> {
        self.constant(&[], vec![value])
    }

    /// Adds a list of sizes or places.
    pub(super) fn integers(&mut self, values: &[usize]) -> Result<String> {
        self.constant(&[values.len()], values.iter().map(|&value| value as i64).collect())
    }

    /// Gives `value` the shape `shape`.
    pub(super) fn reshape(&mut self, value: &str, shape: &[usize]) -> Result<String> {
        let shape = self.integers(shape)?;
        Ok(self.node("Reshape", &[value, &shape], vec![]))
    }

    /// A floating-point value of the forward graph: a weight is taken over, everything else is given to this graph.
    pub(super) fn forward(&mut self, name: &str) -> Result<String> {
        if self.initializers.contains(name) {
            return Ok(name.to_owned());
        }
        let Some(initializer) = self.network.initializer(name) else {
            let shape = self.network.shape(name)?;
            return Ok(self.saved(name, OnnxType::Float, shape));
        };
        if initializer.data_type == i32::from(OnnxType::Float) {
            // The elements are shared with the file's, not copied.
            self.graph.initializer.push(initializer.clone());
        } else {
            let tensor = initializer.to_tensor()?;
            let values = crate::postprocess::to_f32(&tensor)?.into_owned();
            let tensor = Tensor::from_vec(tensor.shape().to_vec(), values)?;
            self.graph.initializer.push(TensorProto::new(name, &tensor)?);
        }
        self.initializers.insert(name.to_owned());
        Ok(name.to_owned())
    }

    /// A value of the forward graph that this one is given.
    pub(super) fn saved(&mut self, name: &str, element: OnnxType, shape: &[usize]) -> String {
        if !self.saved.iter().any(|saved| saved == name) {
            self.saved.push(name.to_owned());
            self.has_switches |= element == OnnxType::Int64;
            self.graph.input.push(described(name, element, shape));
        }
        name.to_owned()
    }

    /// Adds an input of the graph's own.
    pub(super) fn input(&mut self, name: &str, shape: &[usize]) {
        self.graph.input.push(described(name, OnnxType::Float, shape));
    }

    /// The model that computes `output`, and the values that it is given.
    pub(super) fn finish(mut self, output: &str, shape: &[usize]) -> (ModelProto, Vec<String>) {
        "adjoint".clone_into(&mut self.graph.name);
        self.graph.output = vec![described(output, OnnxType::Float, shape)];
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: "convoy".to_owned(),
            graph: Some(self.graph),
            ..ModelProto::default()
        };
        (model, self.saved)
    }

    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("adjoint/{}", self.count)
    }
}

fn described(name: &str, element: OnnxType, shape: &[usize]) -> ValueInfoProto {
    let dimension =
        |&size: &usize| Dimension { value: Some(dimension::Value::DimValue(size as i64)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: shape.iter().map(dimension).collect() };
    let tensor = type_proto::Tensor { elem_type: element.into(), shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}
