//! The tables of a model's configuration, with their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[response_cache]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelCacheConfig {
    /// Whether its answers are kept, where the server's `response_cache.max_bytes` is not 0. Default: true.
    pub enabled: bool,
}

impl Default for ModelCacheConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The `[golden]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenConfig {
    /// The picture's file, beside `config.toml`.
    pub picture: PathBuf,
    /// The class that must come first.
    pub class: GoldenClass,
    /// The least probability that it must have. Default: 0, any.
    #[serde(default)]
    pub min_score: f32,
}

/// A class, by its index in the model's output or by its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected the index of a class or its label")]
pub enum GoldenClass {
    /// The index.
    Index(usize),
    /// The label.
    Label(String),
}

/// The `[batching]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchingConfig {
    /// How long a request may be held back so that a batch can fill, in microseconds. Default: 0, never.
    pub max_queue_delay_us: u64,
    /// How many pictures may be admitted beyond those that the instances can run at once. Default: 256.
    pub queue_size: usize,
    /// How many bytes of pictures and tensors the admitted requests may hold. Default: 512 MiB.
    pub queue_bytes: usize,
    /// After how long a request goes before more urgent ones in every fourth batch, in milliseconds. Default: 1000. 0: never,
    /// and urgent requests can keep out others for ever.
    pub max_priority_wait_ms: u64,
    /// The sizes in which batches are run, each filled up to the next, and to `max_batch_size` beyond the last. Empty: as they
    /// are. Default: powers of two on a GPU, empty on a CPU.
    pub buckets: Option<Vec<usize>>,
    /// The timeout of requests that bring none, in milliseconds. Default: 0, none.
    pub default_timeout_ms: u64,
    /// The priority of requests that bring none; 1 is the most urgent. Default: 1.
    pub default_priority: u32,
}

impl Default for BatchingConfig {
    fn default() -> Self {
        Self {
            max_queue_delay_us: 0,
            queue_size: 256,
            queue_bytes: 512 << 20,
            max_priority_wait_ms: 1000,
            buckets: None,
            default_timeout_ms: 0,
            default_priority: 1,
        }
    }
}

/// The `[instances]` table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstancesConfig {
    /// Instances on each device. Default: on the CPU one for each core, on a GPU two.
    pub count: Option<Tunable>,
    /// Threads inside one run, on the CPU. Default: 1. More than one shortens a single run and costs throughput.
    pub intra_op_threads: Option<Tunable>,
}

/// A number, or `"auto"`: the one that measuring finds best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", expecting = "expected a number or \"auto\"")]
pub enum Tunable {
    /// Measured when the model is loaded.
    Auto,
    /// This.
    #[serde(untagged)]
    Number(usize),
}

impl Tunable {
    /// The number, where it is one.
    pub fn number(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Number(number) => Some(number),
        }
    }
}

/// The `[tuning]` table: how what is `"auto"` is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuningConfig {
    /// The most that running a full batch may take while all instances are busy, in milliseconds: its median. Default: none,
    /// and throughput alone counts.
    pub max_batch_latency_ms: Option<f64>,
    /// About how long measuring takes, in milliseconds. Default: 20000.
    pub budget_ms: u64,
}

impl Default for TuningConfig {
    fn default() -> Self {
        Self { max_batch_latency_ms: None, budget_ms: 20_000 }
    }
}

/// Which versions of a model are loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionPolicy {
    /// The n highest.
    Latest(usize),
    /// All.
    All,
    /// These.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

impl VersionPolicy {
    /// The versions to load out of those `present` (ascending), ascending. A specific one that is not there is kept: that
    /// it is missing must show.
    pub fn select(&self, present: &[u64]) -> Vec<u64> {
        match self {
            Self::Latest(count) => present[present.len().saturating_sub(*count)..].to_vec(),
            Self::All => present.to_vec(),
            Self::Specific(versions) => {
                let mut versions = versions.clone();
                versions.sort_unstable();
                versions.dedup();
                versions
            }
        }
    }
}
