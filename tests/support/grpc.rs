//! A client of the gRPC interface.

use bytes::Bytes;
use convoy::grpc::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use convoy::grpc::proto::inference::infer_parameter::ParameterChoice;
use convoy::grpc::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use convoy::grpc::proto::inference::{InferParameter, ModelInferRequest};
use convoy::server::Server;
use tonic::transport::{Channel, Endpoint};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// A connection of its own.
pub(crate) async fn channel(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.grpc_address())).unwrap().connect().await.unwrap()
}

/// A client of `inference.GRPCInferenceService`.
pub(crate) async fn client(server: &Server) -> Client {
    Client::new(channel(server).await).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
}

/// An input without its elements.
pub(crate) fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), ..Default::default() }
}

/// A request with one raw input called `input`.
pub(crate) fn raw(model: &str, datatype: &str, shape: &[i64], bytes: impl Into<Bytes>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![input("input", datatype, shape)],
        raw_input_contents: vec![bytes.into()],
        ..Default::default()
    }
}

/// An output that is asked for, classified where `classification` says so.
pub(crate) fn output(name: &str, classification: Option<i64>) -> InferRequestedOutputTensor {
    let parameters = classification.map(|count| ("classification".into(), int(count))).into_iter().collect();
    InferRequestedOutputTensor { name: name.into(), parameters }
}

pub(crate) fn int(value: i64) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) }
}

/// Elements as the protocol has them raw.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Byte strings as the protocol has them raw.
pub(crate) fn byte_strings(strings: &[Vec<u8>]) -> Vec<u8> {
    let prefixed = |string: &Vec<u8>| [&(string.len() as u32).to_le_bytes()[..], string].concat();
    strings.iter().flat_map(prefixed).collect()
}
