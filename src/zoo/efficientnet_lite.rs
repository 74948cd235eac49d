//! EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019) without squeeze-and-excitation and with `ReLU6` for swish, so that it
//! quantises well. From TensorFlow's `efficientnet/lite`; the tensors have the names of `efficientnet-lite-pytorch`.

use super::builder::GraphBuilder;
use super::graph::{Conv, Value};
use super::{Architecture, Recipe};

pub(super) const LITE0: Architecture = Architecture {
    name: "efficientnet-lite0",
    title: "EfficientNet-Lite0",
    paper: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv 1905.11946",
    input_size: 224,
    recipe: Recipe::EFFICIENTNET_LITE0,
    classifier: "_fc",
    layers: network,
};

/// `repeats` inverted bottlenecks, the first of them with `stride`.
struct Stage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    channels: usize,
}

const fn stage(repeats: usize, kernel: usize, stride: usize, expansion: usize, channels: usize) -> Stage {
    Stage { repeats, kernel, stride, expansion, channels }
}

/// Table 1 of the paper.
const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 1, 16),
    stage(2, 3, 2, 6, 24),
    stage(2, 5, 2, 6, 40),
    stage(3, 3, 2, 6, 80),
    stage(3, 5, 1, 6, 112),
    stage(4, 5, 2, 6, 192),
    stage(1, 3, 1, 6, 320),
];

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let x = conv_bn(builder, "", ["_conv_stem", "_bn0"], input, Conv::new(32, 3).stride(2));
    let mut x = builder.relu6("_relu0", x);
    let mut block = 0;
    for stage in &STAGES {
        for index in 0..stage.repeats {
            let stride = if index == 0 { stage.stride } else { 1 };
            x = inverted_bottleneck(builder, &format!("_blocks.{block}."), x, stage, stride);
            block += 1;
        }
    }
    let x = conv_bn(builder, "", ["_conv_head", "_bn1"], x, Conv::new(1280, 1));
    let x = builder.relu6("_relu1", x);
    let x = builder.global_average_pool("_avg_pooling", x);
    let x = builder.flatten("_flatten", x);
    builder.linear("_fc", x, classes)
}

/// A 1x1 convolution that widens, a convolution of each channel by itself, and a 1x1 convolution that narrows and has no
/// activation. The input is added where the shapes are equal.
fn inverted_bottleneck(builder: &mut GraphBuilder, prefix: &str, input: Value, stage: &Stage, stride: usize) -> Value {
    let channels = builder.channels(input);
    let wide = channels * stage.expansion;
    let mut x = input;
    if stage.expansion != 1 {
        x = conv_bn(builder, prefix, ["_expand_conv", "_bn0"], x, Conv::new(wide, 1));
        x = builder.relu6(format!("{prefix}_relu0"), x);
    }
    let depthwise = Conv::new(wide, stage.kernel).stride(stride).groups(wide);
    x = conv_bn(builder, prefix, ["_depthwise_conv", "_bn1"], x, depthwise);
    x = builder.relu6(format!("{prefix}_relu1"), x);
    x = conv_bn(builder, prefix, ["_project_conv", "_bn2"], x, Conv::new(stage.channels, 1));
    if stride == 1 && channels == stage.channels {
        x = builder.add(format!("{prefix}_add"), x, input);
    }
    x
}

fn conv_bn(builder: &mut GraphBuilder, prefix: &str, names: [&str; 2], input: Value, conv: Conv) -> Value {
    let [conv_name, batch_norm_name] = names.map(|name| format!("{prefix}{name}"));
    let x = builder.conv(conv_name, input, conv.same_padding());
    builder.batch_norm(batch_norm_name, x, 1e-3)
}
