//! The loop that accepts connections and the one that drains them, and TLS.
//!
//! It knows connections, not what is said on them: every protocol's listener brings that along.

mod connector;
mod places;
mod stream;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::connector::Connector;
use self::places::Place;
pub use self::places::Places;
pub use self::stream::Stream;
pub use self::tls::{Acceptor, Protocol, Tls, TlsConfig, prepare_clients};

/// Tells a connection that the listener has stopped: it should take no further request, and end when it has answered those
/// that it took.
#[derive(Debug, Clone)]
pub struct Draining(watch::Receiver<bool>);

impl Draining {
    /// Completes when draining begins, or at once when it has begun.
    pub async fn begun(&mut self) {
        // An error says that the accept loop is gone, and then there is nothing to wait for either.
        let _ = self.0.wait_for(|&draining| draining).await;
    }
}

/// Accepts connections on `listener`, encrypts them where there is `tls`, and has each served by `connection`, as many
/// at once as there are `places`, until `stop` completes; then returns when every connection has ended. Dropped before that, it
/// cuts off the connections that are left.
pub async fn serve<F>(
    listener: TcpListener,
    tls: Option<Acceptor>,
    places: Places,
    stop: impl Future<Output = ()>,
    connection: impl Fn(Stream, SocketAddr, Draining) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (draining, is_draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, place) = tokio::select! {
            () = &mut stop => break,
            // Finished connections are collected as they end, or the set would grow with every one there ever was.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let draining = Draining(is_draining.clone());
        let (tls, connection) = (tls.clone(), connection.clone());
        connections.spawn(async move {
            if let Some(stream) = encrypt(stream, peer, tls, draining.clone()).await {
                let served = connection(stream, peer, draining);
                served.await;
            }
            drop(place);
        });
    }
    drop(listener);
    draining.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// `None` where the handshake fails, or is not over when draining begins: no request can have come by then.
async fn encrypt(stream: TcpStream, peer: SocketAddr, tls: Option<Acceptor>, mut draining: Draining) -> Option<Stream> {
    let Some(tls) = tls else { return Some(Stream::plain(stream)) };
    tokio::select! {
        accepted = tls.accept(stream) => accepted
            // Most often somebody who knocks at every port: worth a look while debugging only.
            .inspect_err(|reason| tracing::debug!(%peer, reason, "a TLS handshake failed"))
            .ok(),
        () = draining.begun() => None,
    }
}

async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    let free = places.free().await;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, free.take()),
            // The client gave up while it waited: its own affair.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                // Most likely there are no file descriptors left: one comes free when a connection ends.
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}
