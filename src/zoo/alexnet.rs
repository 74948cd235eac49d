//! AlexNet in one tower, without local response normalisation (Krizhevsky 2014), torchvision's `alexnet`.
//!
//! The network of 2012, in two groups, is in `bvlc_alexnet`.

use super::builder::GraphBuilder;
use super::graph::{Conv, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const ALEXNET: Architecture = Architecture {
    name: "alexnet",
    title: "AlexNet (one tower)",
    paper: "One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997",
    input_size: 224,
    recipe: Recipe::TORCHVISION,
    classifier: "classifier.6",
    layers: network,
};

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let x = builder.conv_relu("features.0", input, Conv::new(64, 11).stride(4).padding(2));
    let x = builder.max_pool("features.2", x, Pool::new(3, 2));
    let x = builder.conv_relu("features.3", x, Conv::new(192, 5).padding(2));
    let x = builder.max_pool("features.5", x, Pool::new(3, 2));
    let x = builder.conv_relu("features.6", x, Conv::new(384, 3).padding(1));
    let x = builder.conv_relu("features.8", x, Conv::new(256, 3).padding(1));
    let x = builder.conv_relu("features.10", x, Conv::new(256, 3).padding(1));
    let x = builder.max_pool("features.12", x, Pool::new(3, 2));
    // torchvision pools adaptively to 6x6 here, which at 224 is what the maps are.
    let x = builder.flatten("flatten", x);
    let x = builder.linear_relu("classifier.1", x, 4096);
    let x = builder.linear_relu("classifier.4", x, 4096);
    builder.linear("classifier.6", x, classes)
}
