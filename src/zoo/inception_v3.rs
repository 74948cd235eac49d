//! Inception v3 (Szegedy et al. 2015), torchvision's `inception_v3`, with its side branch.
//!
//! The paper's figures 5 to 7 name no modules; `inception_a` to `inception_e` are torchvision's names.

use super::builder::GraphBuilder;
use super::googlenet::basic_conv2d;
use super::graph::{Conv, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const INCEPTION_V3: Architecture = Architecture {
    name: "inception_v3",
    title: "Inception v3",
    paper: "Rethinking the Inception Architecture for Computer Vision, arXiv 1512.00567",
    input_size: 299,
    recipe: Recipe::INCEPTION_299,
    classifier: "fc",
    layers: network,
};

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let x = basic_conv2d(builder, "Conv2d_1a_3x3", input, Conv::new(32, 3).stride(2));
    let x = basic_conv2d(builder, "Conv2d_2a_3x3", x, Conv::new(32, 3));
    let x = basic_conv2d(builder, "Conv2d_2b_3x3", x, Conv::new(64, 3).padding(1));
    let x = builder.max_pool("maxpool1", x, Pool::new(3, 2));
    let x = basic_conv2d(builder, "Conv2d_3b_1x1", x, Conv::new(80, 1));
    let x = basic_conv2d(builder, "Conv2d_4a_3x3", x, Conv::new(192, 3));
    let mut x = builder.max_pool("maxpool2", x, Pool::new(3, 2));
    for (name, pool_channels) in [("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)] {
        x = inception_a(builder, name, x, pool_channels);
    }
    x = inception_b(builder, "Mixed_6a", x);
    for (name, channels) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
        x = inception_c(builder, name, x, channels);
    }
    side_branch(builder, "AuxLogits", x, classes);
    x = inception_d(builder, "Mixed_7a", x);
    for name in ["Mixed_7b", "Mixed_7c"] {
        x = inception_e(builder, name, x);
    }
    let x = builder.global_average_pool("avgpool", x);
    let x = builder.flatten("flatten", x);
    builder.linear("fc", x, classes)
}

fn side_branch(builder: &mut GraphBuilder, name: &str, input: Value, classes: usize) {
    let x = builder.average_pool(format!("{name}.avgpool"), input, Pool::new(5, 3));
    let x = basic_conv2d(builder, &format!("{name}.conv0"), x, Conv::new(128, 1));
    // The maps are 5x5 here, so that this is a fully connected layer.
    let x = basic_conv2d(builder, &format!("{name}.conv1"), x, Conv::new(768, 5));
    let x = builder.flatten(format!("{name}.flatten"), x);
    let logits = builder.linear(format!("{name}.fc"), x, classes);
    builder.side_branch("aux", logits);
}

/// A branch: these convolutions one after the other.
fn branch<const CONVS: usize>(
    builder: &mut GraphBuilder,
    module: &str,
    input: Value,
    convs: [(&str, Conv); CONVS],
) -> Value {
    convs.into_iter().fold(input, |x, (name, conv)| basic_conv2d(builder, &format!("{module}.{name}"), x, conv))
}

/// The branch of an average pool and a 1x1 convolution.
fn pool_branch(builder: &mut GraphBuilder, module: &str, input: Value, channels: usize) -> Value {
    let x = builder.average_pool(format!("{module}.avgpool"), input, Pool::new(3, 1).padding(1));
    branch(builder, module, x, [("branch_pool", Conv::new(channels, 1))])
}

/// Figure 5 of the paper, with a 5x5 convolution in one branch: 35x35 maps.
fn inception_a(builder: &mut GraphBuilder, name: &str, input: Value, pool_channels: usize) -> Value {
    let branches = [
        branch(builder, name, input, [("branch1x1", Conv::new(64, 1))]),
        branch(builder, name, input, [("branch5x5_1", Conv::new(48, 1)), ("branch5x5_2", Conv::new(64, 5).padding(2))]),
        branch(
            builder,
            name,
            input,
            [
                ("branch3x3dbl_1", Conv::new(64, 1)),
                ("branch3x3dbl_2", Conv::new(96, 3).padding(1)),
                ("branch3x3dbl_3", Conv::new(96, 3).padding(1)),
            ],
        ),
        pool_branch(builder, name, input, pool_channels),
    ];
    builder.concat(name, &branches)
}

