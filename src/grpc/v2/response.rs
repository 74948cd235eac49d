//! The wire form of an inference answer.

use super::super::proto::inference::ModelInferResponse;
use super::super::proto::inference::model_infer_response::InferOutputTensor;
use crate::repository::Model;
use crate::tensor::Tensor;

/// Writes an answer. Its tensors are always raw, and are not copied.
pub(super) fn write(model: &Model, id: String, outputs: Vec<(String, Tensor)>) -> ModelInferResponse {
    let mut response = ModelInferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_string(),
        id,
        outputs: Vec::with_capacity(outputs.len()),
        raw_output_contents: Vec::with_capacity(outputs.len()),
        ..ModelInferResponse::default()
    };
    for (name, tensor) in outputs {
        response.outputs.push(InferOutputTensor {
            name,
            datatype: tensor.data_type().as_str().to_owned(),
            shape: tensor.shape().iter().map(|&dimension| dimension as i64).collect(),
            ..InferOutputTensor::default()
        });
        response.raw_output_contents.push(tensor.bytes().clone());
    }
    response
}
