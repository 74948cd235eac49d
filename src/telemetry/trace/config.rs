//! What is said of traces in the configuration.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Uri};
use serde::{Deserialize, Serialize};

use super::resource;
use crate::error::{Error, Result};

/// The `[tracing]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracingConfig {
    /// The collector's URL; without one nothing is traced.
    pub endpoint: Option<String>,
    /// How spans are sent there.
    pub protocol: OtlpProtocol,
    /// How many of the requests that nobody has decided on before are traced.
    pub sample_ratio: SampleRatio,
    /// The service's name in every span.
    pub service_name: String,
    /// Headers that go with every export: `name=value`.
    pub headers: Vec<String>,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::Grpc,
            sample_ratio: SampleRatio::ALL,
            service_name: "convoy".to_owned(),
            headers: Vec::new(),
        }
    }
}

/// How spans are sent: the names are OpenTelemetry's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum OtlpProtocol {
    /// OTLP over gRPC, usually on port 4317.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP, usually on port 4318.
    #[serde(rename = "http/protobuf")]
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// A share of requests, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct SampleRatio(f64);

/// It is never NaN.
impl Eq for SampleRatio {}

impl SampleRatio {
    /// Every request.
    pub const ALL: Self = Self(1.0);
    /// No request.
    pub const NONE: Self = Self(0.0);

    /// The share as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for SampleRatio {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&ratio) { Ok(Self(ratio)) } else { Err(format!("{ratio} is not between 0 and 1")) }
    }
}

impl FromStr for SampleRatio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<f64>().map_err(|error| error.to_string())?.try_into()
    }
}

