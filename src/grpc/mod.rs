//! The gRPC interface: the Open Inference Protocol, the image classifier, health and reflection.
//!
//! It turns wire forms into the requests of [`crate::inference`] and [`crate::explain`] and their answers back, and it alone knows gRPC and protocol
//! buffers. It must not know how a model is found, queued or run, nor that there is an HTTP interface.

mod auth;
mod call;
pub mod codec;
mod compression;
mod config;
mod health;
mod image_classifier;
mod listener;
mod messages;
mod metrics;
mod observe;
pub mod proto;
mod status;
mod stream;
mod v2;

use std::future::Future;

use prometheus::Registry;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding::{Deflate, Gzip};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder as Reflection;

pub use config::GrpcConfig;

use self::health::HealthService;
use self::image_classifier::ClassifierService;
use self::listener::Connections;
use self::metrics::GrpcMetrics;
use self::observe::Observer;
use self::proto::DESCRIPTORS;
use self::proto::convoy::v1::image_classifier_server::ImageClassifierServer;
use self::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use self::v2::InferenceService;
use crate::auth::Keys;
use crate::error::{Error, Result};
use crate::explain::Explainer;
use crate::inference::Inference;
use crate::net::{Acceptor, Places};
use crate::telemetry::Tracing;

/// The largest question to reflection, which asks for names. These do not count against the server's bound.
const MAX_REFLECTION_BYTES: usize = 16 << 10;

/// The gRPC interface, ready to be served. Dropping it changes nothing.
#[derive(Debug)]
pub struct Grpc(Connections);

impl Grpc {
    /// Every service over `inference` and `explainer`, for those who have one of `keys`. Its call metrics are registered with `registry`.
    ///
    /// # Errors
    /// `Internal` when `registry` already holds metrics of these names.
    pub fn new(
        inference: &Inference,
        explainer: &Explainer,
        config: &GrpcConfig,
        keys: Keys,
        registry: &Registry,
        tracing: Tracing,
    ) -> Result<Self> {
        // What compresses its messages has them undone before they come here. tonic is told of the encodings so that it can
        // name them to whoever uses another.
        let reflection = || {
            Reflection::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let broken = |error| Error::internal("the services have no valid description").with_source(error);
        let mut routes = Routes::builder();
        routes
            .add_service(
                GrpcInferenceServiceServer::new(InferenceService { inference: inference.clone() })
                    .max_decoding_message_size(config.max_message_bytes)
                    .max_encoding_message_size(config.max_message_bytes)
                    .accept_compressed(Gzip)
                    .accept_compressed(Deflate)
                    .send_compressed(Gzip)
                    .send_compressed(Deflate),
            )
            .add_service(
                ImageClassifierServer::new(ClassifierService {
                    inference: inference.clone(),
                    explainer: explainer.clone(),
                })
                .max_decoding_message_size(config.max_message_bytes)
                .max_encoding_message_size(config.max_message_bytes)
                .accept_compressed(Gzip)
                .accept_compressed(Deflate)
                .send_compressed(Gzip)
                .send_compressed(Deflate),
            )
            .add_service(HealthServer::new(HealthService { inference: inference.clone() }))
            .add_service(reflection().build_v1().map_err(broken)?.max_decoding_message_size(MAX_REFLECTION_BYTES))
            .add_service(reflection().build_v1alpha().map_err(broken)?.max_decoding_message_size(MAX_REFLECTION_BYTES));
        let described = [
            DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let metrics = GrpcMetrics::register(registry, &described)?;
        let observer = Observer::new(metrics, keys, inference.body_bytes().clone(), config, tracing);
        Ok(Self(Connections::new(config, routes.routes(), observer)))
    }

    /// The places that its connections take.
    pub fn places(&self) -> &Places {
        self.0.places()
    }

    /// Serves on `listener`, encrypted where there is `tls`, until `stop` completes; then stops accepting, ends streams as soon as what they have read is
    /// answered, and returns when every call has ended. Dropped before that, it cuts off those that are left.
    pub async fn serve(self, listener: TcpListener, tls: Option<Acceptor>, stop: impl Future<Output = ()>) {
        self.0.serve(listener, tls, stop).await;
    }
}
