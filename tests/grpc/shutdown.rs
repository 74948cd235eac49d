//! How the server ends.

use std::time::Duration;

use convoy::grpc::proto::inference::ModelInferRequest;
use futures_util::{StreamExt, stream};
use tonic::Code;

use crate::client::{bytes, client, raw};
use crate::server::within_a_minute;
use crate::{TENSOR, assert_means, in_flight, server, until};

fn request(model: &str) -> ModelInferRequest {
    raw(model, "FP32", &[1, 3, 2, 2], bytes(&TENSOR))
}

#[tokio::test]
async fn calls_in_flight_are_answered_and_open_streams_end() {
    let (server, _repository) = server().await;
    let address = server.grpc_address();
    // A connection that says nothing, an idle one, a call that waits, and a stream that is open.
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let _idle = client(&server).await;
    let mut waiting = client(&server).await;
    let waiting = tokio::spawn(async move { waiting.model_infer(request("held")).await });
    until(&server, &in_flight("held"), 1.0).await;
    let mut client = client(&server).await;
    let asked = stream::iter([request("means")]).chain(stream::pending());
    let mut answers = client.model_stream_infer(asked).await.unwrap().into_inner();
    assert_means(&answers.next().await.unwrap().unwrap().infer_response.unwrap());

    let shutdown = tokio::spawn(server.shutdown());
    let last = within_a_minute(answers.next()).await.unwrap().unwrap_err();
    assert_eq!((last.code(), last.message()), (Code::Unavailable, "the server is shutting down"));
    // No further connection is taken.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What waited for a full batch does not hold up the end.
    assert_means(&within_a_minute(waiting).await.unwrap().unwrap().into_inner());
    within_a_minute(shutdown).await.unwrap();
}

#[tokio::test]
async fn what_a_stream_has_read_is_answered_before_it_ends() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let asked = stream::iter([request("held")]).chain(stream::pending());
    let mut answers = client.model_stream_infer(asked).await.unwrap().into_inner();
    until(&server, &in_flight("held"), 1.0).await;
    let shutdown = tokio::spawn(server.shutdown());
    let answer = within_a_minute(answers.next()).await.unwrap().unwrap();
    assert_means(&answer.infer_response.unwrap());
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    within_a_minute(shutdown).await.unwrap();
}
