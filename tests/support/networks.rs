//! The zoo's networks with seeded weights, as `tests/reference/zoo.py` has them.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use convoy::onnx::ModelProto;
use convoy::zoo::builder::GraphBuilder;
use convoy::zoo::graph::{Conv, Graph, Lrn, Padding, Pool, Value};
use convoy::zoo::weights::Weights;
use convoy::zoo::{Architecture, OnnxOptions};

/// Of the weights and of the pictures, in `zoo.py` too.
pub(crate) const SEED: u64 = 7;

/// The classes of the seeded networks, in `zoo.py` too.
pub(crate) const CLASSES: usize = 100;

/// The model of `name` with seeded weights.
pub(crate) fn seeded(name: &str, options: OnnxOptions) -> ModelProto {
    let graph = if name == "mixed" { mixed() } else { Architecture::find(name).unwrap().graph(CLASSES) };
    graph.to_onnx(name, &Weights::random(SEED), options).unwrap()
}

/// The network `Mixed` of `zoo.py`: what the others leave out.
pub(crate) fn mixed() -> Graph {
    let mut builder = GraphBuilder::new(32);
    let x = builder.conv("stem", Value::INPUT, Conv::new(8, 3).stride(2).bias());
    let x = builder.batch_norm("stem_bn", x, 1e-3);
    let x = builder.relu("relu", x);
    let x = builder.max_pool("max_pool", x, Pool::new(3, 2).ceil_mode());
    let wide = Conv { kernel: [1, 7], padding: Padding::Explicit([0, 3, 0, 3]), ..Conv::new(4, 1) };
    let branches = [
        builder.conv("wide", x, wide.bias()),
        builder.conv("tall", x, Conv::rectangular(4, [7, 1])),
        builder.conv("grouped", x, Conv::new(8, 3).padding(1).groups(4).bias()),
        builder.average_pool("average_pool", x, Pool::new(3, 1).padding(1)),
    ];
    let x = builder.concat("concat", &branches);
    let x = builder.lrn("lrn", x, Lrn { size: 5, alpha: 0.7, beta: 0.75, bias: 2.0 });
    let x = builder.adaptive_average_pool("adaptive_pool", x, 3);
    let x = builder.flatten("flatten", x);
    let logits = builder.linear("fc", x, 10);
    builder.finish(logits)
}
