//! `ModelInfer`, and one request of `ModelStreamInfer`.

use std::collections::BTreeMap;

use super::super::call::Call;
use super::super::observe::record_message;
use super::super::proto::inference as pb;
use super::super::proto::inference::infer_parameter::ParameterChoice;
use super::super::status::message_of;
use super::request::{Scheduling, numbers_bytes, read};
use super::{response, version};
use crate::error::Result;
use crate::inference::Inference;

/// Set on every answer of a stream, since each is its request's last. Clients that asked for it wait for it.
const FINAL: &str = "triton_final_response";

/// Runs a model on tensors. No tensor is looked at before the request has its place in the model's queue.
pub(super) async fn infer(
    inference: &Inference,
    call: &Call,
    mut request: pb::ModelInferRequest,
) -> Result<pb::ModelInferResponse> {
    call.bytes.grow(numbers_bytes(&request))?;
    let version = version(&request.model_name, &request.model_version)?;
    let model = inference.model(&request.model_name, version)?;
    let scheduling = Scheduling::read(&request.parameters)?;
    let admission = inference.admit(model.clone(), call.context(scheduling.timeout, scheduling.priority))?;

    let id = std::mem::take(&mut request.id);
    let request = match read(request) {
        Ok(request) => request,
        Err(error) => {
            admission.reject(&error);
            return Err(error);
        }
    };
    let answer = inference.infer(admission, request).await?;
    Ok(response::write(&model, id, answer.outputs))
}

/// As [`infer`]; an error becomes part of the answer.
pub(super) async fn infer_in_stream(
    inference: Inference,
    call: Call,
    request: pb::ModelInferRequest,
) -> pb::ModelStreamInferResponse {
    let id = request.id.clone();
    let answer = infer(&inference, &call, request).await;
    record_message(&call.trace, &answer);
    let (error_message, mut answer) = match answer {
        Ok(answer) => (String::new(), answer),
        Err(error) => (message_of(&error, &call), pb::ModelInferResponse { id, ..Default::default() }),
    };
    answer.parameters = BTreeMap::from([(
        FINAL.to_owned(),
        pb::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) },
    )]);
    pb::ModelStreamInferResponse { error_message, infer_response: Some(answer) }
}
