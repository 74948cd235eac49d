//! Calls over gRPC, their spans exported over HTTP.

use convoy::grpc::proto::convoy::v1 as pb;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::telemetry::OtlpProtocol;
use futures_util::{StreamExt, stream};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tonic::{Code, Request};

use crate::collector::Collector;
use crate::grpc_client::{bytes, channel, client, raw};
use crate::server::{png, within_a_minute};
use crate::{CALLER, TRACE, assert_child, attribute, hex, links, one, repository, traced, traceparent};

/// A request in the caller's trace.
fn in_trace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", traceparent(true).parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_span_in_its_callers_trace_with_its_parts_below() {
    let (collector, address) = Collector::over_http().await;
    let repository = repository();
    let server = traced(&repository, address, |config| {
        config.tracing.protocol = OtlpProtocol::HttpProtobuf;
        config.tracing.headers = vec!["authorization=Bearer secret".to_owned()];
        config.trusted_proxies = 1;
    })
    .await;
    let mut classifier = ImageClassifierClient::new(channel(&server).await);
    let request =
        pb::ClassifyRequest { model_name: "means".into(), images: vec![png([255, 0, 0]).into()], ..Default::default() };
    let mut request = in_trace(request);
    for address in ["192.0.2.66", "203.0.113.7"] {
        request.metadata_mut().append("x-forwarded-for", address.parse().unwrap());
    }
    let answer = classifier.classify(request).await.unwrap();
    let told = answer.metadata().get("traceresponse").unwrap().to_str().unwrap().to_owned();
    let mut inference = client(&server).await;
    let failed = raw("table", "FP32", &[1, 3, 2, 2], bytes(&[99.0; 12]));
    let status = inference.model_infer(failed).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    drop((classifier, inference));
    server.shutdown().await;

    let spans = collector.spans();
    let call = one(&spans, "convoy.v1.ImageClassifier/Classify");
    assert_eq!((hex(&call.trace_id), hex(&call.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&call.span_id)));
    assert_eq!(call.kind, SpanKind::Server as i32);
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "convoy.v1.ImageClassifier/Classify"),
        ("rpc.response.status_code", "OK"),
        ("client.address", "203.0.113.7"),
        ("network.peer.address", "127.0.0.1"),
        ("convoy.model.name", "means"),
    ] {
        assert_eq!(attribute(call, key).as_deref(), Some(value), "{key}");
    }
    for name in ["decode", "queue", "compute"] {
        let part = spans.iter().find(|span| span.name == name && span.trace_id == call.trace_id).unwrap();
        assert_child(part, call);
    }
    assert!(spans.iter().any(|span| span.name == "batch" && links(span, call)));
    let failed = one(&spans, "inference.GRPCInferenceService/ModelInfer");
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("INTERNAL"));
    assert_eq!(failed.status.as_ref().unwrap().code, StatusCode::Error as i32);
    assert_eq!(collector.header("authorization").as_deref(), Some("Bearer secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_stream_has_a_span_of_its_own() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |_| {}).await;
    let mut classifier = ImageClassifierClient::new(channel(&server).await);
    let message = |id: u8| pb::ClassifyStreamRequest {
        id: id.to_string(),
        request: Some(pb::ClassifyRequest {
            model_name: "means".into(),
            images: vec![png([id; 3]).into()],
            ..Default::default()
        }),
    };
    let asked = stream::iter([message(1), message(2)]);
    let answers = classifier.classify_stream(in_trace(asked)).await.unwrap().into_inner();
    let answers: Vec<_> = within_a_minute(answers.collect()).await;
    assert_eq!(answers.len(), 2);
    drop(classifier);
    server.shutdown().await;

    let spans = collector.spans();
    let call = one(&spans, "convoy.v1.ImageClassifier/ClassifyStream");
    let messages: Vec<_> = spans.iter().filter(|span| span.name == "message").collect();
    assert_eq!(messages.len(), 2);
    for message in messages {
        assert_child(message, call);
        assert_eq!(attribute(message, "convoy.model.name").as_deref(), Some("means"));
        for name in ["decode", "queue", "compute"] {
            let parts: Vec<_> =
                spans.iter().filter(|span| span.name == name && span.parent_span_id == message.span_id).collect();
            assert_eq!(parts.len(), 1, "{name}");
            assert_child(parts[0], message);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_fail_say_so_while_their_stream_goes_on() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |_| {}).await;
    let mut inference = client(&server).await;
    let messages = [
        raw("table", "FP32", &[1, 3, 2, 2], bytes(&[99.0; 12])),
        raw("nowhere", "FP32", &[1, 3, 2, 2], bytes(&[0.0; 12])),
    ];
    let answers = inference.model_stream_infer(in_trace(stream::iter(messages))).await.unwrap().into_inner();
    let answers: Vec<_> = within_a_minute(answers.collect()).await;
    assert!(answers.len() == 2 && answers.iter().all(|answer| !answer.as_ref().unwrap().error_message.is_empty()));
    drop(inference);
    server.shutdown().await;

    let spans = collector.spans();
    let call = one(&spans, "inference.GRPCInferenceService/ModelStreamInfer");
    assert_eq!(attribute(call, "rpc.response.status_code").as_deref(), Some("OK"));
    let ended = |code: &str| {
        let has_code = |span: &&Span| attribute(span, "rpc.response.status_code").as_deref() == Some(code);
        spans.iter().find(|span| span.name == "message" && has_code(span)).unwrap_or_else(|| panic!("{spans:#?}"))
    };
    let failed = ended("INTERNAL");
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("INTERNAL"));
    assert_eq!(failed.status.as_ref().unwrap().code, StatusCode::Error as i32);
    // What the client has done wrong is no error of the server's.
    let refused = ended("NOT_FOUND");
    assert_eq!(attribute(refused, "error.type"), None);
    assert!(refused.status.as_ref().is_none_or(|status| status.code == StatusCode::Unset as i32));
}
