//! Health and reflection.

use convoy::server::Server;
use futures_util::{StreamExt, stream};
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};

use crate::client::channel;
use crate::server::within_a_minute;
use crate::{repository, server, unhurried};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn check(client: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Code> {
    client.check(of(service)).await.map(|answer| answer.get_ref().status()).map_err(|status| status.code())
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> Result<ServingStatus, Code> {
    let status = within_a_minute(watch.next()).await.unwrap();
    status.map(|status| status.status()).map_err(|status| status.code())
}

#[tokio::test]
async fn health_follows_readiness_and_the_repository() {
    let repository = repository();
    let server = Server::start(unhurried(&repository)).await.unwrap();
    let mut client = HealthClient::new(channel(&server).await);
    assert_eq!(check(&mut client, "").await, Ok(ServingStatus::NotServing));
    assert_eq!(check(&mut client, "means").await, Err(Code::NotFound));
    let mut watch = client.watch(of("means")).await.unwrap().into_inner();
    let mut watch_all = client.watch(of("")).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await, Ok(ServingStatus::ServiceUnknown));
    assert_eq!(next(&mut watch_all).await, Ok(ServingStatus::NotServing));

    server.load().await.unwrap();
    while next(&mut watch).await != Ok(ServingStatus::Serving) {}
    assert_eq!(next(&mut watch_all).await, Ok(ServingStatus::Serving));
    for (service, expected) in [
        ("", Ok(ServingStatus::Serving)),
        ("inference.GRPCInferenceService", Ok(ServingStatus::Serving)),
        ("convoy.v1.ImageClassifier", Ok(ServingStatus::Serving)),
        ("means", Ok(ServingStatus::Serving)),
        ("broken", Ok(ServingStatus::NotServing)),
        ("nothing", Err(Code::NotFound)),
    ] {
        assert_eq!(check(&mut client, service).await, expected, "{service}");
    }

    // Whoever watches does not hold up the end.
    let shutdown = tokio::spawn(server.shutdown());
    assert_eq!(next(&mut watch).await, Ok(ServingStatus::NotServing));
    assert_eq!(next(&mut watch).await, Err(Code::Unavailable));
    assert_eq!(next(&mut watch_all).await, Ok(ServingStatus::NotServing));
    within_a_minute(shutdown).await.unwrap();
}

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    let (server, _repository) = server().await;
    let expected = ["convoy.v1.ImageClassifier", "grpc.health.v1.Health", "inference.GRPCInferenceService"];

    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response;
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");

    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "convoy.v1.ImageClassifier".into(),
        )),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response;
    let Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(files)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(files.file_descriptor_proto.len(), 1);
}

#[tokio::test]
async fn whoever_keeps_reflection_open_does_not_hold_up_the_end() {
    let (server, _repository) = server().await;
    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let asked = stream::iter([request]).chain(stream::pending());
    let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
    answers.next().await.unwrap().unwrap();
    within_a_minute(server.shutdown()).await;
    assert!(answers.next().await.is_none());
}
