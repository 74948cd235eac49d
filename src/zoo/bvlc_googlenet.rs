//! GoogLeNet as it won in 2014 (Szegedy et al.): with local response normalisation and 5x5 convolutions. The layers have the
//! names of Caffe's reference model, whose pools count a window that hangs over the end.

use super::builder::GraphBuilder;
use super::googlenet::{Inception, STAGES};
use super::graph::{Conv, Lrn, Pool, Value};
use super::{Architecture, Recipe};

pub(super) const BVLC_GOOGLENET: Architecture = Architecture {
    name: "bvlc_googlenet",
    title: "GoogLeNet (Caffe's)",
    paper: "Going Deeper with Convolutions, arXiv 1409.4842",
    input_size: 224,
    recipe: Recipe::CAFFE_224,
    classifier: "loss3/classifier",
    layers: network,
};

const NORM: Lrn = Lrn { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 };

/// The pools that halve the maps.
const POOL: Pool = Pool::new(3, 2).ceil_mode();

fn network(builder: &mut GraphBuilder, input: Value, classes: usize) -> Value {
    let x = builder.conv_relu("conv1/7x7_s2", input, Conv::new(64, 7).stride(2).padding(3));
    let x = builder.max_pool("pool1/3x3_s2", x, POOL);
    let x = builder.lrn("pool1/norm1", x, NORM);
    let x = builder.conv_relu("conv2/3x3_reduce", x, Conv::new(64, 1));
    let x = builder.conv_relu("conv2/3x3", x, Conv::new(192, 3).padding(1));
    let x = builder.lrn("conv2/norm2", x, NORM);
    let mut x = builder.max_pool("pool2/3x3_s2", x, POOL);
    for (stage, pool) in STAGES.iter().zip([Some("pool3/3x3_s2"), Some("pool4/3x3_s2"), None]) {
        for module in *stage {
            x = inception_module(builder, x, module);
            match module.name {
                "4a" => side_branch(builder, "aux1", "loss1", x, classes),
                "4d" => side_branch(builder, "aux2", "loss2", x, classes),
                _ => {}
            }
        }
        if let Some(name) = pool {
            x = builder.max_pool(name, x, POOL);
        }
    }
    let x = builder.global_average_pool("pool5/7x7_s1", x);
    let x = builder.flatten("flatten", x);
    builder.linear("loss3/classifier", x, classes)
}

fn inception_module(builder: &mut GraphBuilder, input: Value, module: &Inception) -> Value {
    let name = |part| format!("inception_{}/{part}", module.name);
    let conv1x1 = builder.conv_relu(name("1x1"), input, Conv::new(module.conv1x1, 1));
    let x = builder.conv_relu(name("3x3_reduce"), input, Conv::new(module.reduce3x3, 1));
    let conv3x3 = builder.conv_relu(name("3x3"), x, Conv::new(module.conv3x3, 3).padding(1));
    let x = builder.conv_relu(name("5x5_reduce"), input, Conv::new(module.reduce5x5, 1));
    let conv5x5 = builder.conv_relu(name("5x5"), x, Conv::new(module.conv5x5, 5).padding(2));
    let x = builder.max_pool(name("pool"), input, Pool::new(3, 1).padding(1));
    let pool_projection = builder.conv_relu(name("pool_proj"), x, Conv::new(module.pool_projection, 1));
    builder.concat(name("output"), &[conv1x1, conv3x3, conv5x5, pool_projection])
}

/// The side branch `name`, whose layers begin with `prefix`.
fn side_branch(builder: &mut GraphBuilder, name: &'static str, prefix: &str, input: Value, classes: usize) {
    let x = builder.average_pool(format!("{prefix}/ave_pool"), input, Pool::new(5, 3).ceil_mode());
    let x = builder.conv_relu(format!("{prefix}/conv"), x, Conv::new(128, 1));
    let x = builder.flatten(format!("{prefix}/flatten"), x);
    let x = builder.linear_relu(format!("{prefix}/fc"), x, 1024);
    let logits = builder.linear(format!("{prefix}/classifier"), x, classes);
    builder.side_branch(name, logits);
}
