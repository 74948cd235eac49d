//! The server's configuration: composed of the modules' own tables and read from a TOML file.
//!
//! The environment and the command line are laid over the file by `cli::serve`. `docs/configuration.md` lists every option.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::AuthConfig;
use crate::error::{Error, Result};
use crate::explain::ExplainConfig;
use crate::grpc::GrpcConfig;
use crate::http::HttpConfig;
use crate::inference::Limits;
use crate::net::TlsConfig;
use crate::repository::ModelControlConfig;
use crate::repository::tuning::TuningCacheConfig;
use crate::response_cache::ResponseCacheConfig;
use crate::store::StoreConfig;
use crate::telemetry::{LogConfig, TracingConfig};
use crate::toml_file;

/// Everything that `convoy serve` can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The folder of models, `<name>/<version>/model.onnx`, or a store of them: an archive, an image layout, `s3://bucket/prefix`.
    pub model_repository: PathBuf,
    /// The name of the only model; `model_repository` is then that model's own folder.
    pub model_name: Option<String>,
    /// The model that `/v1/classify` uses; where absent, the only one there is.
    pub default_model: Option<String>,
    /// The ONNX Runtime library; where absent, it is looked for in the usual places.
    pub onnxruntime_library: Option<PathBuf>,
    /// How many proxies stand between clients and this server, each of which adds to `X-Forwarded-For` who asked it. What else is in that
    /// header is not believed.
    pub trusted_proxies: usize,
    /// Which models are loaded, and when.
    pub model_control: ModelControlConfig,
    /// How models come out of a store.
    pub model_store: StoreConfig,
    /// Where it is kept how models were tuned.
    pub tuning: TuningCacheConfig,
    /// The HTTP interface.
    pub http: HttpConfig,
    /// The gRPC interface.
    pub grpc: GrpcConfig,
    /// The metrics listener.
    pub metrics: MetricsConfig,
    /// API keys.
    pub auth: AuthConfig,
    /// TLS, for HTTP and gRPC.
    pub tls: TlsConfig,
    /// Sizes over which a request is refused.
    pub limits: Limits,
    /// Answers that are kept.
    pub response_cache: ResponseCacheConfig,
    /// Explanations.
    pub explain: ExplainConfig,
    /// The log.
    pub log: LogConfig,
    /// Traces.
    pub tracing: TracingConfig,
    /// How the server ends.
    pub shutdown: ShutdownConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            model_repository: PathBuf::from("models"),
            model_name: None,
            default_model: None,
            onnxruntime_library: None,
            trusted_proxies: 0,
            model_control: ModelControlConfig::default(),
            model_store: StoreConfig::default(),
            tuning: TuningCacheConfig::default(),
            http: HttpConfig::default(),
            grpc: GrpcConfig::default(),
            metrics: MetricsConfig::default(),
            auth: AuthConfig::default(),
            tls: TlsConfig::default(),
            limits: Limits::default(),
            response_cache: ResponseCacheConfig::default(),
            explain: ExplainConfig::default(),
            log: LogConfig::default(),
            tracing: TracingConfig::default(),
            shutdown: ShutdownConfig::default(),
        }
    }
}

/// The `[metrics]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where `GET /metrics` listens. Port 0 takes a free one, which the log names.
    pub address: SocketAddr,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8002)) }
    }
}

/// The `[shutdown]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long, in milliseconds, the server goes on taking requests after it has said that it is not ready: the time that a
    /// load balancer needs to notice.
    pub grace_ms: u64,
    /// The time from the signal, in milliseconds, after which requests still without an answer are cut off.
    pub timeout_ms: u64,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        // With the last spans under the 30 s after which Kubernetes kills.
        Self { grace_ms: 2_000, timeout_ms: 25_000 }
    }
}

impl ShutdownConfig {
    /// How long the last traces may take to be sent, behind everything else.
    pub(crate) const LAST_SPANS: Duration = Duration::from_secs(3);

    /// How long the server may take to end, traces included: what ends it by force must leave it this time, and a little more.
    pub fn longest(&self) -> Duration {
        self.timeout() + Self::LAST_SPANS
    }

