//! Network in Network (Lin et al. 2013) for ImageNet, with the names of the authors' Caffe model.
//!
//! Two 1x1 convolutions after each larger one make a small network of every window: the paper's mlpconv layer, where Caffe says
//! "cascaded cross channel parametric pooling" (cccp). The last gives one map per class, whose mean is the class's logit.

use super::builder::GraphBuilder;
use super::graph::{Conv, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const NIN: Architecture = Architecture {
    name: "nin",
    title: "Network in Network",
    paper: "Network In Network, arXiv 1312.4400",
    input_size: 224,
    recipe: Recipe::CAFFE_224,
    classifier: "cccp8-1024",
    layers: network,
};

/// Caffe's pools count a window that hangs over the end.
const POOL: Pool = Pool::new(3, 2).ceil_mode();

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let conv1 = ("conv1", Conv::new(96, 11).stride(4));
    let x = mlpconv(builder, input, conv1, [("cccp1", 96), ("cccp2", 96)]);
    let x = builder.max_pool("pool0", x, POOL);
    let conv2 = ("conv2", Conv::new(256, 5).padding(2));
    let x = mlpconv(builder, x, conv2, [("cccp3", 256), ("cccp4", 256)]);
    let x = builder.max_pool("pool2", x, POOL);
    let conv3 = ("conv3", Conv::new(384, 3).padding(1));
    let x = mlpconv(builder, x, conv3, [("cccp5", 384), ("cccp6", 384)]);
    let x = builder.max_pool("pool3", x, POOL);
    let conv4 = ("conv4-1024", Conv::new(1024, 3).padding(1));
    let x = mlpconv(builder, x, conv4, [("cccp7-1024", 1024), ("cccp8-1024", classes)]);
    let x = builder.global_average_pool("pool4", x);
    builder.flatten("flatten", x)
}

fn mlpconv(builder: &mut GraphBuilder, input: Value, conv: (&str, Conv), cccp: [(&str, usize); 2]) -> Value {
    let x = builder.conv_relu(conv.0, input, conv.1);
    cccp.into_iter().fold(x, |x, (name, channels)| builder.conv_relu(name, x, Conv::new(channels, 1)))
}
