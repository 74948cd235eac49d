//! A network whose answer is the colour that it sees most of, and where.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use convoy::onnx::{AttributeProto, ModelProto, TensorProto};
use convoy::tensor::Tensor;

use crate::graphs::{model, node};

/// The side of its input.
pub(crate) const SIDE: u32 = 32;

pub(crate) fn initializer(name: &str, shape: &[usize], values: Vec<f32>) -> TensorProto {
    TensorProto::new(name, &Tensor::from_vec(shape.to_vec(), values).unwrap()).unwrap()
}

/// Class 0 is what is red, class 1 what is blue: one filter each, which sees one colour and is held back by the two others, then
/// rectified, pooled and scaled.
pub(crate) fn colors() -> ModelProto {
    let filters = vec![1.0, -1.0, -1.0, -1.0, -1.0, 1.0];
    let mut convolution = node("Conv", &["input", "filters"], "convolved");
    convolution.attribute = vec![AttributeProto::ints("kernel_shape", [1, 1])];
    let nodes = vec![
        convolution,
        node("Relu", &["convolved"], "rectified"),
        node("GlobalAveragePool", &["rectified"], "pooled"),
        node("Flatten", &["pooled"], "flat"),
        node("Gemm", &["flat", "weights"], "logits"),
    ];
    let initializers = vec![
        initializer("filters", &[2, 3, 1, 1], filters),
        initializer("weights", &[2, 2], vec![40.0, -40.0, -40.0, 40.0]),
    ];
    let side = i64::from(SIDE);
    model(nodes, initializers, &[-1, 3, side, side], &[-1, 2])
}
