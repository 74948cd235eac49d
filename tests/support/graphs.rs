//! Small ONNX graphs whose answers can be worked out by hand.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::{Path, PathBuf};

use convoy::onnx::proto::tensor_proto::DataType;
use convoy::onnx::proto::tensor_shape_proto::{Dimension, dimension::Value};
use convoy::onnx::proto::{TensorShapeProto, type_proto};
use convoy::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
};
use convoy::tensor::Tensor;

/// Writes the model into `folder` and returns its path.
pub(crate) fn write(folder: &Path, model: &ModelProto) -> PathBuf {
    let path = folder.join("model.onnx");
    let mut file = std::fs::File::create(&path).unwrap();
    convoy::onnx::write_model(model.clone(), &mut file).unwrap();
    path
}

/// `[N, 3, side, side]` to the mean of each channel, `[N, 3]`. `batch` fixes the batch dimension.
pub(crate) fn channel_means(side: i64, batch: Option<i64>) -> ModelProto {
    let nodes = vec![node("GlobalAveragePool", &["input"], "pooled"), node("Flatten", &["pooled"], "logits")];
    model(nodes, Vec::new(), &[batch.unwrap_or(-1), 3, side, side], &[batch.unwrap_or(-1), 3])
}

/// One 3×3 convolution with `filters` filters, `Relu`, global average pooling. Filter k sums the three channels at the centre
/// tap and adds k.
pub(crate) fn convolutional(side: i64, filters: usize) -> ModelProto {
    let mut weights = vec![0f32; filters * 3 * 9];
    for centre in weights.iter_mut().skip(4).step_by(9) {
        *centre = 1.0;
    }
    let bias: Vec<f32> = (0..filters).map(|index| index as f32).collect();
    let initializers = vec![
        TensorProto::new("weights", &Tensor::from_vec(vec![filters, 3, 3, 3], weights).unwrap()).unwrap(),
        TensorProto::new("bias", &Tensor::from_vec(vec![filters], bias).unwrap()).unwrap(),
    ];
    let mut convolution = node("Conv", &["input", "weights", "bias"], "convolved");
    convolution.attribute = vec![AttributeProto::ints("kernel_shape", [3, 3]), AttributeProto::ints("pads", [1; 4])];
    let nodes = vec![
        convolution,
        node("Relu", &["convolved"], "rectified"),
        node("GlobalAveragePool", &["rectified"], "pooled"),
        node("Flatten", &["pooled"], "logits"),
    ];
    model(nodes, initializers, &[-1, 3, side, side], &[-1, filters as i64])
}

pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: output.into(),
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

/// A model from `input` to `logits`, both FP32, of the given shapes (`-1` is the dynamic batch).
pub(crate) fn model(
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    input: &[i64],
    output: &[i64],
) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { version: 17, ..OperatorSetIdProto::default() }],
        graph: Some(GraphProto {
            name: "test".into(),
            node: nodes,
            initializer: initializers,
            input: vec![value("input", DataType::Float, input)],
            output: vec![value("logits", DataType::Float, output)],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

pub(crate) fn value(name: &str, data_type: DataType, shape: &[i64]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|&size| Dimension {
            value: Some(if size < 0 { Value::DimParam("N".into()) } else { Value::DimValue(size) }),
            ..Dimension::default()
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: data_type.into(), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
