//! VGG (Simonyan and Zisserman 2014): nothing but 3x3 convolutions and 2x2 pools, with and without batch norm.
//!
//! The tensors have torchvision's names: the layers of the convolutional part are numbered through, those without tensors
//! included.

use super::builder::GraphBuilder;
use super::graph::{Conv, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const VGG11: Architecture =
    vgg("vgg11", "VGG-11", |builder, input, classes| network(builder, input, classes, &A, false));
pub(super) const VGG11_BN: Architecture =
    vgg("vgg11_bn", "VGG-11 with batch norm", |builder, input, classes| network(builder, input, classes, &A, true));
pub(super) const VGG13: Architecture =
    vgg("vgg13", "VGG-13", |builder, input, classes| network(builder, input, classes, &B, false));
pub(super) const VGG13_BN: Architecture =
    vgg("vgg13_bn", "VGG-13 with batch norm", |builder, input, classes| network(builder, input, classes, &B, true));
pub(super) const VGG16: Architecture =
    vgg("vgg16", "VGG-16", |builder, input, classes| network(builder, input, classes, &D, false));
pub(super) const VGG16_BN: Architecture =
    vgg("vgg16_bn", "VGG-16 with batch norm", |builder, input, classes| network(builder, input, classes, &D, true));
pub(super) const VGG19: Architecture =
    vgg("vgg19", "VGG-19", |builder, input, classes| network(builder, input, classes, &E, false));
pub(super) const VGG19_BN: Architecture =
    vgg("vgg19_bn", "VGG-19 with batch norm", |builder, input, classes| network(builder, input, classes, &E, true));

/// The columns of the paper's table 1: for each stage, the channels of its convolutions. A pool ends each stage.
type Configuration = [&'static [usize]; 5];

const A: Configuration = [&[64], &[128], &[256; 2], &[512; 2], &[512; 2]];
const B: Configuration = [&[64; 2], &[128; 2], &[256; 2], &[512; 2], &[512; 2]];
const D: Configuration = [&[64; 2], &[128; 2], &[256; 3], &[512; 3], &[512; 3]];
const E: Configuration = [&[64; 2], &[128; 2], &[256; 4], &[512; 4], &[512; 4]];

const fn vgg(
    name: &'static str,
    title: &'static str,
    layers: fn(&mut GraphBuilder, Value, usize) -> Value,
) -> Architecture {
    Architecture {
        name,
        title,
        paper: "Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv 1409.1556",
        input_size: 224,
        recipe: Recipe::TORCHVISION,
        classifier: "classifier.6",
        layers,
    }
}

fn network(
    builder: &mut GraphBuilder,
    input: Value,
    classes: usize,
    configuration: &Configuration,
    batch_norm: bool,
) -> Value {
    let mut x = input;
    let mut names = (0..).map(|index| format!("features.{index}"));
    let mut name = || names.next().expect("the numbers never end");
    for stage in configuration {
        for &channels in *stage {
            // The convolutions keep their bias where a batch norm follows.
            x = builder.conv(name(), x, Conv::new(channels, 3).padding(1).bias());
            if batch_norm {
                x = builder.batch_norm(name(), x, 1e-5);
            }
            x = builder.relu(name(), x);
        }
        x = builder.max_pool(name(), x, Pool::new(2, 2));
    }
    // torchvision pools adaptively to 7x7 here, which at 224 is what the maps are.
    let x = builder.flatten("flatten", x);
    let x = builder.linear_relu("classifier.0", x, 4096);
    let x = builder.linear_relu("classifier.3", x, 4096);
    builder.linear("classifier.6", x, classes)
}
