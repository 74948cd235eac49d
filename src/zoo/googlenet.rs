//! GoogLeNet (Szegedy et al. 2014) as torchvision has it: with batch norm, and with 3x3 convolutions where the paper's inception
//! modules have 5x5 ones.
//!
//! The paper's own is in `bvlc_googlenet`. torchvision's published weights have side branches that were never trained.

use super::builder::GraphBuilder;
use super::graph::{Conv, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const GOOGLENET: Architecture = Architecture {
    name: "googlenet",
    title: "GoogLeNet (batch norm)",
    paper: "Going Deeper with Convolutions, arXiv 1409.4842",
    input_size: 224,
    recipe: Recipe::INCEPTION_224,
    classifier: "fc",
    layers: network,
};

/// The channels of an inception module's convolutions, in the order of the paper's table 1.
pub(super) struct Inception {
    pub(super) name: &'static str,
    pub(super) conv1x1: usize,
    pub(super) reduce3x3: usize,
    pub(super) conv3x3: usize,
    pub(super) reduce5x5: usize,
    pub(super) conv5x5: usize,
    pub(super) pool_projection: usize,
}

const fn inception(name: &'static str, channels: [usize; 6]) -> Inception {
    let [conv1x1, reduce3x3, conv3x3, reduce5x5, conv5x5, pool_projection] = channels;
    Inception { name, conv1x1, reduce3x3, conv3x3, reduce5x5, conv5x5, pool_projection }
}

/// Table 1 of the paper: the stages of inception modules. A pool follows each stage but the last.
pub(super) const STAGES: [&[Inception]; 3] = [
    &[inception("3a", [64, 96, 128, 16, 32, 32]), inception("3b", [128, 128, 192, 32, 96, 64])],
    &[
        inception("4a", [192, 96, 208, 16, 48, 64]),
        inception("4b", [160, 112, 224, 24, 64, 64]),
        inception("4c", [128, 128, 256, 24, 64, 64]),
        inception("4d", [112, 144, 288, 32, 64, 64]),
        inception("4e", [256, 160, 320, 32, 128, 128]),
    ],
    &[inception("5a", [256, 160, 320, 32, 128, 128]), inception("5b", [384, 192, 384, 48, 128, 128])],
];

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let x = basic_conv2d(builder, "conv1", input, Conv::new(64, 7).stride(2).padding(3));
    let x = builder.max_pool("maxpool1", x, Pool::new(3, 2).ceil_mode());
    let x = basic_conv2d(builder, "conv2", x, Conv::new(64, 1));
    let x = basic_conv2d(builder, "conv3", x, Conv::new(192, 3).padding(1));
    let mut x = builder.max_pool("maxpool2", x, Pool::new(3, 2).ceil_mode());
    for (stage, pool) in STAGES.iter().zip([Some(("maxpool3", 3)), Some(("maxpool4", 2)), None]) {
        for module in *stage {
            x = inception_module(builder, x, module);
            match module.name {
                "4a" => side_branch(builder, "aux1", x, classes),
                "4d" => side_branch(builder, "aux2", x, classes),
                _ => {}
            }
        }
        if let Some((name, window)) = pool {
            x = builder.max_pool(name, x, Pool::new(window, 2).ceil_mode());
        }
    }
    let x = builder.global_average_pool("avgpool", x);
    let x = builder.flatten("flatten", x);
    builder.linear("fc", x, classes)
}

fn inception_module(builder: &mut GraphBuilder, input: Value, module: &Inception) -> Value {
    let name = |part| format!("inception{}.{part}", module.name);
    let branch1 = basic_conv2d(builder, &name("branch1"), input, Conv::new(module.conv1x1, 1));
    let x = basic_conv2d(builder, &name("branch2.0"), input, Conv::new(module.reduce3x3, 1));
    let branch2 = basic_conv2d(builder, &name("branch2.1"), x, Conv::new(module.conv3x3, 3).padding(1));
    let x = basic_conv2d(builder, &name("branch3.0"), input, Conv::new(module.reduce5x5, 1));
    // 3x3 where the paper has 5x5.
    let branch3 = basic_conv2d(builder, &name("branch3.1"), x, Conv::new(module.conv5x5, 3).padding(1));
    let x = builder.max_pool(name("branch4.0"), input, Pool::new(3, 1).padding(1));
    let branch4 = basic_conv2d(builder, &name("branch4.1"), x, Conv::new(module.pool_projection, 1));
    builder.concat(format!("inception{}", module.name), &[branch1, branch2, branch3, branch4])
}

fn side_branch(builder: &mut GraphBuilder, name: &'static str, input: Value, classes: usize) {
    let x = builder.adaptive_average_pool(format!("{name}.avgpool"), input, 4);
    let x = basic_conv2d(builder, &format!("{name}.conv"), x, Conv::new(128, 1));
    let x = builder.flatten(format!("{name}.flatten"), x);
    let x = builder.linear_relu(format!("{name}.fc1"), x, 1024);
    let logits = builder.linear(format!("{name}.fc2"), x, classes);
    builder.side_branch(name, logits);
}

/// torchvision's `BasicConv2d`: a convolution, a batch norm with TensorFlow's epsilon, and `ReLU`.
pub(super) fn basic_conv2d(builder: &mut GraphBuilder, name: &str, input: Value, conv: Conv) -> Value {
    let x = builder.conv(format!("{name}.conv"), input, conv);
    let x = builder.batch_norm(format!("{name}.bn"), x, 1e-3);
    builder.relu(format!("{name}.relu"), x)
}
