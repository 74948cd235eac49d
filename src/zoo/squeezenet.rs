//! SqueezeNet 1.1 (Iandola et al. 2016), torchvision's `squeezenet1_1`: AlexNet's accuracy with a fiftieth of its parameters.

use super::builder::GraphBuilder;
use super::graph::{Conv, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const SQUEEZENET1_1: Architecture = Architecture {
    name: "squeezenet1_1",
    title: "SqueezeNet 1.1",
    paper: "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, arXiv 1602.07360",
    input_size: 224,
    recipe: Recipe::TORCHVISION,
    classifier: "classifier.1",
    layers: network,
};

const POOL: Pool = Pool::new(3, 2).ceil_mode();

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let x = builder.conv_relu("features.0", input, Conv::new(64, 3).stride(2));
    let x = builder.max_pool("features.2", x, POOL);
    let x = fire(builder, "features.3", x, 16, 64);
    let x = fire(builder, "features.4", x, 16, 64);
    let x = builder.max_pool("features.5", x, POOL);
    let x = fire(builder, "features.6", x, 32, 128);
    let x = fire(builder, "features.7", x, 32, 128);
    let x = builder.max_pool("features.8", x, POOL);
    let x = fire(builder, "features.9", x, 48, 192);
    let x = fire(builder, "features.10", x, 48, 192);
    let x = fire(builder, "features.11", x, 64, 256);
    let x = fire(builder, "features.12", x, 64, 256);
    let x = builder.conv_relu("classifier.1", x, Conv::new(classes, 1));
    let x = builder.global_average_pool("classifier.3", x);
    builder.flatten("flatten", x)
}

/// The fire module: `squeeze` 1x1 filters, whose output `expand` 1x1 and as many 3x3 filters share.
fn fire(builder: &mut GraphBuilder, name: &str, input: Value, squeeze: usize, expand: usize) -> Value {
    let x = builder.conv_relu(format!("{name}.squeeze"), input, Conv::new(squeeze, 1));
    let expanded = [
        builder.conv_relu(format!("{name}.expand1x1"), x, Conv::new(expand, 1)),
        builder.conv_relu(format!("{name}.expand3x3"), x, Conv::new(expand, 3).padding(1)),
    ];
    builder.concat(name, &expanded)
}
