//! A connection that speaks HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::GrpcConfig;
use super::observe::{Observer, observe};
use crate::net::{self, Acceptor, Draining, Stream};

/// How much of a call's messages may arrive before it is read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same over all calls of a connection: several times as much, so that a few calls that are not read do not hold up the
/// others.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Pictures and tensors are large: fewer, larger frames cost less.
const FRAME_BYTES: u32 = 1 << 18;
/// The largest head of a call.
const HEADER_BYTES: u32 = 16 << 10;

/// How long a connection on which there was no call yet may go on once draining has begun. hyper ends a connection only after
/// HTTP/2's handshake, which some clients never begin.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);

/// What connections have in common.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    http: http2::Builder<TokioExecutor>,
    limit: Option<usize>,
    routes: Routes,
    observer: Arc<Observer>,
}

impl Connections {
    pub(super) fn new(config: &GrpcConfig, routes: Routes, observer: Observer) -> Self {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(HEADER_BYTES)
            .max_concurrent_streams(config.max_concurrent_streams)
            .keep_alive_interval(Duration::from_millis(config.keep_alive_interval_ms))
            .keep_alive_timeout(Duration::from_millis(config.keep_alive_timeout_ms));
        Self { http, limit: config.max_connections, routes: routes.prepare(), observer: Arc::new(observer) }
    }

    /// Serves on `listener`, encrypted where there is `tls`, until `stop` completes; then stops accepting, and returns when every
    /// call that was accepted has ended. Dropped before that, it cuts off those that are left.
    pub(super) async fn serve(self, listener: TcpListener, tls: Option<Acceptor>, stop: impl Future<Output = ()>) {
        net::serve(listener, tls, self.limit, stop, move |stream, peer, draining| {
            self.clone().serve_connection(stream, peer, draining)
        })
        .await;
    }

    async fn serve_connection(self, stream: Stream, peer: SocketAddr, mut draining: Draining) {
        let is_draining = draining.clone();
        let has_called = Arc::new(AtomicBool::new(false));
        let called = Arc::clone(&has_called);
        let service = service_fn(move |request| {
            called.store(true, Ordering::Relaxed);
            let call = observe(Arc::clone(&self.observer), self.routes.clone(), peer, is_draining.clone(), request);
            async move { Ok::<_, Infallible>(call.await) }
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let served = tokio::select! {
            served = &mut connection => served,
            () = draining.begun() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(HANDSHAKE_PATIENCE, &mut connection).await {
                    Ok(served) => served,
                    Err(_) if has_called.load(Ordering::Relaxed) => connection.await,
                    Err(_) => Ok(()),
                }
            }
        };
        if let Err(error) = served {
            // A client that left, fell silent or spoke no HTTP/2: worth a look while debugging only.
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}
