//! A model file made ready for its instances: providers settled, the graph optimised once, the weights held once.

use std::path::{Path, PathBuf};

use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::weights::SharedWeights;
use super::{Provider, Runtime, Session, failed};
use crate::error::{Error, Result};

/// How sessions of a graph are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphOptions {
    /// Providers in order of preference; empty means the CPU.
    pub providers: Vec<Provider>,
    /// Threads inside one run of one session (CPU work only).
    pub intra_op_threads: usize,
    /// How far the graph is rewritten before it runs.
    pub optimization: GraphOptimization,
}

/// How far ONNX Runtime rewrites a graph before it runs. Each includes the one before; results may differ in the last bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphOptimization {
    /// Not at all.
    None,
    /// Constants are folded and nodes without effect removed.
    Basic,
    /// Nodes are fused.
    Extended,
    /// Layouts are changed to those that the machine runs fastest.
    #[default]
    All,
}

/// A model file from which sessions are made. Sessions on the CPU share one copy of the weights.
pub struct Graph {
    runtime: Runtime,
    path: PathBuf,
    intra_op_threads: usize,
    optimization: GraphOptimization,
    /// The providers that stand: the chosen one and what it may hand nodes to.
    providers: Vec<Provider>,
    shared: Option<SharedWeights>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("path", &self.path).field("providers", &self.providers).finish_non_exhaustive()
    }
}

impl Graph {
    /// Reads the model at `path`, settles on the first provider of the list that can run it, and optimises the graph. Returns
    /// also the session, on the provider's first device, that showed that it can: the first instance's.
    ///
    /// # Errors
    /// `InvalidArgument` when no provider of the list can run the model; the source is ONNX Runtime's own reason.
    pub fn load(runtime: &Runtime, path: &Path, options: &GraphOptions) -> Result<(Self, Session)> {
        let cpu_only = [Provider::Cpu {}];
        let mut providers: &[Provider] = if options.providers.is_empty() { &cpu_only } else { &options.providers };
        loop {
            let mut graph = Self {
                runtime: runtime.clone(),
                path: path.to_path_buf(),
                intra_op_threads: options.intra_op_threads,
                optimization: options.optimization,
                providers: providers.to_vec(),
                shared: None,
            };
            // A GPU keeps its own copy of the weights in its own memory: only CPU sessions can share one.
            let prepared = if graph.provider().is_gpu() {
                graph.session(graph.provider().device_ids()[0])
            } else {
                graph.share_weights()
            };
            match prepared {
                Ok(session) => return Ok((graph, session)),
                Err(error) if providers.len() == 1 => return Err(error),
                Err(error) => {
                    warn!(
                        path = %path.display(),
                        "the {} provider cannot run this model, the next in its list is tried: {}",
                        graph.provider().as_str(),
                        error.chain()
                    );
                    providers = &providers[1..];
                }
            }
        }
    }

    /// The provider that runs the model.
    pub fn provider(&self) -> &Provider {
        self.providers.first().unwrap_or(&Provider::Cpu {})
    }

    /// Gives the sessions that are made from now on this many threads inside one run (CPU work only).
    pub fn set_intra_op_threads(&mut self, threads: usize) {
        self.intra_op_threads = threads;
    }

    /// A new session on the given device (0 on the CPU).
    ///
    /// # Errors
    /// `InvalidArgument` when the model cannot be run so, with ONNX Runtime's own reason as the source.
    pub fn session(&self, device_id: i32) -> Result<Session> {
        let session = match &self.shared {
            Some(shared) => self
                .builder(device_id)?
                .with_optimization_level(GraphOptimizationLevel::Disable)
                .map_err(|error| failed("graph optimisation cannot be switched off", &error))
                .and_then(|builder| shared.open(builder)),
            None => {
                self.optimising_builder(device_id)?.commit_from_file(&self.path).map_err(|error| self.refused(&error))
            }
        }?;
        Session::new(session)
            .map_err(|error| error.map_message(|message| format!("{}: {message}", self.path.display())))
    }

    /// Optimises the graph once, keeps its weights for all sessions, and returns the first of these. Where that cannot be done
    /// (nowhere to put the optimised graph, weights in files of their own), every session reads the model for itself.
    fn share_weights(&mut self) -> Result<Session> {
        let first = self.optimised_weights().and_then(|shared| {
            self.shared = Some(shared);
            self.session(0)
        });
        first.or_else(|error| {
            debug!(path = %self.path.display(), "weights are not shared: {}", error.chain());
            self.shared = None;
            self.session(0)
        })
    }

    fn optimised_weights(&self) -> Result<SharedWeights> {
        SharedWeights::extract(|target| {
            let builder = self
                .optimising_builder(0)?
                .with_optimized_model_path(target)
                .map_err(|error| failed("the optimised graph has no place", &error))?;
            // It warns that such a file is of use on this machine only, which is where it is read in a moment.
            let mut builder = builder
                .with_log_level(LogLevel::Error)
                .map_err(|error| failed("the log level cannot be set", &error))?;
            builder.commit_from_file(&self.path).map(drop).map_err(|error| self.refused(&error))
        })
    }

    fn optimising_builder(&self, device_id: i32) -> Result<SessionBuilder> {
        let level = match self.optimization {
            GraphOptimization::None => GraphOptimizationLevel::Disable,
            GraphOptimization::Basic => GraphOptimizationLevel::Level1,
            GraphOptimization::Extended => GraphOptimizationLevel::Level2,
            GraphOptimization::All => GraphOptimizationLevel::All,
        };
        self.builder(device_id)?
            .with_optimization_level(level)
            .map_err(|error| failed("graph optimisation cannot be switched on", &error))
    }

    fn builder(&self, device_id: i32) -> Result<SessionBuilder> {
        let builder =
            ort::session::Session::builder(self.runtime.environment()).map_err(|error| self.refused(&error))?;
        #[expect(
            clippy::result_large_err,
            reason = "the builder that `ort` returns with its error is dropped right here"
        )]
        let configured = (|| {
            let mut builder = builder
                .with_intra_threads(self.intra_op_threads.max(1))?
                .with_inter_threads(1)?
                // Spinning wins microseconds for one session and takes whole cores from the others.
                .with_intra_op_spinning(false)?
                .with_inter_op_spinning(false)?;
            // Without a CPU entry in the list, a node that the GPU's provider does not take is an error.
            if !self.providers.contains(&Provider::Cpu {}) {
                builder = builder.with_disable_cpu_fallback()?;
            }
            // The CPU's provider is always there, as the last. Registering it by name would take its arena away.
            builder.with_execution_providers(
                self.providers.iter().filter_map(|provider| provider.dispatch(device_id)).collect::<Vec<_>>(),
            )
        })();
        configured.map_err(|error: ort::Error<SessionBuilder>| self.refused(&error))
    }

    fn refused<R>(&self, error: &ort::Error<R>) -> Error {
        let message = format!("the {} execution provider cannot run {}", self.provider().as_str(), self.path.display());
        Error::invalid(message).with_source(error.to_string())
    }
}
