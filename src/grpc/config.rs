//! The options of the gRPC interface.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The `[grpc]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Where to listen. Port 0 takes a free one, which the log names.
    pub address: SocketAddr,
    /// The largest message in bytes, in either direction, counted after decompression.
    pub max_message_bytes: usize,
    /// How many calls one connection may have open at once; a client holds back further ones.
    pub max_concurrent_streams: u32,
    /// How many connections may be open at once; further ones wait unaccepted. No limit when absent.
    pub max_connections: Option<usize>,
    /// How long a message may take to arrive, in milliseconds, from its first byte to its last.
    pub message_timeout_ms: u64,
    /// After how long without a word from the client, in milliseconds, it is asked whether it is still there.
    pub keep_alive_interval_ms: u64,
    /// How long it may take to say so, in milliseconds, before its connection is closed.
    pub keep_alive_timeout_ms: u64,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8001)),
            max_message_bytes: 64 << 20,
            max_concurrent_streams: 256,
            max_connections: None,
            message_timeout_ms: 300_000,
            // Half of the shortest time after which common load balancers and NATs forget a silent connection.
            keep_alive_interval_ms: 30_000,
            keep_alive_timeout_ms: 20_000,
        }
    }
}

impl GrpcConfig {
    /// The largest `max_message_bytes`: gRPC has 32 bits for a message's length.
    pub const MAX_MESSAGE_BYTES: usize = u32::MAX as usize;

    /// Refuses values that would make the server useless.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        if !(1..=Self::MAX_MESSAGE_BYTES).contains(&self.max_message_bytes) {
            return Err(Error::invalid(format!(
                "grpc.max_message_bytes must be from 1 to {}",
                Self::MAX_MESSAGE_BYTES
            )));
        }
        if self.max_concurrent_streams == 0 || self.max_connections == Some(0) {
            return Err(Error::invalid("grpc.max_concurrent_streams and grpc.max_connections must be at least 1"));
        }
        if self.keep_alive_interval_ms == 0 || self.keep_alive_timeout_ms == 0 || self.message_timeout_ms == 0 {
            return Err(Error::invalid(
                "grpc.message_timeout_ms, grpc.keep_alive_interval_ms and grpc.keep_alive_timeout_ms must be at least 1",
            ));
        }
        Ok(())
    }
}
