//! The health protocol (`grpc.health.v1`): of the server under no name and under its services' names, and of each model under
//! its own.

use futures_util::stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call::Call;
use super::proto::convoy::v1::image_classifier_server;
use super::proto::inference::grpc_inference_service_server;
use super::stream::Answers;
use crate::inference::{Changes, Inference};
use crate::net::Draining;

/// The names that stand for the server as a whole.
const SERVER: &[&str] = &["", grpc_inference_service_server::SERVICE_NAME, image_classifier_server::SERVICE_NAME];

/// The health service. It has no state of its own: what it says is what the facade says at that moment.
#[derive(Debug)]
pub(super) struct HealthService {
    pub(super) inference: Inference,
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match status(&self.inference, &service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found(format!("there is neither a service nor a model called {service}")))
            }
            status => Ok(Response::new(response(status))),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watch = Watch {
            inference: self.inference.clone(),
            // Before the first look, so that no change is missed.
            changes: self.inference.changes(),
            draining: Call::of(request.extensions()).draining,
            service: request.into_inner().service,
            seen: None,
        };
        let statuses = stream::unfold(Some(watch), async |watch| {
            let mut watch = watch?;
            Some(match watch.next().await {
                Some(status) => (Ok(response(status)), Some(watch)),
                None => (Err(Status::unavailable("the server is shutting down")), None),
            })
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}

/// One client that watches.
struct Watch {
    inference: Inference,
    changes: Changes,
    draining: Draining,
    service: String,
    seen: Option<ServingStatus>,
}

impl Watch {
    /// The status, when it is another than the last; `None` when the server drains.
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            let status = status(&self.inference, &self.service);
            if self.seen.replace(status) != Some(status) {
                return Some(status);
            }
            tokio::select! {
                () = self.changes.next() => {}
                () = self.draining.begun() => return None,
            }
        }
    }
}

/// A model serves when it is ready and the server is.
fn status(inference: &Inference, service: &str) -> ServingStatus {
    let is_serving = if SERVER.contains(&service) {
        true
    } else {
        match inference.is_model_ready(service, None) {
            Ok(ready) => ready,
            Err(_) => return ServingStatus::ServiceUnknown,
        }
    };
    if is_serving && inference.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
