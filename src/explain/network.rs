//! A model's own graph, read to be looked into: which node gives which value, what shapes they have, and the part of the graph
//! that some values need, as a graph of its own.

use std::collections::{HashMap, HashSet};

use tracing::debug;

use crate::engine::{Evaluation, Runtime};
use crate::error::{Error, Result};
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::tensor::{DataType, Tensor};
use crate::zoo::describe::shapes_of_model;

/// Operators that pass the class scores on, or turn them into probabilities.
const BEHIND_SCORES: &[&str] =
    &["Softmax", "LogSoftmax", "Flatten", "Identity", "Reshape", "Squeeze", "Cast", "Dropout"];

/// Operators that the last feature maps of a classifier lie before: pooling, and what does not compute.
const BEHIND_MAPS: &[&str] =
    &["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Dropout", "Identity", "Cast"];

/// A model's graph with indices into it.
#[derive(Debug)]
pub(super) struct Network {
    model: ModelProto,
    graph: GraphProto,
    input: String,
    shapes: HashMap<String, Vec<usize>>,
    /// The node that gives each value.
    producers: HashMap<String, usize>,
    initializers: HashMap<String, usize>,
}

impl Network {
    /// Reads `model`, to which a picture of the shape `picture`, without the batch dimension, is given.
    ///
    /// # Errors
    /// `InvalidArgument` when the model has no graph or no input.
    pub(super) fn new(mut model: ModelProto, picture: [usize; 3]) -> Result<Self> {
        let shapes = shapes_of_model(&model, Some(picture))?;
        let graph = model.graph.take().ok_or_else(|| Error::invalid("the model has no graph"))?;
        let initializers: HashMap<_, _> =
            graph.initializer.iter().enumerate().map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        let input = graph.input.iter().find(|input| !initializers.contains_key(&input.name));
        let input = input.ok_or_else(|| Error::invalid("the model has no input"))?.name.clone();
        let outputs = |(index, node): (usize, &NodeProto)| {
            node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.clone(), index)).collect::<Vec<_>>()
        };
        let producers = graph.node.iter().enumerate().flat_map(outputs).collect();
        Ok(Self { model, graph, input, shapes, producers, initializers })
    }

    /// The name of the picture's value.
    pub(super) fn input(&self) -> &str {
        &self.input
    }

    /// The nodes in the order that they are computed in.
    pub(super) fn nodes(&self) -> &[NodeProto] {
        &self.graph.node
    }

    /// The node that gives the value `name`.
    pub(super) fn producer(&self, name: &str) -> Option<&NodeProto> {
        self.producers.get(name).map(|&index| &self.graph.node[index])
    }

    /// The shape of a value, batch dimension included.
    ///
    /// # Errors
    /// `InvalidArgument` where it is not known.
    pub(super) fn shape(&self, name: &str) -> Result<&[usize]> {
        let unknown = || Error::invalid(format!("the shape of {name} is not known, so it cannot be explained"));
        self.shapes.get(name).map(Vec::as_slice).ok_or_else(unknown)
    }

    /// Finds out the shapes that cannot be inferred from the graph, by a run on zeros of the type `input`. Those that only another
    /// provider than the CPU could tell stay unknown.
    pub(super) fn measure_shapes(&mut self, runtime: &Runtime, input: DataType) {
        let outputs = self.graph.node.iter().flat_map(|node| &node.output);
        let unknown: Vec<_> =
            outputs.filter(|name| !name.is_empty() && !self.shapes.contains_key(*name)).cloned().collect();
        if unknown.is_empty() {
            return;
        }
        let shapes = self.shape(&self.input).and_then(|shape| {
            let bytes = shape.iter().product::<usize>() * input.size().unwrap_or(1);
            let zeros = Tensor::new(input, shape.to_vec(), vec![0; bytes].into())?;
            Evaluation::new(runtime, self.extract(&unknown), false)?.shapes(&[zeros])
        });
        match shapes {
            Ok(shapes) => {
                let known = unknown.into_iter().zip(shapes).filter_map(|(name, shape)| Some((name, shape?)));
                self.shapes.extend(known);
            }
            Err(error) => debug!("the shapes of {} values are not known: {}", unknown.len(), error.chain()),
        }
    }

    /// The elements of a value that is the same for every picture, where the file has them.
    pub(super) fn constant(&self, name: &str) -> Option<Tensor> {
        if let Some(&index) = self.initializers.get(name) {
            return self.graph.initializer[index].to_tensor().ok();
        }
        let node = self.producer(name)?;
        match (node.op_type.as_str(), node.attribute.first(), node.input.first()) {
            ("Constant", Some(value), _) => constant_of(value),
            // Exporters share an initializer in this way. It cannot go on for ever: a node's inputs come before it.
            ("Identity", _, Some(input)) if input != name => self.constant(input),
            _ => None,
        }
    }

    /// The value that the layer called `name` gives: a node's, or a value's own name.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub(super) fn layer(&self, name: &str) -> Result<String> {
        let named = self.graph.node.iter().find(|node| node.name == name).and_then(|node| node.output.first());
        let output = named.cloned().or_else(|| self.producers.contains_key(name).then(|| name.to_owned()));
        let output = output.filter(|output| self.depends_on(output, &self.input));
        output.ok_or_else(|| Error::not_found(format!("the model has no layer called {name}")))
    }

    /// What comes into `value`, where that is kept within bounds, as `ReLU6` does.
    pub(super) fn before_bounds(&self, value: &str) -> Option<&str> {
        let clip = self.producer(value).filter(|node| node.op_type == "Clip")?;
        clip.input.first().map(String::as_str).filter(|input| *input != self.input && self.shapes.contains_key(*input))
    }

    /// The name of the layer that gives `value`: the node's, where it has one.
    pub(super) fn layer_name<'a>(&'a self, value: &'a str) -> &'a str {
        self.producer(value).map(|node| node.name.as_str()).filter(|name| !name.is_empty()).unwrap_or(value)
    }

    /// The value that holds the logits of the graph's `output`: what a softmax at the end is applied to.
    pub(super) fn logits(&self, output: &str) -> String {
        let mut value = output;
        let mut logits = output;
        // A softmax may lie before or behind operators that only pass values on.
        while let Some(node) = self.producer(value).filter(|node| BEHIND_SCORES.contains(&node.op_type.as_str()))
            && let Some(input) = node.input.first()
            && self.class_axis(input).is_some()
        {
            value = input;
            if node.op_type.ends_with("oftmax") {
                logits = input;
            }
        }
        logits.to_owned()
    }

    /// The axis of the classes, where `value` has one element for each class.
    fn class_axis(&self, value: &str) -> Option<usize> {
        let shape = self.shapes.get(value)?;
        (shape.len() >= 2 && shape[2..].iter().all(|&size| size == 1)).then_some(1)
    }

    /// The last feature maps before `logits`: where rows and columns still are, before the pooling that does away with them.
    ///
    /// # Errors
    /// `InvalidArgument` when there are none.
    pub(super) fn last_maps(&self, logits: &str) -> Result<String> {
        let mut value = logits;
        while let Some(node) = self.producer(value) {
            let has_maps =
                matches!(self.shapes.get(value).map(Vec::as_slice), Some([_, _, height, width]) if height * width > 1);
            if has_maps && !BEHIND_MAPS.contains(&node.op_type.as_str()) {
                return Ok(value.to_owned());
            }
            match node.input.iter().find(|input| self.depends_on(input, &self.input)) {
                Some(input) => value = input,
                None => break,
            }
        }
        Err(Error::invalid("the model has no feature maps before its class scores: name a layer"))
    }

    /// Which values depend on those of `from`, `from` itself included. A shape does not: it is the same for every picture.
    pub(super) fn dependents(&self, from: &str) -> HashSet<&str> {
        let mut dependents = HashSet::new();
        dependents.extend(self.producers.get_key_value(from).map(|(name, _)| name.as_str()));
        dependents.extend((from == self.input).then_some(self.input.as_str()));
        for node in &self.graph.node {
            let is_of_values = !matches!(node.op_type.as_str(), "Shape" | "Size");
            if is_of_values && node.reads().any(|input| dependents.contains(input)) {
                dependents.extend(node.output.iter().filter(|name| !name.is_empty()).map(String::as_str));
            }
        }
        dependents
    }

    /// Whether `value` depends on `from`.
    pub(super) fn depends_on(&self, value: &str, from: &str) -> bool {
        self.ancestors(std::iter::once(value)).contains(from)
    }

    /// The values that `values` are computed from, themselves included.
    pub(super) fn ancestors<'a>(&'a self, values: impl IntoIterator<Item = &'a str>) -> HashSet<&'a str> {
        let mut found = HashSet::new();
        let mut pending: Vec<&str> = values.into_iter().collect();
        while let Some(value) = pending.pop() {
            if found.insert(value)
                && let Some(node) = self.producer(value)
            {
                pending.extend(node.reads());
            }
        }
        found
    }

    /// The version of ONNX's own operators.
    pub(super) fn opset(&self) -> i64 {
        self.model.opset()
    }

    /// The model that computes `outputs` and nothing else. Where one is the [`switches`] of a max-pooling node, that node gives
    /// them.
    pub(super) fn extract(&self, outputs: &[String]) -> ModelProto {
        let pools = self.graph.node.iter().filter(|node| node.op_type == "MaxPool");
        let switched: HashSet<_> =
            pools.filter(|node| outputs.contains(&switches(node))).map(|node| node.output[0].as_str()).collect();
        let wanted = outputs.iter().map(String::as_str).chain(switched.iter().copied());
        let needed = self.ancestors(wanted);
        let node = |node: &NodeProto| {
            let mut node = node.clone();
            if node.output.first().is_some_and(|pooled| switched.contains(pooled.as_str())) {
                let second = switches(&node);
                node.output.resize(2, String::new());
                node.output[1] = second;
            }
            node
        };
        let is_needed = |node: &&NodeProto| node.output.iter().any(|output| needed.contains(output.as_str()));
        let graph = GraphProto {
            name: self.graph.name.clone(),
            node: self.graph.node.iter().filter(is_needed).map(node).collect(),
            initializer: self
                .graph
                .initializer
                .iter()
                .filter(|it| needed.contains(it.name.as_str()))
                .cloned()
                .collect(),
            sparse_initializer: self.graph.sparse_initializer.clone(),
            input: self
                .graph
                .input
                .iter()
                .filter(|it| it.name == self.input || needed.contains(it.name.as_str()))
                .cloned()
                .collect(),
            output: outputs
                .iter()
                .map(|name| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() })
                .collect(),
            ..GraphProto::default()
        };
        ModelProto { graph: Some(graph), ..self.model.clone() }
    }

    /// The initializer called `name`.
    pub(super) fn initializer(&self, name: &str) -> Option<&TensorProto> {
        self.initializers.get(name).map(|&index| &self.graph.initializer[index])
    }
}

/// The name under which the switches of the max-pooling `node` are given: where in its input each of its maxima lies, as ONNX counts.
pub(super) fn switches(node: &NodeProto) -> String {
    match node.output.get(1).filter(|name| !name.is_empty()) {
        Some(name) => name.clone(),
        None => format!("{}/switches", node.output.first().map_or("", String::as_str)),
    }
}

fn constant_of(attribute: &AttributeProto) -> Option<Tensor> {
    match attribute.r#type() {
        AttributeType::Tensor => attribute.t.as_ref()?.to_tensor().ok(),
        AttributeType::Float => Tensor::from_vec(vec![], vec![attribute.f]).ok(),
        AttributeType::Int => Tensor::from_vec(vec![], vec![attribute.i]).ok(),
        AttributeType::Floats => Tensor::from_vec(vec![attribute.floats.len()], attribute.floats.clone()).ok(),
        AttributeType::Ints => Tensor::from_vec(vec![attribute.ints.len()], attribute.ints.clone()).ok(),
        _ => None,
    }
}
