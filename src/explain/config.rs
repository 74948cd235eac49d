//! The options of explanations.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The `[explain]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExplainConfig {
    /// How many explanations are worked on at the same time, each on one core, which it gives up to requests.
    pub max_concurrent: usize,
    /// How many more may wait for their turn.
    pub max_waiting: usize,
    /// After so many milliseconds, waiting included, the answer is of no use, whatever the request says: one may hold up all others no
    /// longer.
    pub timeout_ms: u64,
    /// About the most bytes that the graphs take which are kept between explanations: their weights, and the memory of their runs. Those
    /// that are larger by themselves are made anew each time.
    pub cache_bytes: usize,
}

impl Default for ExplainConfig {
    fn default() -> Self {
        Self { max_concurrent: 1, max_waiting: 16, timeout_ms: 300_000, cache_bytes: 512 << 20 }
    }
}

impl ExplainConfig {
    /// Checks what no single value can show.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.max_concurrent == 0 {
            return Err(Error::invalid("explain.max_concurrent must be at least 1"));
        }
        if self.timeout_ms == 0 {
            return Err(Error::invalid("explain.timeout_ms must be at least 1"));
        }
        Ok(())
    }
}
