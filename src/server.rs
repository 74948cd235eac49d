//! The composition root: it builds the parts, binds the listeners, and ends them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::auth::Keys;
use crate::config::{ServerConfig, ShutdownConfig};
use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::explain::{ExplainMetrics, Explainer};
use crate::grpc::Grpc;
use crate::http::{self, ConnectionOptions, ServerFacts};
use crate::inference::{Inference, Phase};
use crate::net::{Places, Protocol, Tls};
use crate::repository::{Repository, SingleModel};
use crate::response_cache::ResponseCache;
use crate::store::Store;
use crate::telemetry::{BuildInfo, Metrics, Tracing, TrustedProxies, register_process_metrics};

/// A running server. Dropped without [`Server::shutdown`], its listeners go on until the runtime ends.
#[derive(Debug)]
pub struct Server {
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    metrics_address: SocketAddr,
    inference: Inference,
    explainer: Explainer,
    repository: Arc<Repository>,
    /// The folder that the models are read from lives as long as this.
    _single: Option<SingleModel>,
    shutdown: ShutdownConfig,
    tracing: Tracing,
    stop: watch::Sender<bool>,
    http: JoinHandle<()>,
    grpc: JoinHandle<()>,
    metrics: JoinHandle<()>,
    reloading: JoinHandle<()>,
}

impl Server {
    /// Binds the listeners and serves on them. No model is loaded yet, and readiness says so: see [`Server::load`].
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration that cannot work, `NotFound` when there is no keys file, `Unavailable` when an
    /// address is taken or there is no ONNX Runtime.
    pub async fn start(config: ServerConfig) -> Result<Self> {
        config.validate()?;
        let shown = config.without_secrets();
        let keys = Keys::open(&config.auth)?;
        let tls = Tls::open(&config.tls)?;
        say_who_may_call(&keys, tls.as_ref());
        let acceptor = |protocol| tls.as_ref().map(|tls| tls.acceptor(protocol));
        let (http_listener, http_address) = bind("HTTP", config.http.address).await?;
        let (grpc_listener, grpc_address) = bind("gRPC", config.grpc.address).await?;
        let (metrics_listener, metrics_address) = bind("metrics", config.metrics.address).await?;

        let runtime = Runtime::load(config.onnxruntime_library.as_deref())?;
        let metrics = Metrics::new();
        register_process_metrics(metrics.registry())
            .map_err(|error| Error::internal("the metrics of the process cannot be made").with_source(error))?;
        let tracing = Tracing::start(&config.tracing, TrustedProxies(config.trusted_proxies), metrics.registry())?;
        let build = BuildInfo::new(runtime.build());
        build.register(metrics.registry());
        let onnxruntime_library = runtime.library().display().to_string();
        let explain_metrics = ExplainMetrics::register(metrics.registry())?;
        let explainer = Explainer::new(runtime.clone(), &config.explain, config.limits.picture(), explain_metrics);
        let store = Store::open(&config.model_repository, &config.model_store, metrics.registry())?;
        if store.is_some() && config.model_name.is_some() {
            return Err(Error::invalid("model_name goes with a folder: a store has the names of its models"));
        }
        let root = store.as_ref().map_or(&*config.model_repository, Store::root);
        let single = config.model_name.map(|name| SingleModel::link(root, &name)).transpose()?;
        let models = single.as_ref().map_or(root, SingleModel::repository).to_owned();
        let repository = Repository::new(models, config.model_control, runtime, metrics.clone());
        let repository = repository
            .with_store(store)
            .with_response_cache(ResponseCache::new(&config.response_cache))
            .with_tuning_cache(config.tuning.folder());
        let repository = Arc::new(repository);
        let inference = Inference::new(Arc::clone(&repository), config.limits, config.default_model);

        let registry = metrics.registry();
        let grpc = Grpc::new(&inference, &explainer, &config.grpc, keys.clone(), registry, tracing.clone())?;
        let options = ConnectionOptions::from(&config.http);
        let facts = ServerFacts {
            started: Instant::now(),
            build,
            onnxruntime_library,
            config: shown,
            http: options.places.clone(),
            grpc: grpc.places().clone(),
        };
        let parts = http::Parts {
            inference: inference.clone(),
            explainer: explainer.clone(),
            keys: &keys,
            metrics: &metrics,
            tracing: tracing.clone(),
            facts,
        };
        // Beside each other, so that probes come in when there is no place for another client.
        let metrics_options = ConnectionOptions { places: Places::new(config.http.max_connections), ..options.clone() };
        let router = http::router(config.http, parts)?;
        let stop = watch::Sender::new(false);
        let http = tokio::spawn(http::serve(
            http_listener,
            acceptor(Protocol::Http1),
            router,
            options,
            stopped(stop.subscribe()),
        ));
        let grpc = tokio::spawn(grpc.serve(grpc_listener, acceptor(Protocol::Http2), stopped(stop.subscribe())));
        let router = http::metrics_router(inference.clone(), metrics.exposition());
        let metrics =
            tokio::spawn(http::serve(metrics_listener, None, router, metrics_options, std::future::pending()));
        let reloading = tokio::spawn(reload(keys, tls));
        tracing::info!(address = %http_address, "HTTP listens");
        tracing::info!(address = %grpc_address, "gRPC listens");
        tracing::info!(address = %metrics_address, "metrics listen");
        let shutdown = config.shutdown;
        Ok(Self {
            http_address,
            grpc_address,
            metrics_address,
            inference,
            explainer,
            repository,
            _single: single,
            shutdown,
            tracing,
            stop,
            http,
            grpc,
            metrics,
            reloading,
        })
    }

