//! A request's span, by OpenTelemetry's conventions for HTTP servers.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::uri::Scheme;
use axum::http::{Extensions, Method, StatusCode};

use super::{CLIENT_LEFT, Observation, Observer};
use crate::http::metrics::method_label;
use crate::telemetry::{Attribute, RequestSpan};

/// Routes that are asked every few seconds for the life of the server, and are not traced.
const UNTRACED: &[&str] = &["/v2/health/live", "/v2/health/ready", "/ping", "/metrics"];

impl Observer {
    /// Begins the span of a request, where requests are traced and this one is no probe.
    pub(super) fn span(&self, request: &Request) -> RequestSpan {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let is_probe = |route| UNTRACED.contains(&route) || self.health_route.as_deref() == Some(route);
        if !self.tracing.is_on() || route.is_some_and(is_probe) {
            return RequestSpan::default();
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let span = self.tracing.request(request.headers(), peer, || {
            let method = Some(method(request.method())).filter(|&method| method != "_OTHER").unwrap_or("HTTP");
            route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
        });
        let scheme = self.tracing.forwarded_scheme(request.headers()).unwrap_or_else(|| scheme(request.extensions()));
        span.trace().set("url.scheme", scheme);
        span
    }
}

impl Observation<'_> {
    /// Ends the span with what the request was and how it ended.
    pub(super) fn end_span(&mut self, status: StatusCode) {
        let Self { method: asked, uri, route, request_bytes, request_id, .. } = self;
        let attributes = || {
            let required = [
                Attribute::new("http.request.method", method(asked)),
                Attribute::new("url.path", uri.path().to_owned()),
                Attribute::new("http.response.status_code", i64::from(status.as_u16())),
                Attribute::new("convoy.request.id", (*request_id).to_owned()),
            ];
            let optional = [
                route.as_ref().map(|route| Attribute::new("http.route", route.as_str().to_owned())),
                request_bytes.map(|bytes| Attribute::new("http.request.body.size", bytes as i64)),
            ];
            required.into_iter().chain(optional.into_iter().flatten()).collect()
        };
        // What a client does wrong is no error of the server's.
        let is_error = status.is_server_error() || status.as_u16() == CLIENT_LEFT;
        self.span.end(attributes, Some(status.as_str()).filter(|_| is_error));
    }
}

/// What the connection is.
fn scheme(extensions: &Extensions) -> &'static str {
    if extensions.get::<Scheme>() == Some(&Scheme::HTTPS) { "https" } else { "http" }
}

/// A method is whatever token a client sends; the unknown ones have one name.
fn method(method: &Method) -> &'static str {
    match method_label(method) {
        "other" => "_OTHER",
        known => known,
    }
}
