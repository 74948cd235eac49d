//! Logs: structured events on standard error, as text or JSON, with a level for each module.

use std::io::IsTerminal;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
        .with_env_filter(quiet(filter(&config.level)?))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_span_list(false).try_init(),
    };
    started.map_err(|error| Error::internal("the log could not be started").with_source(error))
}

/// The names of the levels, least first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn filter(level: &str) -> Result<EnvFilter> {
    // A word that is no level is a module's name to the filter, of which all is written and of everything else nothing.
    let is_misspelt = |part: &&str| !part.contains(['=', '[', ':']) && part.parse::<LevelFilter>().is_err();
    if let Some(word) = level.split(',').map(str::trim).filter(|part| !part.is_empty()).find(is_misspelt) {
        return Err(Error::invalid(format!(
            "log.level (--log-level, CONVOY_LOG_LEVEL): `{word}` is not a level: there are {}, and `module=level` for single modules",
            LEVELS.join(", ")
        )));
    }
    EnvFilter::builder().parse(level).map_err(|error| {
        Error::invalid(format!(
            "log.level: `{level}` is not a level ({}), or levels of modules, as in `info,convoy::http=debug`",
            LEVELS.join(", ")
        ))
        .with_source(error)
    })
}

/// `filter` without the watcher's warning of every folder that is removed, whose watch the system has taken away by itself; unless
/// somebody wants to hear of the watcher.
fn quiet(filter: EnvFilter) -> EnvFilter {
    if filter.to_string().contains("notify") {
        return filter;
    }
    match "notify::inotify=error".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
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
        assert!(filter("convoy=debug").is_ok() && filter("INFO,ort=warn").is_ok());
        for level in ["inof", "warn,debg", "inof,convoy=debug", "convoy"] {
            let error = filter(level).unwrap_err();
            assert!(error.message().contains("CONVOY_LOG_LEVEL") && error.message().contains("warn, info"), "{error}");
        }
    }

    #[test]
    fn the_watcher_is_quiet_unless_it_is_asked_for() {
        let said = |level| quiet(filter(level).unwrap()).to_string();
        assert!(said("info,ort=warn").split(',').any(|part| part == "notify::inotify=error"));
        assert_eq!(said("notify=debug").split(',').count(), 1);
    }
}