    /// Loads the models that the configuration wants at the start; then the server is ready, unless readiness is strict and one is missing.
    ///
    /// # Errors
    /// `NotFound` when the repository cannot be read. A model that cannot be loaded is no error: it is unavailable.
    pub async fn load(&self) -> Result<()> {
        let started = Instant::now();
        self.repository.start().await?;
        self.inference.enter(Phase::Serving);
        let models = self.inference.ready_models().len();
        let load_ms = started.elapsed().as_millis() as u64;
        match self.inference.unready() {
            None => tracing::info!(models, load_ms, "ready"),
            Some(reason) => tracing::warn!(models, load_ms, %reason, "not ready"),
        }
        Ok(())
    }

    /// Where HTTP really listens.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where gRPC really listens.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where `GET /metrics` and the probes beside it really listen.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Ends the server: readiness goes false, requests are taken for the grace, then no more, and every one that was taken is
    /// answered, as far as the timeout allows.
    pub async fn shutdown(mut self) {
        let deadline = tokio::time::Instant::now() + self.shutdown.timeout();
        self.inference.enter(Phase::Draining);
        self.repository.drain();
        tracing::info!(grace_ms = self.shutdown.grace_ms, "draining");
        tokio::time::sleep(self.shutdown.grace()).await;

        self.stop.send_replace(true);
        self.repository.stop();
        let now = tokio::time::Instant::now();
        self.explainer.close((now + deadline.saturating_duration_since(now) / 2).into_std());
        let ended = async { tokio::join!(&mut self.http, &mut self.grpc) };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            self.http.abort();
            self.grpc.abort();
            tracing::warn!("the shutdown timeout is over: requests without an answer are cut off");
        }
        let repository = self.repository;
        let closed = tokio::task::spawn_blocking(move || repository.close());
        // A run that hangs must not hold up the end.
        let remaining = deadline.max(tokio::time::Instant::now() + Duration::from_millis(100));
        if tokio::time::timeout_at(remaining, closed).await.is_err() {
            tracing::warn!("an instance is still running");
        }
        let tracing = self.tracing;
        let flushed = tokio::task::spawn_blocking(move || tracing.shutdown(ShutdownConfig::LAST_SPANS));
        // It ends by itself, whatever the collector does.
        drop(flushed.await);
        self.metrics.abort();
        self.reloading.abort();
        tracing::info!("stopped");
    }
}

/// Says once what an operator must know who believes that the server is closed.
fn say_who_may_call(keys: &Keys, tls: Option<&Tls>) {
    if !keys.are_needed() {
        tracing::info!("API keys are off: whoever reaches the addresses may use and administer the server");
    } else if tls.is_none() {
        tracing::warn!("API keys are on and TLS is off: the keys can be read on the network");
    }
}

/// Reads keys and certificates again whenever they change, and never ends.
async fn reload(keys: Keys, tls: Option<Tls>) {
    let certificates = async {
        if let Some(tls) = tls {
            tls.watch().await;
        }
    };
    tokio::join!(keys.watch(), certificates);
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that the server was dropped: then, too, it is over.
    let _ = stop.wait_for(|&stop| stop).await;
}

async fn bind(what: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
            _ => error.to_string(),
        };
        Error::unavailable(format!("the {what} address {address} cannot be used: {reason}"))
    })
}