/// Figure 10: 35x35 maps become 17x17.
fn inception_b(builder: &mut GraphBuilder, name: &str, input: Value) -> Value {
    let branches = [
        branch(builder, name, input, [("branch3x3", Conv::new(384, 3).stride(2))]),
        branch(
            builder,
            name,
            input,
            [
                ("branch3x3dbl_1", Conv::new(64, 1)),
                ("branch3x3dbl_2", Conv::new(96, 3).padding(1)),
                ("branch3x3dbl_3", Conv::new(96, 3).stride(2)),
            ],
        ),
        builder.max_pool(format!("{name}.maxpool"), input, Pool::new(3, 2)),
    ];
    builder.concat(name, &branches)
}

/// Figure 6, with 7x7 convolutions taken apart into rows and columns: 17x17 maps.
fn inception_c(builder: &mut GraphBuilder, name: &str, input: Value, channels: usize) -> Value {
    let row = |channels| Conv::rectangular(channels, [1, 7]);
    let column = |channels| Conv::rectangular(channels, [7, 1]);
    let branches = [
        branch(builder, name, input, [("branch1x1", Conv::new(192, 1))]),
        branch(
            builder,
            name,
            input,
            [("branch7x7_1", Conv::new(channels, 1)), ("branch7x7_2", row(channels)), ("branch7x7_3", column(192))],
        ),
        branch(
            builder,
            name,
            input,
            [
                ("branch7x7dbl_1", Conv::new(channels, 1)),
                ("branch7x7dbl_2", column(channels)),
                ("branch7x7dbl_3", row(channels)),
                ("branch7x7dbl_4", column(channels)),
                ("branch7x7dbl_5", row(192)),
            ],
        ),
        pool_branch(builder, name, input, 192),
    ];
    builder.concat(name, &branches)
}

/// 17x17 maps become 8x8.
fn inception_d(builder: &mut GraphBuilder, name: &str, input: Value) -> Value {
    let branches = [
        branch(
            builder,
            name,
            input,
            [("branch3x3_1", Conv::new(192, 1)), ("branch3x3_2", Conv::new(320, 3).stride(2))],
        ),
        branch(
            builder,
            name,
            input,
            [
                ("branch7x7x3_1", Conv::new(192, 1)),
                ("branch7x7x3_2", Conv::rectangular(192, [1, 7])),
                ("branch7x7x3_3", Conv::rectangular(192, [7, 1])),
                ("branch7x7x3_4", Conv::new(192, 3).stride(2)),
            ],
        ),
        builder.max_pool(format!("{name}.maxpool"), input, Pool::new(3, 2)),
    ];
    builder.concat(name, &branches)
}

/// Figure 7, whose branches end in a row and a column side by side: 8x8 maps.
fn inception_e(builder: &mut GraphBuilder, name: &str, input: Value) -> Value {
    let branch1x1 = branch(builder, name, input, [("branch1x1", Conv::new(320, 1))]);
    let x = branch(builder, name, input, [("branch3x3_1", Conv::new(384, 1))]);
    let branch3x3 = [
        branch(builder, name, x, [("branch3x3_2a", Conv::rectangular(384, [1, 3]))]),
        branch(builder, name, x, [("branch3x3_2b", Conv::rectangular(384, [3, 1]))]),
    ];
    let x = branch(
        builder,
        name,
        input,
        [("branch3x3dbl_1", Conv::new(448, 1)), ("branch3x3dbl_2", Conv::new(384, 3).padding(1))],
    );
    let branch3x3dbl = [
        branch(builder, name, x, [("branch3x3dbl_3a", Conv::rectangular(384, [1, 3]))]),
        branch(builder, name, x, [("branch3x3dbl_3b", Conv::rectangular(384, [3, 1]))]),
    ];
    let pool = pool_branch(builder, name, input, 192);
    builder.concat(name, &[branch1x1, branch3x3[0], branch3x3[1], branch3x3dbl[0], branch3x3dbl[1], pool])
}
