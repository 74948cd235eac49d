//! Graphs that are not the zoo's.

mod forms;
mod operators;
mod values;
mod ways;

use convoy::onnx::{AttributeProto, NodeProto, TensorProto};
use convoy::tensor::Tensor;
use convoy::zoo::weights::random;
use image::{Rgb, RgbImage};

use super::Fixture;
use super::graphs::{model, node};

const SIDE: usize = 8;
const CONFIG: &str = "graph_optimization = \"none\"\n[preprocess]\nresize = \"none\"\nscale = 0.00392156862745098\n";

fn weights(name: &str, shape: &[usize]) -> TensorProto {
    let values = random::normal(7, name).take(shape.iter().product()).map(|z| 0.5 * z as f32).collect::<Vec<_>>();
    TensorProto::new(name, &Tensor::from_vec(shape.to_vec(), values).unwrap()).unwrap()
}

fn scalar(name: &str, value: f32) -> TensorProto {
    TensorProto::new(name, &Tensor::from_vec(vec![], vec![value]).unwrap()).unwrap()
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto::new(name, &Tensor::from_vec(vec![values.len()], values.to_vec()).unwrap()).unwrap()
}

fn with(mut node: NodeProto, attributes: Vec<AttributeProto>) -> NodeProto {
    node.attribute = attributes;
    node
}

fn noise(name: &str) -> RgbImage {
    let mut levels = random::normal(7, name).map(|z| (z * 40.0 + 128.0).clamp(1.0, 254.0) as u8);
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |_, _| Rgb([0; 3].map(|_| levels.next().unwrap())))
}

/// `nodes` to the logits, of a model for pictures of `channels`.
fn pooled(mut nodes: Vec<NodeProto>, initializers: Vec<TensorProto>, channels: i64) -> Fixture {
    nodes.push(node("GlobalAveragePool", &["out"], "pooled"));
    nodes.push(node("Flatten", &["pooled"], "logits"));
    let side = SIDE as i64;
    Fixture::new(&model(nodes, initializers, &[-1, channels, side, side], &[-1, 3]), CONFIG)
}

/// Four filters of a picture, `nodes` from `in` to `out`, and a head of pooling and a linear layer.
fn classifier(nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> Fixture {
    let mut all = vec![with(node("Conv", &["input", "filters"], "in"), vec![AttributeProto::ints("pads", [1; 4])])];
    all.extend(nodes);
    all.push(node("GlobalAveragePool", &["out"], "pooled"));
    all.push(node("Flatten", &["pooled"], "flat"));
    all.push(node("MatMul", &["flat", "head"], "logits"));
    let mut constants = vec![weights("filters", &[4, 3, 3, 3]), weights("head", &[4, 2])];
    constants.extend(initializers);
    let mut graph = model(all, constants, &[-1, 3, SIDE as i64, SIDE as i64], &[-1, 2]);
    graph.opset_import[0].version = 20;
    Fixture::new(&graph, CONFIG)
}
