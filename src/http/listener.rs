//! A connection that speaks HTTP/1.
//!
//! It serves any router: it knows connections, not requests.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tower::Service;

use super::HttpConfig;
use crate::net::{self, Acceptor, Draining, Stream};

/// How a listener treats its connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionOptions {
    /// How long a connection may go without a complete request head, idle or not.
    pub idle_timeout: Duration,
    /// How many connections may be open at once; further ones wait in the kernel's backlog.
    pub max_connections: Option<usize>,
}

impl From<&HttpConfig> for ConnectionOptions {
    fn from(config: &HttpConfig) -> Self {
        Self { idle_timeout: Duration::from_millis(config.idle_timeout_ms), max_connections: config.max_connections }
    }
}

/// Serves `router` on `listener`, encrypted where there is `tls`, until `stop` completes; then stops accepting, closes idle connections, and returns when
/// every request that was accepted has its answer. Dropped before that, it cuts off the connections that are left.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    router: Router,
    options: ConnectionOptions,
    stop: impl Future<Output = ()>,
) {
    net::serve(listener, tls, options.max_connections, stop, move |stream, peer, draining| {
        serve_connection(stream, peer, router.clone(), options.idle_timeout, draining)
    })
    .await;
}

async fn serve_connection(
    stream: Stream,
    peer: SocketAddr,
    router: Router,
    idle_timeout: Duration,
    mut draining: Draining,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        // A router is always ready, so it can be called without being asked.
        router.clone().call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle_timeout)
            .serve_connection(TokioIo::new(stream), service)
    );
    let served = tokio::select! {
        served = &mut connection => served,
        () = draining.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // A client that left, timed out or spoke no HTTP: worth a look while debugging only.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
