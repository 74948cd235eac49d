//! Who decides which models are loaded.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Stands for every model in [`ModelControlConfig::load`].
const EVERY_MODEL: &str = "*";

/// The `[model_control]` table. The modes are Triton's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelControlConfig {
    /// Who decides.
    pub mode: ModelControlMode,
    /// In the mode `poll`: how often the repository is looked at where the file system does not tell of changes, and how long
    /// a change must have been over before it is acted on, in milliseconds.
    pub poll_interval_ms: u64,
    /// In the mode `explicit`: the models that are loaded when the server starts; `*` alone for all.
    pub load: Vec<String>,
    /// Whether the server becomes ready only when every model that is to be served is (and there is one, unless all are left to clients), and
    /// stays so only while each that has served does.
    pub strict_readiness: bool,
}

/// Who decides which models are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ModelControlMode {
    /// All are loaded when the server starts, and that is it.
    #[default]
    None,
    /// The folder does: changes of it are followed.
    Poll,
    /// Clients do, by API.
    Explicit,
}

impl Default for ModelControlConfig {
    fn default() -> Self {
        Self { mode: ModelControlMode::None, poll_interval_ms: 5_000, load: Vec::new(), strict_readiness: false }
    }
}

impl ModelControlConfig {
    /// [`ModelControlConfig::poll_interval_ms`] as a duration.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }

    /// Whether the model called `name` is loaded when the server starts.
    pub(super) fn loads_at_start(&self, name: &str) -> bool {
        self.mode != ModelControlMode::Explicit || self.load.iter().any(|other| other == EVERY_MODEL || other == name)
    }

    /// The models that the configuration names one by one.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        self.load.iter().map(String::as_str).filter(|name| *name != EVERY_MODEL)
    }

    /// Checks what no single value can show.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.poll_interval_ms == 0 {
            return Err(Error::invalid("model_control.poll_interval_ms must be at least 1"));
        }
        if self.mode != ModelControlMode::Explicit && !self.load.is_empty() {
            return Err(Error::invalid(
                "model_control.load is for the mode explicit: the other modes load every model",
            ));
        }
        if self.load.len() > 1 && self.load.iter().any(|name| name == EVERY_MODEL) {
            return Err(Error::invalid("model_control.load has `*`, every model: it must then be alone"));
        }
        Ok(())
    }
}
