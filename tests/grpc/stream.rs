//! `ModelStreamInfer`.

use std::time::Duration;

use convoy::grpc::proto::inference as pb;
use convoy::grpc::proto::inference::infer_parameter::ParameterChoice;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::client::{bytes, client, raw};
use crate::raw::{MODEL_STREAM_INFER, call};
use crate::server::within_a_minute;
use crate::{TENSOR, assert_means, in_flight, server, until};

fn request(model: &str, id: &str) -> pb::ModelInferRequest {
    pb::ModelInferRequest { id: id.into(), ..raw(model, "FP32", &[1, 3, 2, 2], bytes(&TENSOR)) }
}

/// A stream of requests, and where to put them.
fn outgoing() -> (mpsc::Sender<pb::ModelInferRequest>, impl Stream<Item = pb::ModelInferRequest>) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
}

#[tokio::test]
async fn answers_come_in_the_order_of_requests() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    // The first waits for the third, and the second for nothing.
    let asked =
        stream::iter([request("held", "a"), request("means", "b"), request("held", "c"), request("means", "d")]);
    let answers = client.model_stream_infer(asked).await.unwrap().into_inner();
    let answers: Vec<_> = within_a_minute(answers.collect()).await;
    let mut ids = Vec::new();
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.error_message, "");
        let answer = answer.infer_response.unwrap();
        assert_means(&answer);
        let last = &answer.parameters["triton_final_response"].parameter_choice;
        assert_eq!(*last, Some(ParameterChoice::BoolParam(true)));
        ids.push(answer.id);
    }
    assert_eq!(ids, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn an_error_answers_its_request_and_the_stream_goes_on() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let (asked, requests) = outgoing();
    let mut answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    let mut bad_shape = request("means", "shape");
    bad_shape.inputs[0].shape = vec![1, 3, 2, 1 << 40];
    for (request, said) in [
        (request("means", "good"), ""),
        (request("nothing", "model"), "there is no model called nothing"),
        (bad_shape, "input input: "),
        (request("broken", "broken"), "the model broken is unavailable"),
        (request("means", "after"), ""),
    ] {
        let id = request.id.clone();
        asked.send(request).await.unwrap();
        let answer = within_a_minute(answers.next()).await.unwrap().unwrap();
        assert!(answer.error_message.starts_with(said), "{answer:?}");
        assert_eq!(answer.error_message.is_empty(), said.is_empty(), "{answer:?}");
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, id);
        assert_eq!(response.outputs.is_empty(), !said.is_empty());
    }
    drop(asked);
    assert!(within_a_minute(answers.next()).await.is_none());
}

#[tokio::test]
async fn a_half_closed_stream_is_answered_to_the_end() {
    let (server, _repository) = server().await;
    // Nothing was asked: nothing is answered, and that is no error.
    let answer = call(&server, MODEL_STREAM_INFER, &[], "").await;
    assert_eq!((answer.code, answer.body.len()), (tonic::Code::Ok, 0));

    let mut client = client(&server).await;
    let many = stream::iter((0..300).map(|index| request("means", &index.to_string())));
    let answers = client.model_stream_infer(many).await.unwrap().into_inner();
    let ids: Vec<_> = answers.map(|answer| answer.unwrap().infer_response.unwrap().id).collect().await;
    assert_eq!(ids, (0..300).map(|index| index.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_never_reads_is_held_up_and_holds_up_nobody() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let mut other = client.clone();
    // Every answer is as large as its request: what is not read fills the client's window, then the server stops reading.
    let (asked, requests) = outgoing();
    let answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    let id = "x".repeat(16 << 10);
    let mut sent = 0;
    while sent < 10_000 {
        match timeout(Duration::from_secs(2), asked.send(request("means", &id))).await {
            Ok(result) => result.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent < 5_000, "the server took {sent} requests of 16 KiB from a client that reads nothing");
    // What was read has run, and gave back its places in the queue, though nobody took the answers.
    until(&server, &in_flight("means"), 0.0).await;
    // Another call on the same connection, and on another.
    assert_means(within_a_minute(other.model_infer(request("means", "b"))).await.unwrap().get_ref());
    drop(answers);
}

#[tokio::test]
async fn a_cancelled_stream_takes_its_requests_out_of_the_queue() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let (asked, requests) = outgoing();
    let answers = client.model_stream_infer(requests).await.unwrap();
    asked.send(request("held", "a")).await.unwrap();
    until(&server, &in_flight("held"), 1.0).await;
    // HTTP/2 resets a stream when neither side of it is held any more.
    drop((asked, answers));
    until(&server, &in_flight("held"), 0.0).await;
    until(&server, &crate::requests("held", "canceled"), 1.0).await;
}
