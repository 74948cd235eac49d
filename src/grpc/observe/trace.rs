//! A call's span, by OpenTelemetry's conventions for gRPC servers.

use std::net::SocketAddr;

use hyper::Request;
use tonic::Code;

use super::{Observation, Observer, REFLECTION, is_probe};
use crate::error::Result;
use crate::grpc::metrics::name_of;
use crate::grpc::status::code_of;
use crate::telemetry::{Attribute, RequestSpan, Trace};

impl Observer {
    /// Begins the span of a call, where calls are traced and this one is no probe.
    pub(super) fn span<B>(&self, request: &Request<B>, peer: SocketAddr) -> RequestSpan {
        let path = request.uri().path();
        if !self.tracing.is_on() || is_probe(path) || path.starts_with(REFLECTION) {
            return RequestSpan::default();
        }
        self.tracing.request(request.headers(), Some(peer), || self.method(path).to_owned())
    }

    /// A path is whatever a client sends; the unknown ones have one name.
    fn method<'a>(&self, path: &'a str) -> &'a str {
        if self.metrics.knows(path) { path.trim_start_matches('/') } else { "_OTHER" }
    }
}

impl Observation {
    /// Ends the span with what the call was and how it ended.
    pub(super) fn end_span(&mut self, code: Code) {
        let Self { observer, path, id, .. } = self;
        let attributes = || {
            vec![
                Attribute::new("rpc.system.name", "grpc"),
                Attribute::new("rpc.method", observer.method(path).to_owned()),
                Attribute::new("rpc.response.status_code", name_of(code)),
                Attribute::new("convoy.request.id", id.to_string()),
            ]
        };
        self.span.end(attributes, Some(name_of(code)).filter(|_| is_error(code)));
    }
}

/// Says in the span of a stream's message how that was answered. The stream itself goes on, and ends with a status of its own.
pub(in crate::grpc) fn record_message<T>(message: &Trace, answer: &Result<T>) {
    let code = answer.as_ref().map_or_else(|error| code_of(error.kind()), |_| Code::Ok);
    message.set("rpc.response.status_code", name_of(code));
    if is_error(code) {
        message.fail(name_of(code));
    }
}

/// Whether a status says that the server failed, or that its answer reached nobody. What a client does wrong is no error of the
/// server's.
fn is_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Cancelled
    )
}
