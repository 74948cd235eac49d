//! ZFNet-512: the network that Zeiler and Fergus (2013) found by looking at AlexNet's filters, in the size of the ONNX model
//! zoo's `zfnet512`.
//!
//! Its first convolution has smaller windows and a smaller stride than AlexNet's, so that fewer filters stay dead and fewer
//! frequencies are skipped. The layers have Caffe's names.

use super::builder::GraphBuilder;
use super::graph::{Conv, Lrn, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const ZFNET512: Architecture = Architecture {
    name: "zfnet512",
    title: "ZFNet-512",
    paper: "Visualizing and Understanding Convolutional Networks, arXiv 1311.2901",
    input_size: 224,
    recipe: Recipe::ZFNET,
    classifier: "fc8",
    layers: network,
};

/// The ONNX model zoo's.
const NORM: Lrn = Lrn { size: 5, alpha: 5e-4, beta: 0.75, bias: 2.0 };

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let x = builder.conv_relu("conv1", input, Conv::new(96, 7).stride(2));
    let x = builder.lrn("norm1", x, NORM);
    let x = builder.max_pool("pool1", x, Pool::new(3, 2));
    let x = builder.conv_relu("conv2", x, Conv::new(256, 5).stride(2));
    let x = builder.lrn("norm2", x, NORM);
    let x = builder.max_pool("pool2", x, Pool::new(3, 2));
    let x = builder.conv_relu("conv3", x, Conv::new(512, 3).padding(1));
    let x = builder.conv_relu("conv4", x, Conv::new(512, 3).padding(1));
    let x = builder.conv_relu("conv5", x, Conv::new(512, 3).padding(1));
    let x = builder.max_pool("pool5", x, Pool::new(2, 2));
    let x = builder.flatten("flatten", x);
    let x = builder.linear_relu("fc6", x, 4096);
    let x = builder.linear_relu("fc7", x, 1024);
    builder.linear("fc8", x, classes)
}
