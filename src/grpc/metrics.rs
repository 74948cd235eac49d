//! Metrics of gRPC itself.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::{Histogram, IntCounterVec, Registry};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::error::{Error, Result};
use crate::telemetry::request_metrics;

/// Call counts and durations by service, method and status.
#[derive(Debug)]
pub(super) struct GrpcMetrics {
    /// By the path of a call: labels must not grow with what clients ask for, so only methods that exist have some.
    methods: HashMap<String, MethodMetrics>,
    unmatched: MethodMetrics,
    calls: IntCounterVec,
}

/// The metrics of one method, its labels resolved once.
#[derive(Debug)]
struct MethodMetrics {
    service: String,
    method: String,
    durations: Histogram,
}

impl GrpcMetrics {
    /// Makes the metrics of every method that `descriptors`, encoded file descriptor sets, describe, and registers them.
    ///
    /// # Errors
    /// `Internal` when `registry` already holds metrics of these names.
    pub(super) fn register(registry: &Registry, descriptors: &[&[u8]]) -> Result<Self> {
        let help = [
            "gRPC calls by method and status; CANCELLED where the client left before the answer.",
            "Time from a call's head to its end, the reading of its messages included.",
        ];
        let (calls, durations) = request_metrics(registry, "gRPC", help, &["service", "method"])?;
        let method = |service: String, method: String| MethodMetrics {
            durations: durations.with_label_values(&[&service, &method]),
            service,
            method,
        };
        let methods = methods(descriptors)?;
        let methods = methods.into_iter().map(|(service, name)| (format!("/{service}/{name}"), method(service, name)));
        Ok(Self { methods: methods.collect(), unmatched: method("unmatched".into(), "unmatched".into()), calls })
    }

    /// Whether there is a method at `path`.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.methods.contains_key(path)
    }

    /// Counts one call to `path`.
    pub(super) fn record(&self, path: &str, code: Code, duration: Duration) {
        let method = self.methods.get(path).unwrap_or(&self.unmatched);
        self.calls.with_label_values(&[&*method.service, &*method.method, name_of(code)]).inc();
        method.durations.observe(duration.as_secs_f64());
    }
}

/// Every service and method that is described.
fn methods(descriptors: &[&[u8]]) -> Result<Vec<(String, String)>> {
    let mut methods = Vec::new();
    for descriptors in descriptors {
        let descriptors = FileDescriptorSet::decode(*descriptors)
            .map_err(|error| Error::internal("a service has no valid description").with_source(error))?;
        for file in &descriptors.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| (name.clone(), method.name().to_owned())));
            }
        }
    }
    Ok(methods)
}

/// A status code as gRPC's specification spells it.
pub(super) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::DESCRIPTORS;

    #[test]
    fn only_methods_that_exist_have_labels() {
        let registry = Registry::new();
        let metrics = GrpcMetrics::register(&registry, &[DESCRIPTORS]).unwrap();
        metrics.record("/inference.GRPCInferenceService/ModelInfer", Code::Ok, Duration::from_millis(3));
        metrics.record("/convoy.v1.ImageClassifier/ClassifyStream", Code::Cancelled, Duration::ZERO);
        metrics.record("/whatever/the/client/likes", Code::Unimplemented, Duration::ZERO);
        let count = |labels: &[&str; 3]| metrics.calls.with_label_values(labels).get();
        assert_eq!(count(&["inference.GRPCInferenceService", "ModelInfer", "OK"]), 1);
        assert_eq!(count(&["convoy.v1.ImageClassifier", "ClassifyStream", "CANCELLED"]), 1);
        assert_eq!(count(&["unmatched", "unmatched", "UNIMPLEMENTED"]), 1);
        assert!(GrpcMetrics::register(&registry, &[]).is_err());
    }
}
