//! A collector of OpenTelemetry's: it takes spans over OTLP, by gRPC and by HTTP, and keeps them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::Service;

/// What has come in.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    resources: Vec<KeyValue>,
    headers: Vec<HeaderMap>,
}

impl Collector {
    /// Listens for gRPC, on any number of connections.
    pub(crate) async fn over_grpc() -> (Self, SocketAddr) {
        let collector = Self::default();
        let routes = Routes::new(TraceServiceServer::new(collector.clone())).prepare();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let routes = routes.clone();
                let service = service_fn(move |request| routes.clone().call(request));
                let http = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        (collector, address)
    }

    /// Listens for protocol buffers over HTTP, at `/v1/traces` alone.
    pub(crate) async fn over_http() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let served = served.clone();
                    async move {
                        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        served.take(head.headers, ExportTraceServiceRequest::decode(body).unwrap());
                        Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::new())))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        (collector, address)
    }

    fn take(&self, headers: HeaderMap, request: ExportTraceServiceRequest) {
        let mut received = self.0.lock().unwrap();
        received.headers.push(headers);
        for resource in request.resource_spans {
            received.resources.extend(resource.resource.unwrap_or_default().attributes);
            received.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().spans.clone()
    }

    /// The value of a header of the first export.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let received = self.0.lock().unwrap();
        Some(received.headers.first()?.get(name)?.to_str().unwrap().to_owned())
    }

    /// The value of an attribute of the service itself.
    pub(crate) fn resource(&self, key: &str) -> Option<String> {
        text(&self.0.lock().unwrap().resources, key)
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.take(metadata.into_headers(), request);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// An attribute, written as text.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}
