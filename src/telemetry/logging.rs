//! Logs: structured events on standard error, as text or JSON, with a level for each module.

use std::io::IsTerminal;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// The `[log]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How events are written.
    pub format: LogFormat,
    /// Which events are written: a level, and levels of single modules after it, as in `info,convoy::access=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        // ONNX Runtime tells every step of loading a model at `info`.
        Self { format: LogFormat::Text, level: "info,ort=warn".to_owned() }
    }
}

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends every event of the process to standard error from here on.
///
/// # Errors
/// `InvalidArgument` when `log.level` cannot be read, `Internal` when the process logs already.
pub fn start_logging(config: &LogConfig) -> Result<()> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.level)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_span_list(false).try_init(),
    };
    started.map_err(|error| Error::internal("the log could not be started").with_source(error))
}

fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(level).map_err(|error| {
        Error::invalid(format!(
            "log.level: `{level}` is not a level, or levels of modules, as in `info,convoy::http=debug`"
        ))
        .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_one_for_all_and_one_a_module() {
        for level in ["info", "off", "warn,convoy::http=debug", "error,convoy::access=debug,ort=off"] {
            assert_eq!(filter(level).unwrap().to_string().split(',').count(), level.split(',').count(), "{level}");
        }
        for level in ["convoy=loud", "info,,=", "convoy::http=debug=x"] {
            assert!(filter(level).is_err(), "{level}");
        }
    }
}
