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
use crate::net::{self, Acceptor, Draining, Places, Stream};

/// How much of a call's messages may arrive before it is read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same over all calls of a connection: several times as much, so that a few calls that are not read do not hold up the
/// others.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Pictures and tensors are large: fewer, larger frames cost less.
const FRAME_BYTES: u32 = 1 << 18;
/// The largest head of a call.
const HEADER_BYTES: u32 = 16 << 10;

/// How many calls may be cancelled before the server has seen to them, on one connection. A proxy carries the calls of many
/// clients on one, and cancels those of one that leaves in a burst; h2's default of 20 would end the connection and all the
/// others' calls with it. Each takes a head's memory at most, and only until the burst has been read.
const MAX_RESETS: usize = 1024;
/// What a client says first: HTTP/2's connection preface has as many bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// How long a connection on which there was no call yet may go on once draining has begun. hyper ends a connection only after
/// HTTP/2's handshake, which some clients never begin.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);

/// What connections have in common.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    http: http2::Builder<TokioExecutor>,
    places: Places,
    /// How long a client may be silent that has not said HTTP/2's first word. What keeps the others' time begins after it.
    preface_timeout: Duration,
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
            .max_pending_accept_reset_streams(MAX_RESETS)
            .keep_alive_interval(Duration::from_millis(config.keep_alive_interval_ms))
            .keep_alive_timeout(Duration::from_millis(config.keep_alive_timeout_ms));
        let silence_ms = config.keep_alive_interval_ms.saturating_add(config.keep_alive_timeout_ms);
        Self {
            http,
            places: Places::new(config.max_connections),
            preface_timeout: Duration::from_millis(silence_ms),
            routes: routes.prepare(),
            observer: Arc::new(observer),
        }
    }

    /// The places that its connections take.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Serves on `listener`, encrypted where there is `tls`, until `stop` completes; then stops accepting, and returns when every
    /// call that was accepted has ended. Dropped before that, it cuts off those that are left.
    pub(super) async fn serve(self, listener: TcpListener, tls: Option<Acceptor>, stop: impl Future<Output = ()>) {
        net::serve(listener, tls, self.places.clone(), stop, move |stream, peer, draining| {
            self.clone().serve_connection(stream, peer, draining)
        })
        .await;
    }

    async fn serve_connection(self, mut stream: Stream, peer: SocketAddr, mut draining: Draining) {
        let begun = tokio::select! {
            begun = tokio::time::timeout(self.preface_timeout, stream.read_ahead(PREFACE_BYTES)) => begun,
            // No call can have come.
            () = draining.begun() => return,
        };
        if !matches!(begun, Ok(Ok(()))) {
            tracing::debug!(%peer, "a client left or fell silent before it spoke HTTP/2");
            return;
        }
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

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::client::conn::http2::handshake;
    use hyper::{Request, Response};
    use prometheus::Registry;
    use tokio::net::TcpStream;
    use tonic::body::Body;
    use tonic::server::NamedService;
    use tonic::{Code, Status};
    use tower::Service;

    use super::*;
    use crate::auth::{AuthConfig, Keys};
    use crate::grpc::metrics::GrpcMetrics;
    use crate::inference::BodyBytes;
    use crate::telemetry::Tracing;

    /// A service whose every call panics.
    #[derive(Clone)]
    struct Panicking;

    impl NamedService for Panicking {
        const NAME: &'static str = "test.Panicking";
    }

    impl Service<Request<Body>> for Panicking {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            Box::pin(async { panic!("the secret cause") })
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_an_internal_error_and_the_connection_lives_on() {
        let registry = Registry::new();
        let keys = Keys::open(&AuthConfig::default()).unwrap();
        let observer = Observer::new(
            GrpcMetrics::register(&registry, &[]).unwrap(),
            keys,
            BodyBytes::new(1 << 20),
            &GrpcConfig::default(),
            Tracing::default(),
        );
        let connections = Connections::new(&GrpcConfig::default(), Routes::new(Panicking), observer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(connections.serve(listener, None, std::future::pending()));

        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut client, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let request = Request::post(format!("http://{address}/test.Panicking/Any"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(Bytes::from_static(&[0; 5])))
                .unwrap();
            let (head, body) = client.send_request(request).await.unwrap().into_parts();
            let trailers = body.collect().await.unwrap().trailers().cloned();
            let status = Status::from_header_map(&trailers.unwrap_or(head.headers)).unwrap();
            assert_eq!(status.code(), Code::Internal);
            assert!(status.message().starts_with("the server failed on this call (request id "), "{status:?}");
            assert!(!status.message().contains("secret"), "{status:?}");
        }
        server.abort();
    }
}
