//! The options of the HTTP interface.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The `[http]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where to listen. Port 0 takes a free one, which the log names.
    pub address: SocketAddr,
    /// The largest request body in bytes, counted after decompression.
    pub max_body_bytes: usize,
    /// How deep a JSON body may nest.
    pub max_json_depth: usize,
    /// How long a request's body may stand still, in milliseconds, before the request is refused.
    pub body_timeout_ms: u64,
    /// How long a request's body may take in all, in milliseconds, before the request is refused: one that trickles never stands
    /// still.
    pub body_deadline_ms: u64,
    /// How long a connection may go without a complete request head, in milliseconds: while idle, or while one trickles in.
    pub idle_timeout_ms: u64,
    /// How many connections may be open at once; further ones wait unaccepted. No limit when absent.
    pub max_connections: Option<usize>,
    /// Origins whose pages may call this server from a browser (`"https://example.org"`), or `"*"`. None by default.
    pub cors_origins: Vec<String>,
    /// A further path of the readiness probe, where the hosting platform chooses one.
    pub health_route: Option<String>,
    /// A further path of `/invocations`, where the hosting platform chooses one.
    pub predict_route: Option<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000)),
            max_body_bytes: 64 << 20,
            max_json_depth: 32,
            body_timeout_ms: 30_000,
            body_deadline_ms: 300_000,
            // Longer than the 60 s after which common load balancers give up an idle connection: the side that closes first
            // must be the one that also opens, or a request is lost in the crossing.
            idle_timeout_ms: 75_000,
            max_connections: None,
            cors_origins: Vec::new(),
            health_route: None,
            predict_route: None,
        }
    }
}

impl HttpConfig {
    /// The deepest `max_json_depth` allowed: what the JSON parser itself can follow.
    pub const MAX_JSON_DEPTH: usize = 127;

    /// Refuses values that would make the server useless.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.max_body_bytes == 0 {
            return Err(Error::invalid("http.max_body_bytes must be at least 1"));
        }
        if !(1..=Self::MAX_JSON_DEPTH).contains(&self.max_json_depth) {
            return Err(Error::invalid(format!("http.max_json_depth must be from 1 to {}", Self::MAX_JSON_DEPTH)));
        }
        if self.body_timeout_ms == 0 || self.body_deadline_ms == 0 || self.idle_timeout_ms == 0 {
            return Err(Error::invalid(
                "http.body_timeout_ms, http.body_deadline_ms and http.idle_timeout_ms must be at least 1",
            ));
        }
        if self.max_connections == Some(0) {
            return Err(Error::invalid("http.max_connections must be at least 1"));
        }
        for (key, route) in [("health_route", &self.health_route), ("predict_route", &self.predict_route)] {
            // Braces would be the router's wildcards.
            if route.as_ref().is_some_and(|route| !route.starts_with('/') || route.contains(['{', '}', '?', '#'])) {
                return Err(Error::invalid(format!("http.{key} must be a plain path that begins with `/`")));
            }
        }
        Ok(())
    }
}
