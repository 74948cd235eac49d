//! A model whose run fails for some pictures and not for others.

use convoy::onnx::{AttributeProto, ModelProto, TensorProto};
use convoy::tensor::Tensor;

use crate::graphs;

/// `[N, 3, 2, 2]` to the rows of a table of ten that the channel means name. Another mean fails the run.
pub(crate) fn table() -> ModelProto {
    let table = Tensor::from_vec(vec![10], (0..10).map(|value| value as f32).collect()).unwrap();
    let mut cast = graphs::node("Cast", &["flat"], "indices");
    cast.attribute = vec![AttributeProto::int("to", 7)];
    let nodes = vec![
        graphs::node("GlobalAveragePool", &["input"], "pooled"),
        graphs::node("Flatten", &["pooled"], "flat"),
        cast,
        graphs::node("Gather", &["table", "indices"], "logits"),
    ];
    graphs::model(nodes, vec![TensorProto::new("table", &table).unwrap()], &[-1, 3, 2, 2], &[-1, 3])
}
