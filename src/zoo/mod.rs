//! The model zoo: architectures as functions that write ONNX graphs from checkpoints.
//!
//! An architecture builds a [`Graph`] of named layers; [`Architecture::to_onnx`] fills it with [`Weights`]. Tensors have the
//! names that the architecture's reference implementation gives them, torchvision's where it has the architecture.
//! Nothing here knows how a model is run or served.

pub mod builder;
mod efficientnet_lite;
mod emit;
pub mod graph;
mod recipe;
mod resnet;
pub mod weights;

use crate::error::{Error, Result};
use crate::onnx::ModelProto;
use builder::GraphBuilder;
use graph::{Graph, Value};
pub use recipe::Recipe;
use weights::Weights;

/// A network architecture.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// Its name on the command line and in a model's metadata.
    pub name: &'static str,
    /// Its name in prose.
    pub title: &'static str,
    /// The paper it comes from.
    pub paper: &'static str,
    /// The rows and columns of its input.
    pub input_size: usize,
    /// How its pictures are prepared.
    pub recipe: Recipe,
    /// The layer that gives the logits, whose weights say how many classes there are.
    classifier: &'static str,
    /// Adds the layers from the input to the logits.
    layers: fn(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value,
}

/// Every architecture there is.
pub const ARCHITECTURES: &[Architecture] = &[
    efficientnet_lite::LITE0,
    resnet::RESNET18,
    resnet::RESNET34,
    resnet::RESNET50,
    resnet::RESNET101,
    resnet::RESNET152,
    resnet::RESNEXT50_32X4D,
    resnet::RESNEXT101_32X8D,
    resnet::RESNEXT101_64X4D,
    resnet::WIDE_RESNET50_2,
    resnet::WIDE_RESNET101_2,
];

/// The number of classes where the weights don't say it: ImageNet-1k's.
pub const IMAGENET_CLASSES: usize = 1000;

impl Architecture {
    /// The architecture called `name`.
    ///
    /// # Errors
    /// `NotFound` with the names there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name).ok_or_else(|| {
            let names: Vec<_> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            Error::not_found(format!("there is no architecture {name}; there are {}", names.join(", ")))
        })
    }

    /// The layers, for `classes` classes.
    pub fn graph(&self, classes: usize) -> Graph {
        let mut builder = GraphBuilder::new(self.input_size);
        let logits = (self.layers)(&mut builder, Value::INPUT, classes);
        builder.finish(logits)
    }

    /// The number of classes that `weights` are for.
    pub fn classes(&self, weights: &Weights) -> usize {
        weights.rows(&format!("{}.weight", self.classifier)).unwrap_or(IMAGENET_CLASSES)
    }

    /// The ONNX model with `weights`, which say how many classes there are.
    ///
    /// # Errors
    /// Those of [`Graph::to_onnx`].
    pub fn to_onnx(&self, weights: &Weights, keep_batch_norm: bool) -> Result<ModelProto> {
        self.graph(self.classes(weights)).to_onnx(self.name, weights, keep_batch_norm)
    }
}
