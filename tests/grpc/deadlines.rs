//! Deadlines and cancellation.

use convoy::grpc::proto::inference::ModelInferRequest;
use tonic::Code;

use crate::client::{bytes, client, int, raw};
use crate::raw::{MODEL_INFER, MODEL_STREAM_INFER, call, frame, open, send};
use crate::server::within_a_minute;
use crate::{TENSOR, assert_means, in_flight, requests, server, until};

/// A request that waits for another, with a timeout in microseconds.
fn held(timeout: Option<i64>) -> ModelInferRequest {
    let mut request = raw("held", "FP32", &[1, 3, 2, 2], bytes(&TENSOR));
    request.parameters = timeout.map(|timeout| ("timeout".into(), int(timeout))).into_iter().collect();
    request
}

const HOUR_US: i64 = 3_600_000_000;

#[tokio::test]
async fn the_earlier_of_timeout_and_deadline_counts() {
    let (server, _repository) = server().await;
    for (parameter, header) in
        [(Some(20_000), None), (None, Some("200m")), (Some(20_000), Some("1H")), (Some(HOUR_US), Some("200m"))]
    {
        let headers: Vec<_> = header.map(|header| ("grpc-timeout", header)).into_iter().collect();
        let answer = call(&server, MODEL_INFER, &headers, frame(&held(parameter))).await;
        assert_eq!(answer.code, Code::DeadlineExceeded, "{parameter:?} {header:?}: {}", answer.message);
    }
    // It was the request that expired, and was counted so, not the call that was cut off.
    assert_eq!(crate::metric(&server, &requests("held", "rejected")).await as u32, 4);
    let answer = call(&server, MODEL_INFER, &[("grpc-timeout", "0n")], frame(&held(None))).await;
    assert_eq!(answer.code, Code::DeadlineExceeded, "{}", answer.message);
}

#[tokio::test]
async fn a_call_whose_message_does_not_arrive_ends_at_its_deadline() {
    let (server, _repository) = server().await;
    let mut half = frame(&held(None));
    half.truncate(half.len() / 2);
    let answer = send(&server, MODEL_INFER, &[("grpc-timeout", "50m")], open(half)).await;
    assert_eq!(answer.code, Code::DeadlineExceeded, "{}", answer.message);
}

#[tokio::test]
async fn a_streams_deadline_ends_it_and_what_it_has_in_flight() {
    let (server, _repository) = server().await;
    let body = open(frame(&held(None)));
    let answer = send(&server, MODEL_STREAM_INFER, &[("grpc-timeout", "50m")], body).await;
    assert_eq!(answer.code, Code::DeadlineExceeded, "{}", answer.message);
    until(&server, &in_flight("held"), 0.0).await;
}

#[tokio::test]
async fn a_malformed_deadline_is_refused() {
    let (server, _repository) = server().await;
    let answer = call(&server, MODEL_INFER, &[("grpc-timeout", "soon")], frame(&held(None))).await;
    assert_eq!(answer.code, Code::InvalidArgument);
    assert!(answer.message.contains("grpc-timeout"), "{}", answer.message);
}

#[tokio::test]
async fn cancelling_a_call_takes_the_request_out_of_the_queue() {
    let (server, _repository) = server().await;
    let mut first = client(&server).await;
    let mut second = first.clone();
    let mut third = first.clone();
    let cancelled = tokio::spawn(async move { first.model_infer(held(None)).await });
    until(&server, &in_flight("held"), 1.0).await;
    cancelled.abort();
    until(&server, &in_flight("held"), 0.0).await;
    until(&server, &requests("held", "canceled"), 1.0).await;

    // Were it still queued, it would make a batch with the second, and the third would wait for an hour.
    let pair = async { tokio::join!(second.model_infer(held(None)), third.model_infer(held(None))) };
    let (second, third) = within_a_minute(pair).await;
    assert_means(second.unwrap().get_ref());
    assert_means(third.unwrap().get_ref());
}
