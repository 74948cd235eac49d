//! AlexNet as it won in 2012 (Krizhevsky et al.), and `CaffeNet`, with the names that Caffe's reference models give the layers.
//!
//! The paper spread the network over two GPUs: the second, fourth and fifth convolution see only the half of the channels that
//! was on their own GPU, which is a convolution in two groups. `CaffeNet` is the same with pooling before normalisation, so that
//! there is less to normalise. Both take 227x227 pictures: the paper's 224 does not give its 55x55 maps.

use super::builder::GraphBuilder;
use super::graph::{Conv, Lrn, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const BVLC_ALEXNET: Architecture = Architecture {
    name: "bvlc_alexnet",
    title: "AlexNet (two groups, Caffe's)",
    paper: "ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012",
    input_size: 227,
    recipe: Recipe::CAFFE_227,
    classifier: "fc8",
    layers: |builder, input, classes| {
        network(builder, input, classes, |builder, x, number| {
            let x = builder.lrn(format!("norm{number}"), x, NORM);
            builder.max_pool(format!("pool{number}"), x, POOL)
        })
    },
};

pub(super) const CAFFENET: Architecture = Architecture {
    name: "caffenet",
    title: "CaffeNet",
    layers: |builder, input, classes| {
        network(builder, input, classes, |builder, x, number| {
            let x = builder.max_pool(format!("pool{number}"), x, POOL);
            builder.lrn(format!("norm{number}"), x, NORM)
        })
    },
    ..BVLC_ALEXNET
};

/// Caffe's: the paper has a bias (k) of 2, and does not divide alpha by the size.
const NORM: Lrn = Lrn { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 };

/// The paper's overlapping pooling.
const POOL: Pool = Pool::new(3, 2);

/// Normalises and pools what the convolution with this number gives.
type NormAndPool = fn(builder: &mut GraphBuilder, input: Value, number: usize) -> Value;

fn network(builder: &mut GraphBuilder, input: Value, classes: usize, norm_and_pool: NormAndPool) -> Value {
    let x = builder.conv_relu("conv1", input, Conv::new(96, 11).stride(4));
    let x = norm_and_pool(builder, x, 1);
    let x = builder.conv_relu("conv2", x, Conv::new(256, 5).padding(2).groups(2));
    let x = norm_and_pool(builder, x, 2);
    let x = builder.conv_relu("conv3", x, Conv::new(384, 3).padding(1));
    let x = builder.conv_relu("conv4", x, Conv::new(384, 3).padding(1).groups(2));
    let x = builder.conv_relu("conv5", x, Conv::new(256, 3).padding(1).groups(2));
    let x = builder.max_pool("pool5", x, POOL);
    let x = builder.flatten("flatten", x);
    let x = builder.linear_relu("fc6", x, 4096);
    let x = builder.linear_relu("fc7", x, 4096);
    builder.linear("fc8", x, classes)
}
