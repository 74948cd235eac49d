//! API keys and TLS, over HTTP and gRPC, through real listeners.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/graphs.rs"]
#[expect(dead_code, reason = "one graph is enough")]
mod graphs;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "no model is broken and no picture sent")]
mod server;

mod authority;
mod bench;
mod client;
mod keys;
mod telemetry;
mod tls;

use std::time::Duration;

use server::Repository;

/// A repository with the model `means`.
fn repository() -> Repository {
    Repository::new().with("means", &graphs::channel_means(2, None), "", "")
}

/// Waits until `condition` holds, as it must within a minute: files are looked at every second.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    server::within_a_minute(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
