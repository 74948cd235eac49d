//! ResNet (He et al. 2015) and its relatives ResNeXt (Xie et al. 2016) and Wide ResNet (Zagoruyko and Komodakis 2016).
//!
//! As in torchvision, whose names the tensors have, bottlenecks take their stride in the 3x3 convolution ("v1.5"); the paper
//! takes it in the first 1x1 convolution.

use super::builder::GraphBuilder;
use super::graph::{Conv, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const RESNET18: Architecture = resnet("resnet18", "ResNet-18", |builder, input, classes| {
    network(builder, input, classes, basic_block, [2, 2, 2, 2])
});

pub(super) const RESNET34: Architecture = resnet("resnet34", "ResNet-34", |builder, input, classes| {
    network(builder, input, classes, basic_block, [3, 4, 6, 3])
});

pub(super) const RESNET50: Architecture = resnet("resnet50", "ResNet-50", |builder, input, classes| {
    network(builder, input, classes, bottleneck::<1, 64>, [3, 4, 6, 3])
});

pub(super) const RESNET101: Architecture = resnet("resnet101", "ResNet-101", |builder, input, classes| {
    network(builder, input, classes, bottleneck::<1, 64>, [3, 4, 23, 3])
});

pub(super) const RESNET152: Architecture = resnet("resnet152", "ResNet-152", |builder, input, classes| {
    network(builder, input, classes, bottleneck::<1, 64>, [3, 8, 36, 3])
});

pub(super) const RESNEXT50_32X4D: Architecture =
    resnext("resnext50_32x4d", "ResNeXt-50 32x4d", |builder, input, classes| {
        network(builder, input, classes, bottleneck::<32, 4>, [3, 4, 6, 3])
    });

pub(super) const RESNEXT101_32X8D: Architecture =
    resnext("resnext101_32x8d", "ResNeXt-101 32x8d", |builder, input, classes| {
        network(builder, input, classes, bottleneck::<32, 8>, [3, 4, 23, 3])
    });

pub(super) const RESNEXT101_64X4D: Architecture =
    resnext("resnext101_64x4d", "ResNeXt-101 64x4d", |builder, input, classes| {
        network(builder, input, classes, bottleneck::<64, 4>, [3, 4, 23, 3])
    });

pub(super) const WIDE_RESNET50_2: Architecture =
    wide("wide_resnet50_2", "Wide ResNet-50-2", |builder, input, classes| {
        network(builder, input, classes, bottleneck::<1, 128>, [3, 4, 6, 3])
    });

pub(super) const WIDE_RESNET101_2: Architecture =
    wide("wide_resnet101_2", "Wide ResNet-101-2", |builder, input, classes| {
        network(builder, input, classes, bottleneck::<1, 128>, [3, 4, 23, 3])
    });

type Layers = fn(&mut GraphBuilder, Value, usize) -> Value;

/// Adds a block with this name, of this width (the channels of its stage, times 4 after a bottleneck) and this stride.
type Block = fn(builder: &mut GraphBuilder, name: &str, input: Value, width: usize, stride: usize) -> Value;

const fn resnet(name: &'static str, title: &'static str, layers: Layers) -> Architecture {
    Architecture {
        name,
        title,
        paper: "Deep Residual Learning for Image Recognition, arXiv 1512.03385",
        input_size: 224,
        recipe: Recipe::TORCHVISION,
        classifier: "fc",
        layers,
    }
}

const fn resnext(name: &'static str, title: &'static str, layers: Layers) -> Architecture {
    Architecture {
        paper: "Aggregated Residual Transformations for Deep Neural Networks, arXiv 1611.05431",
        ..resnet(name, title, layers)
    }
}

const fn wide(name: &'static str, title: &'static str, layers: Layers) -> Architecture {
    Architecture { paper: "Wide Residual Networks, arXiv 1605.07146", ..resnet(name, title, layers) }
}

/// Four stages of `blocks` blocks each. A stage has twice the channels of the one before, and half the rows and columns.
fn network(builder: &mut GraphBuilder, input: Value, classes: usize, block: Block, blocks: [usize; 4]) -> Value {
    let x = conv_bn(builder, ["conv1", "bn1"].map(str::to_owned), input, Conv::new(64, 7).stride(2).padding(3));
    let x = builder.relu("relu", x);
    let mut x = builder.max_pool("maxpool", x, Pool::new(3, 2).padding(1));
    for (stage, count) in (1..).zip(blocks) {
        for index in 0..count {
            let stride = if stage > 1 && index == 0 { 2 } else { 1 };
            x = block(builder, &format!("layer{stage}.{index}"), x, 32 << stage, stride);
        }
    }
    let x = builder.global_average_pool("avgpool", x);
    let x = builder.flatten("flatten", x);
    builder.linear("fc", x, classes)
}

/// Two 3x3 convolutions.
fn basic_block(builder: &mut GraphBuilder, name: &str, input: Value, width: usize, stride: usize) -> Value {
    let x = numbered(builder, name, 1, input, Conv::new(width, 3).stride(stride).padding(1));
    let x = builder.relu(format!("{name}.relu1"), x);
    let x = numbered(builder, name, 2, x, Conv::new(width, 3).padding(1));
    residual(builder, name, input, x, stride)
}

/// A 1x1 convolution that narrows, a 3x3 convolution in `GROUPS` groups, and a 1x1 convolution that widens. In the first
/// stage, where `width` is 64, each group has `GROUP_WIDTH` channels.
fn bottleneck<const GROUPS: usize, const GROUP_WIDTH: usize>(
    builder: &mut GraphBuilder,
    name: &str,
    input: Value,
    width: usize,
    stride: usize,
) -> Value {
    let narrow = width * GROUP_WIDTH / 64 * GROUPS;
    let x = numbered(builder, name, 1, input, Conv::new(narrow, 1));
    let x = builder.relu(format!("{name}.relu1"), x);
    let x = numbered(builder, name, 2, x, Conv::new(narrow, 3).stride(stride).padding(1).groups(GROUPS));
    let x = builder.relu(format!("{name}.relu2"), x);
    let x = numbered(builder, name, 3, x, Conv::new(4 * width, 1));
    residual(builder, name, input, x, stride)
}

/// Adds the block's input to `x`, through a 1x1 convolution where the shapes differ.
fn residual(builder: &mut GraphBuilder, name: &str, input: Value, x: Value, stride: usize) -> Value {
    let channels = builder.channels(x);
    let shortcut = if stride == 1 && builder.channels(input) == channels {
        input
    } else {
        let names = [format!("{name}.downsample.0"), format!("{name}.downsample.1")];
        conv_bn(builder, names, input, Conv::new(channels, 1).stride(stride))
    };
    let x = builder.add(format!("{name}.add"), x, shortcut);
    builder.relu(name, x)
}

fn numbered(builder: &mut GraphBuilder, name: &str, number: usize, input: Value, conv: Conv) -> Value {
    conv_bn(builder, [format!("{name}.conv{number}"), format!("{name}.bn{number}")], input, conv)
}

fn conv_bn(builder: &mut GraphBuilder, [conv_name, batch_norm_name]: [String; 2], input: Value, conv: Conv) -> Value {
    let x = builder.conv(conv_name, input, conv);
    // PyTorch's default epsilon.
    builder.batch_norm(batch_norm_name, x, 1e-5)
}
