//! A network run backwards: from the values of one layer to those of an earlier one, the picture for instance, as an ONNX graph
//! made of the model's own.
//!
//! Each operator is replaced by its adjoint at the values that a forward run gave: a convolution by a transposed one with the
//! same filters, max-pooling by putting values back where the maxima were. Without more, that is the gradient. The other two
//! [`Rule`]s change what is done at a rectifier and nothing else. `rules` has one function an operator.

mod rules;
mod spatial;
mod writer;

use std::collections::HashMap;

use self::writer::Writer;
use super::network::Network;
use crate::error::{Error, ErrorKind, Result};
use crate::onnx::{ModelProto, NodeProto};

/// What passes a rectifier on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// What is positive itself: Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks".
    Deconvnet,
    /// What is positive itself, where the forward value was positive: Springenberg et al. 2014, "Striving for Simplicity: The All
    /// Convolutional Net".
    Guided,
    /// Everything, where the forward value was positive: Simonyan et al. 2013, "Deep Inside Convolutional Networks".
    Gradient,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::Deconvnet, Self::Guided, Self::Gradient];
}

/// A graph that takes a layer's values back to an earlier layer.
#[derive(Debug)]
pub(super) struct Adjoint {
    /// Its inputs are what is to be taken back, of the layer's shape, and then [`Adjoint::saved`]; its output has the shape of the
    /// earlier layer's. All in FP32, but for the switches.
    pub(super) model: ModelProto,
    /// The values of a forward run that it takes.
    pub(super) saved: Vec<String>,
    /// Whether among these are the switches of a max-pooling node.
    pub(super) has_switches: bool,
}

impl Adjoint {
    /// The graph from the value `from` back to `to`.
    ///
    /// # Errors
    /// `InvalidArgument` when `from` does not depend on `to`; `Unimplemented`, naming the node and its operator, for what cannot
    /// be run backwards.
    pub(super) fn new(network: &Network, from: &str, to: &str, rule: Rule) -> Result<Self> {
        const SEED: &str = "adjoint/seed";
        let dependents = network.dependents(to);
        let ancestors = network.ancestors([from]);
        let is_active = |name: &str| dependents.contains(name) && ancestors.contains(name);
        if !is_active(from) {
            let (from, to) = (network.layer_name(from), network.layer_name(to));
            return Err(Error::invalid(format!("the layer {from} does not depend on {to}")));
        }
        let is_way = |node: &&NodeProto| {
            node.reads().any(&is_active) && node.output.iter().any(|name| is_active(name) && name != to)
        };
        // Said first: the shapes that the others need are unknown behind an operator that is.
        if let Some(node) = network.nodes().iter().rev().filter(is_way).find(|node| !rules::is_known(node)) {
            return Err(unsupported(node));
        }
        let mut writer = Writer::new(network);
        writer.input(SEED, network.shape(from)?);
        let mut parts: HashMap<&str, Vec<String>> = HashMap::from([(from, vec![SEED.to_owned()])]);
        for node in network.nodes().iter().rev() {
            let is_input_active: Vec<_> = node.input.iter().map(|name| is_active(name)).collect();
            // What lies before `to` has no part in it.
            if !is_input_active.contains(&true) || node.output.iter().any(|output| output == to) {
                continue;
            }
            for (index, output) in node.output.iter().enumerate() {
                let Some(arrived) = parts.remove(output.as_str()).filter(|_| !output.is_empty()) else { continue };
                let arrived = sum(&mut writer, arrived);
                let call = Call { node, output: index, arrived: &arrived, is_input_active: &is_input_active, rule };
                for (input, part) in call.adjoint(&mut writer)? {
                    parts.entry(node.input[input].as_str()).or_default().push(part);
                }
            }
        }
        let arrived = parts.remove(to).unwrap_or_default();
        if arrived.is_empty() {
            let (from, to) = (network.layer_name(from), network.layer_name(to));
            return Err(Error::invalid(format!("nothing of the layer {from} comes back to {to}")));
        }
        let output = sum(&mut writer, arrived);
        let has_switches = writer.has_switches;
        let (model, saved) = writer.finish(&output, network.shape(to)?);
        Ok(Self { model, saved, has_switches })
    }
}

/// The sum of what comes back to a value from its readers.
fn sum(writer: &mut Writer<'_>, parts: Vec<String>) -> String {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |sum, part| writer.node("Add", &[&sum, &part], vec![]))
}

/// A node to be run backwards.
struct Call<'a> {
    node: &'a NodeProto,
    /// Which of its outputs something came back to.
    output: usize,
    /// What came back.
    arrived: &'a str,
    /// Which of its inputs lie on the way.
    is_input_active: &'a [bool],
    rule: Rule,
}

impl Call<'_> {
    fn unsupported(&self) -> Error {
        unsupported(self.node)
    }

    fn refused(&self, why: &str) -> Error {
        refused(self.node, why)
    }
}

fn unsupported(node: &NodeProto) -> Error {
    refused(node, "cannot be run backwards")
}

fn refused(node: &NodeProto, why: &str) -> Error {
    let message = format!("the operator {} of the node {} {why}", node.op_type, node.called());
    Error::new(ErrorKind::Unimplemented, message)
}
