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
use axum::http::uri::Scheme;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::Service;

use super::HttpConfig;
use super::lingering::Lingering;
use crate::net::{self, Acceptor, Draining, Places, Stream};

/// How long a connection without a request in progress is kept once draining has begun: time for an answer to be written and
/// for a head that is on its way. A head that only trickles in must not hold up the end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// How a listener treats its connections.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// How long a connection may go without a complete request head, idle or not.
    pub idle_timeout: Duration,
    /// What the open ones take; further ones wait in the kernel's backlog.
    pub places: Places,
}

impl From<&HttpConfig> for ConnectionOptions {
    fn from(config: &HttpConfig) -> Self {
        Self {
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
            places: Places::new(config.max_connections),
        }
    }
}

/// Serves `router` on `listener`, encrypted where there is `tls`, until `stop` completes; then stops accepting, closes idle
/// connections, and returns when every request that was accepted has its answer. Dropped before that, it cuts off the
/// connections that are left.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    router: Router,
    options: ConnectionOptions,
    stop: impl Future<Output = ()>,
) {
    let ConnectionOptions { idle_timeout, places } = options;
    net::serve(listener, tls, places, stop, move |stream, peer, draining| {
        serve_connection(stream, peer, router.clone(), idle_timeout, draining)
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
    let (in_progress, mut requests) = watch::channel(0usize);
    let scheme = if stream.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(scheme.clone());
        let in_progress = InProgress::begin(in_progress.clone());
        // A router is always ready, so it can be called without being asked.
        let answer = router.clone().call(request);
        async move {
            let _in_progress = in_progress;
            answer.await
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle_timeout)
            .serve_connection(TokioIo::new(Lingering::new(stream)), service)
    );
    let served = tokio::select! {
        served = &mut connection => served,
        () = draining.begun() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = &mut connection => served,
                () = without_requests(&mut requests, DRAIN_PATIENCE) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        // A client that left, timed out or spoke no HTTP: worth a look while debugging only.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Counts a request of a connection for as long as its answer is being made.
struct InProgress(watch::Sender<usize>);

impl InProgress {
    fn begin(requests: watch::Sender<usize>) -> Self {
        requests.send_modify(|requests| *requests += 1);
        Self(requests)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

/// Completes when no request has been in progress for as long as `patience`.
async fn without_requests(requests: &mut watch::Receiver<usize>, patience: Duration) {
    loop {
        // An error says that the connection's service is gone: then no request can come either.
        let _ = requests.wait_for(|&requests| requests == 0).await;
        if !matches!(tokio::time::timeout(patience, requests.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}
