//! `convoy serve`.

mod options;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::options::Options;
use crate::config::ServerConfig;
use crate::server::Server;
use crate::telemetry::start_logging;

/// Serve the models of a repository over HTTP and gRPC
///
/// Every option can also be set in the environment and, but for --config, in the configuration file. The command line goes
/// before the environment, the environment before the file.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Configuration file (TOML)
    #[arg(long, env = "CONVOY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl Serve {
    /// Serves until a signal says to stop.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut config = match &self.config {
            Some(path) => ServerConfig::read(path)?,
            None => ServerConfig::default(),
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        apply_vertex(&mut config, variable)?;
        config.tracing.apply_environment(variable)?;
        self.options.apply(&mut config);
        start_logging(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(serve(config));
        // Whatever still runs on the blocking pool works for requests that were cut off.
        runtime.shutdown_background();
        result
    }
}

/// Lays over the configuration what Vertex AI says in its containers' environment: port and paths.
fn apply_vertex(config: &mut ServerConfig, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    if let Some(port) = variable("AIP_HTTP_PORT") {
        let port = port.parse().with_context(|| format!("AIP_HTTP_PORT is `{port}`, which is no port"))?;
        config.http.address.set_port(port);
    }
    if let Some(route) = variable("AIP_HEALTH_ROUTE") {
        config.http.health_route = Some(route);
    }
    if let Some(route) = variable("AIP_PREDICT_ROUTE") {
        config.http.predict_route = Some(route);
    }
    Ok(())
}

async fn serve(config: ServerConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let server = Server::start(config).await?;
    tokio::select! {
        loaded = server.load() => {
            loaded?;
            signals.next().await;
        }
        () = signals.next() => {}
    }
    tokio::select! {
        () = server.shutdown() => Ok(()),
        () = signals.next() => anyhow::bail!("a second signal came before every request was answered"),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    const PAGE: &str = include_str!("../../docs/configuration.md");

    #[test]
    fn every_option_is_documented_under_the_name_that_the_rule_gives() {
        let command = Serve::augment_args(Command::new("serve"));
        let mut options: Vec<_> = command.get_arguments().map(|argument| argument.get_id().as_str()).collect();
        options.retain(|option| *option != "config");
        let documented: Vec<_> = PAGE
            .lines()
            .filter(|line| line.matches('|').count() == 5)
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .map(|key| key.replace('.', "_"))
            .collect();
        assert_eq!(options, documented);
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            assert_eq!(argument.get_long().unwrap(), name.replace('_', "-"));
            assert_eq!(argument.get_env().unwrap(), format!("CONVOY_{}", name.to_uppercase()).as_str());
        }
    }

    #[test]
    fn vertex_chooses_port_and_paths() {
        let apply = |port: &'static str| {
            let mut config = ServerConfig::default();
            let variable = move |name: &str| match name {
                "AIP_HTTP_PORT" => Some(port.to_owned()),
                "AIP_HEALTH_ROUTE" => Some("/v1/endpoints/1/deployedModels/2".to_owned()),
                "AIP_PREDICT_ROUTE" => Some("/v1/endpoints/1/deployedModels/2:predict".to_owned()),
                _ => None,
            };
            apply_vertex(&mut config, variable).map(|()| config.http)
        };
        let http = apply("8080").unwrap();
        assert_eq!(http.address, "0.0.0.0:8080".parse().unwrap());
        assert_eq!(http.health_route.as_deref(), Some("/v1/endpoints/1/deployedModels/2"));
        assert_eq!(http.predict_route.as_deref(), Some("/v1/endpoints/1/deployedModels/2:predict"));
        assert!(apply("eighty").unwrap_err().to_string().contains("AIP_HTTP_PORT"));
    }

    #[test]
    fn the_defaults_in_the_help_are_the_real_ones() {
        let default = ServerConfig::default();
        let help = Serve::augment_args(Command::new("serve")).render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (option, value) in [
            ("--model-repository", default.model_repository.display().to_string()),
            ("--model-control-poll-interval-ms", default.model_control.poll_interval_ms.to_string()),
            ("--model-control-strict-readiness", default.model_control.strict_readiness.to_string()),
            ("--model-store-poll-interval-ms", default.model_store.poll_interval_ms.to_string()),
            ("--model-store-max-bytes", default.model_store.max_bytes.to_string()),
            ("--model-store-path-style", default.model_store.path_style.to_string()),
            ("--model-store-anonymous", default.model_store.anonymous.to_string()),
            ("--model-store-check-etag", default.model_store.check_etag.to_string()),
            ("--http-address", default.http.address.to_string()),
            ("--http-max-body-bytes", default.http.max_body_bytes.to_string()),
            ("--http-max-json-depth", default.http.max_json_depth.to_string()),
            ("--http-body-timeout-ms", default.http.body_timeout_ms.to_string()),
            ("--http-body-deadline-ms", default.http.body_deadline_ms.to_string()),
            ("--http-idle-timeout-ms", default.http.idle_timeout_ms.to_string()),
            ("--grpc-address", default.grpc.address.to_string()),
            ("--grpc-max-message-bytes", default.grpc.max_message_bytes.to_string()),
            ("--grpc-max-concurrent-streams", default.grpc.max_concurrent_streams.to_string()),
            ("--grpc-message-timeout-ms", default.grpc.message_timeout_ms.to_string()),
            ("--grpc-keep-alive-interval-ms", default.grpc.keep_alive_interval_ms.to_string()),
            ("--grpc-keep-alive-timeout-ms", default.grpc.keep_alive_timeout_ms.to_string()),
            ("--metrics-address", default.metrics.address.to_string()),
            ("--limits-max-pictures", default.limits.max_pictures.to_string()),
            ("--limits-max-pixels", default.limits.max_pixels.to_string()),
            ("--limits-max-tensor-bytes", default.limits.max_tensor_bytes.to_string()),
            ("--limits-max-inflight-bytes", default.limits.max_inflight_bytes.to_string()),
            ("--explain-max-concurrent", default.explain.max_concurrent.to_string()),
            ("--explain-max-waiting", default.explain.max_waiting.to_string()),
            ("--explain-timeout-ms", default.explain.timeout_ms.to_string()),
            ("--explain-cache-bytes", default.explain.cache_bytes.to_string()),
            ("--log-level", default.log.level.clone()),
            ("--tracing-sample-ratio", default.tracing.sample_ratio.to_string()),
            ("--tracing-service-name", default.tracing.service_name.clone()),
            ("--shutdown-grace-ms", default.shutdown.grace_ms.to_string()),
            ("--shutdown-timeout-ms", default.shutdown.timeout_ms.to_string()),
        ] {
            let (_, said) = help.split_once(&format!("{option} <")).unwrap_or_else(|| panic!("{option} in {help}"));
            let said = said.split("[env:").next().unwrap();
            assert!(said.contains(&format!("[default: {value}]")), "{option}: {said}");
        }
    }
}