impl fmt::Display for SampleRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TracingConfig {
    /// Refuses what could never be sent.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        self.url()?;
        self.header_map().map(drop)
    }

    /// Where spans are posted, complete for the protocol; `None` where nothing is traced.
    pub(super) fn url(&self) -> Result<Option<String>> {
        const PATH: &str = "/v1/traces";
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let uri: Option<Uri> = endpoint.parse().ok();
        if !uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()) {
            return Err(Error::invalid(format!(
                "tracing.endpoint: `{endpoint}` is not a URL such as `http://collector:4317`"
            )));
        }
        let base = endpoint.trim_end_matches('/');
        Ok(Some(match self.protocol {
            OtlpProtocol::HttpProtobuf if !base.ends_with(PATH) => format!("{base}{PATH}"),
            _ => base.to_owned(),
        }))
    }

    /// The headers of every export.
    pub(super) fn header_map(&self) -> Result<HeaderMap> {
        let parse = |header: &String| {
            let (name, value) = header.split_once('=')?;
            let name: HeaderName = name.trim().parse().ok()?;
            let mut value: HeaderValue = value.trim().parse().ok()?;
            value.set_sensitive(true);
            Some((name, value))
        };
        // What is wrong is not repeated: it may hold a secret.
        let wrong = || Error::invalid("tracing.headers: each is `name=value`, as in `authorization=Bearer …`");
        self.headers.iter().map(|header| parse(header).ok_or_else(wrong)).collect()
    }

    /// Lays over the configuration what OpenTelemetry's own variables say, for every service alike, in the environment.
    ///
    /// # Errors
    /// `InvalidArgument` naming the variable.
    pub fn apply_environment(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<()> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let of_traces = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
            variable(&own).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value != "otlp");
        if is_off {
            self.endpoint = None;
        } else if let Some(endpoint) = of_traces("ENDPOINT") {
            self.endpoint = Some(endpoint);
        }
        if let Some(protocol) = of_traces("PROTOCOL") {
            self.protocol = OtlpProtocol::from_str(&protocol, false).map_err(|_| {
                Error::invalid(format!("OTEL_EXPORTER_OTLP_PROTOCOL is `{protocol}`: grpc and http/protobuf are known"))
            })?;
        }
        // Whoever starts to trace says what is wrong with these, if something is.
        let said = variable(resource::ATTRIBUTES).and_then(|text| resource::attributes(&text).ok());
        let said = said.into_iter().flatten().rfind(|(name, _)| name == "service.name").map(|(_, name)| name);
        if let Some(name) = variable("OTEL_SERVICE_NAME").or(said) {
            self.service_name = name;
        }
        if let Some(sampler) = variable("OTEL_TRACES_SAMPLER") {
            self.sample_ratio = match sampler.as_str() {
                "always_on" | "parentbased_always_on" => SampleRatio::ALL,
                "always_off" | "parentbased_always_off" => SampleRatio::NONE,
                "traceidratio" | "parentbased_traceidratio" => {
                    variable("OTEL_TRACES_SAMPLER_ARG").map_or(Ok(SampleRatio::ALL), |ratio| ratio.parse()).map_err(
                        |reason: String| Error::invalid(format!("OTEL_TRACES_SAMPLER_ARG is no share: {reason}")),
                    )?
                }
                _ => {
                    return Err(Error::invalid(format!("OTEL_TRACES_SAMPLER is `{sampler}`, which is not known here")));
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str, protocol: OtlpProtocol, headers: &[&str]) -> TracingConfig {
        let headers = headers.iter().map(|&header| header.to_owned()).collect();
        TracingConfig { endpoint: Some(endpoint.to_owned()), protocol, headers, ..TracingConfig::default() }
    }

    #[test]
    fn the_url_has_the_path_that_the_protocol_needs() {
        let url = |endpoint, protocol| config(endpoint, protocol, &[]).url().unwrap().unwrap();
        assert_eq!(url("http://c:4317", OtlpProtocol::Grpc), "http://c:4317");
        assert_eq!(url("http://c:4318", OtlpProtocol::HttpProtobuf), "http://c:4318/v1/traces");
        assert_eq!(url("https://c/otlp/", OtlpProtocol::HttpProtobuf), "https://c/otlp/v1/traces");
        assert_eq!(url("http://c:4318/v1/traces", OtlpProtocol::HttpProtobuf), "http://c:4318/v1/traces");
        assert_eq!(TracingConfig::default().url().unwrap(), None);
    }

    #[test]
    fn what_could_never_be_sent_is_refused() {
        for endpoint in ["", "collector:4317", "collector", "ftp://c", "http://"] {
            let error = config(endpoint, OtlpProtocol::Grpc, &[]).validate().unwrap_err();
            assert!(error.message().contains("tracing.endpoint"), "{error}");
        }
        for header in ["", "secret", "na me=secret", "=secret", "name=sec\nret"] {
            let error = config("http://c", OtlpProtocol::Grpc, &[header]).validate().unwrap_err();
            assert!(error.message().contains("tracing.headers") && !error.message().contains("sec"), "{error}");
        }
        let headers = config("http://c", OtlpProtocol::Grpc, &["a=b=c", "X-Key = v"]).header_map().unwrap();
        assert_eq!((&headers["a"], &headers["x-key"]), (&"b=c".parse().unwrap(), &"v".parse().unwrap()));
        assert!("1.5".parse::<SampleRatio>().is_err() && "NaN".parse::<SampleRatio>().is_err());
        assert_eq!("0.25".parse::<SampleRatio>().unwrap().get().to_bits(), 0.25_f64.to_bits());
    }

    #[test]
    fn open_telemetrys_own_variables_are_known() {
        let apply = |variables: &[(&str, &str)]| {
            let mut config = TracingConfig::default();
            let find =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
            config.apply_environment(find).map(|()| config)
        };
        assert_eq!(apply(&[]).unwrap(), TracingConfig::default());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let config = apply(&[
            endpoint,
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_SERVICE_NAME", "cats"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .unwrap();
        assert_eq!(config.url().unwrap().unwrap(), "http://c:4318/v1/traces");
        assert_eq!((&*config.service_name, config.sample_ratio), ("cats", SampleRatio(0.25)));
        let config = apply(&[endpoint, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4317")]).unwrap();
        assert_eq!(config.endpoint.unwrap(), "http://t:4317");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=all%20cats");
        assert_eq!(apply(&[attributes]).unwrap().service_name, "all cats");
        assert_eq!(apply(&[attributes, ("OTEL_SERVICE_NAME", "cats")]).unwrap().service_name, "cats");
        assert_eq!(apply(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).unwrap().endpoint, None);
        assert_eq!(apply(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().endpoint, None);
        assert_eq!(apply(&[("OTEL_TRACES_SAMPLER", "always_off")]).unwrap().sample_ratio, SampleRatio::NONE);
        for wrong in [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_TRACES_SAMPLER", "jaeger_remote")] {
            assert!(apply(&[wrong]).unwrap_err().message().contains(wrong.0), "{wrong:?}");
        }
    }
}