    /// [`ShutdownConfig::grace_ms`] as a duration.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// [`ShutdownConfig::timeout_ms`] as a duration.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

impl ServerConfig {
    /// Reads a configuration file. What it does not say keeps its default.
    ///
    /// # Errors
    /// `NotFound` when the file cannot be read, `InvalidArgument` naming file, line and key where something is wrong in it.
    pub fn read(path: &Path) -> Result<Self> {
        toml_file::read(path, "the configuration file")
    }

    /// Everything as JSON for operators to see, without what is secret: where a key's name tells of a secret, only that there is one, and
    /// of URLs neither user nor password nor what their query says.
    pub fn without_secrets(&self) -> Value {
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        redact(&mut shown, "");
        shown
    }

    /// Checks what no single value can show.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        self.model_control.validate()?;
        self.model_store.validate()?;
        self.http.validate()?;
        self.grpc.validate()?;
        self.tls.validate()?;
        self.explain.validate()?;
        self.tracing.validate()?;
        if self.shutdown.timeout_ms < self.shutdown.grace_ms {
            return Err(Error::invalid(
                "shutdown.timeout_ms counts from the signal too: it must not be under shutdown.grace_ms",
            ));
        }
        for (key, value) in [
            ("max_pictures", self.limits.max_pictures as u64),
            ("max_pixels", self.limits.max_pixels),
            ("max_decode_bytes", self.limits.max_decode_bytes),
            ("max_tensor_bytes", self.limits.max_tensor_bytes as u64),
            ("max_inflight_bytes", self.limits.max_inflight_bytes as u64),
            ("decode_threads", self.limits.decode_threads as u64),
        ] {
            if value == 0 {
                return Err(Error::invalid(format!("limits.{key} must be at least 1")));
            }
        }
        let largest = self.http.max_body_bytes.max(self.grpc.max_message_bytes);
        if self.limits.max_inflight_bytes < largest {
            return Err(Error::invalid(format!(
                "limits.max_inflight_bytes must be at least {largest}, the larger of http.max_body_bytes and \
                 grpc.max_message_bytes, or the largest bodies could never come in"
            )));
        }
        Ok(())
    }
}

/// Takes secrets out of the value of `key`.
fn redact(value: &mut Value, key: &str) {
    const SECRET: &[&str] = &["secret", "token", "password", "credential", "headers", "access_key"];
    match value {
        Value::Null => {}
        Value::Object(table) => table.iter_mut().for_each(|(key, value)| redact(value, key)),
        Value::Array(list) if list.is_empty() => {}
        _ if SECRET.iter().any(|word| key.contains(word)) => *value = "(not shown)".into(),
        Value::Array(list) => list.iter_mut().for_each(|value| redact(value, key)),
        Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://") {
                *text = format!("{scheme}://{}", without_secrets(rest));
            }
        }
        Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What is behind a URL's scheme, without user and password, the values of its query, and its fragment.
