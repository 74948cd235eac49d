//! The model zoo: architectures as functions that write ONNX graphs from checkpoints.
//!
//! An architecture builds a [`Graph`] of named layers; [`Architecture::to_onnx`] fills it with [`Weights`]. Tensors have the
//! names that the architecture's reference implementation gives them, torchvision's where it has the architecture.
//! Nothing here knows how a model is run or served.

mod alexnet;
pub mod builder;
mod bvlc_alexnet;
mod bvlc_googlenet;
pub mod describe;
mod efficientnet_lite;
mod emit;
mod googlenet;
pub mod graph;
mod inception_v3;
mod nin;
pub mod published;
mod recipe;
mod resnet;
mod squeezenet;
mod vgg;
pub mod weights;
mod zfnet;

use crate::error::{Error, Result};
use crate::onnx::ModelProto;
use builder::GraphBuilder;
pub use emit::{OPSETS, OnnxOptions};
use graph::{Graph, Value};
pub use recipe::{Recipe, Resize};
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

/// Every architecture there is, roughly by age.
pub const ARCHITECTURES: &[Architecture] = &[
    alexnet::ALEXNET,
    bvlc_alexnet::BVLC_ALEXNET,
    bvlc_alexnet::CAFFENET,
    zfnet::ZFNET512,
    nin::NIN,
    vgg::VGG11,
    vgg::VGG11_BN,
    vgg::VGG13,
    vgg::VGG13_BN,
    vgg::VGG16,
    vgg::VGG16_BN,
    vgg::VGG19,
    vgg::VGG19_BN,
    bvlc_googlenet::BVLC_GOOGLENET,
    googlenet::GOOGLENET,
    inception_v3::INCEPTION_V3,
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
    squeezenet::SQUEEZENET1_1,
    efficientnet_lite::LITE0,
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

    /// The layers, side branches included, for `classes` classes.
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
    pub fn to_onnx(&self, weights: &Weights, options: OnnxOptions) -> Result<ModelProto> {
        self.graph(self.classes(weights)).to_onnx(self.name, weights, options)
    }
}