fn without_secrets(url: &str) -> String {
    let (url, _) = url.split_once('#').unwrap_or((url, ""));
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let mut shown = address.rsplit_once('@').map_or(address, |(_, host)| host).to_owned();
    for (index, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        // What has no name is a value itself.
        if let Some((name, _)) = pair.split_once('=') {
            shown.push_str(name);
            shown.push('=');
        }
        shown.push_str("(not shown)");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const PAGE: &str = include_str!("../docs/configuration.md");

    fn read(text: &str) -> Result<ServerConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("convoy.toml");
        std::fs::write(&path, text).unwrap();
        ServerConfig::read(&path)
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let example = PAGE.split("```toml").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(read(example).unwrap(), ServerConfig::default());
        // Every key is in it, so none can be added without a word on the page.
        let uncommented = example.replace("# ", "");
        let keys = |table: &toml::Table| table.values().map(|value| value.as_table().map_or(1, toml::Table::len)).sum();
        let documented: usize = keys(&uncommented.parse().unwrap());
        assert_eq!(
            documented,
            PAGE.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 5).count()
        );
        assert_ne!(read(&uncommented).unwrap(), ServerConfig::default());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_line() {
        for (text, said) in [
            ("[http]\nadress = \"\"", "line 2: unknown field `adress`"),
            ("\n\n[htpp]", "line 3: unknown field `htpp`"),
            ("[log]\nlevel = 3", "line 2: invalid type: integer `3`, expected a string"),
            ("[log]\nformat = \"xml\"", "line 2: unknown variant `xml`"),
            ("[http]\naddress = \"nowhere\"", "line 2: invalid socket address"),
            ("[limits]\nmax_pictures = -1", "line 2: invalid value"),
            ("[tracing]\nsample_ratio = 1.5", "line 2: 1.5 is not between 0 and 1"),
            ("[http\n", "line 1: "),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(said), "{error}");
        }
        assert_eq!(ServerConfig::read(Path::new("/nonexistent")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn operators_see_everything_but_secrets() {
        let text = "[tracing]\nendpoint = \"https://user:hunter2@collector/otlp\"\nheaders = [\"authorization=hunter2\"]\n\
            [auth]\nkeys_file = \"keys.toml\"";
        let shown = read(text).unwrap().without_secrets();
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
        assert_eq!(shown["tracing"]["endpoint"], "https://collector/otlp");
        assert_eq!(shown["tracing"]["headers"], "(not shown)");
        assert_eq!(shown["auth"]["keys_file"], "keys.toml");
        assert_eq!(shown["http"]["address"], "0.0.0.0:8000");
        for (endpoint, shown) in [
            ("https://c/otlp?token=hunter2&b=hunter2", "https://c/otlp?token=(not shown)&b=(not shown)"),
            ("https://u:hunter2@c:4318/?hunter2#hunter2", "https://c:4318/?(not shown)"),
            ("https://u:hunter2/@hunter2@c", "https://c"),
            ("http://c:4317/a", "http://c:4317/a"),
        ] {
            let config = read(&format!("[tracing]\nendpoint = \"{endpoint}\"")).unwrap();
            assert_eq!(config.without_secrets()["tracing"]["endpoint"], shown);
        }
        // Where there is none, that is no secret.
        assert_eq!(ServerConfig::default().without_secrets()["tracing"]["headers"], serde_json::json!([]));
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_key() {
        ServerConfig::default().validate().unwrap();
        for (text, key) in [
            ("[model_control]\npoll_interval_ms = 0", "model_control.poll_interval_ms"),
            ("[model_control]\nload = [\"a\"]", "model_control.load"),
            ("[model_control]\nmode = \"explicit\"\nload = [\"*\", \"a\"]", "model_control.load"),
            ("[model_store]\npoll_interval_ms = 0", "model_store.poll_interval_ms"),
            ("[model_store]\nmax_bytes = 0", "model_store.max_bytes"),
            ("[model_store]\npath = \"../models\"", "model_store.path"),
            ("[model_store]\nendpoint = \"minio:9000\"", "model_store.endpoint"),
            ("[http]\nmax_body_bytes = 0", "http.max_body_bytes"),
            ("[http]\nmax_json_depth = 0", "http.max_json_depth"),
            ("[http]\nmax_json_depth = 128", "http.max_json_depth"),
            ("[http]\nidle_timeout_ms = 0", "http.idle_timeout_ms"),
            ("[http]\nbody_timeout_ms = 0", "http.body_timeout_ms"),
            ("[http]\nmax_connections = 0", "http.max_connections"),
            ("[http]\nhealth_route = \"health\"", "http.health_route"),
            ("[http]\npredict_route = \"/{all}\"", "http.predict_route"),
            ("[tls]\nkey = \"key.pem\"", "tls.certificate"),
            ("[limits]\nmax_pixels = 0", "limits.max_pixels"),
            ("[limits]\nmax_inflight_bytes = 1048576", "limits.max_inflight_bytes"),
            ("[http]\nbody_deadline_ms = 0", "http.body_deadline_ms"),
            ("[grpc]\nmessage_timeout_ms = 0", "grpc.message_timeout_ms"),
            ("[limits]\ndecode_threads = 0", "limits.decode_threads"),
            ("[explain]\nmax_concurrent = 0", "explain.max_concurrent"),
            ("[tracing]\nendpoint = \"collector:4317\"", "tracing.endpoint"),
            ("[tracing]\nheaders = [\"authorization\"]", "tracing.headers"),
            ("[shutdown]\ngrace_ms = 2\ntimeout_ms = 1", "shutdown.timeout_ms"),
        ] {
            let error = read(text).unwrap().validate().unwrap_err();
            assert!(error.message().contains(key), "{error}");
        }
    }
}
