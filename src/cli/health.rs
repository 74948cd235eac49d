//! `convoy health`: asks a server how it is, for health checks where there is no other client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body, Error};

use crate::config::ServerConfig;

/// Ask a server whether it is ready for traffic
///
/// The exit code says it, for a container's health check that has neither shell nor curl: 0 when the server is ready, 1 with a
/// sentence on standard error otherwise. It asks the metrics port, which needs no key and no certificate, on this machine, and
/// finds it in the same options, environment and configuration file as the server.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The server's configuration file (TOML)
    #[arg(long, env = "CONVOY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where the server's metrics listen [default: 0.0.0.0:8002]
    #[arg(long, env = "CONVOY_METRICS_ADDRESS", value_name = "IP:PORT")]
    metrics_address: Option<SocketAddr>,

    /// Ask a server elsewhere, at this address of its metrics: http://host:port
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Ask whether the server is alive, which it is while it loads models or drains, too
    #[arg(long)]
    live: bool,

    /// How long the answer may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

/// More than a sentence has.
const MAX_REASON_BYTES: u64 = 1 << 16;

/// Asks.
///
/// # Errors
/// In a sentence, when the server is not ready, or nobody says that it is.
pub(super) fn run(args: &HealthArgs) -> Result<()> {
    let server = match &args.url {
        Some(url) => checked(url)?,
        None => format!("http://{}", address(args)?),
    };
    let path = if args.live { "/v2/health/live" } else { "/v2/health/ready" };
    let timeout = Duration::from_millis(args.timeout_ms);
    // A proxy that the environment names is for what lies outside.
    let config = Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None);
    let agent = Agent::new_with_config(config.timeout_global(Some(timeout)).build());
    match agent.get(format!("{server}{path}")).call() {
        Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
        Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => match reason(answer) {
            Some(reason) => bail!("the server at {server} is not ready: {reason}"),
            None => bail!("{server}{path} answers 503, and not as convoy does: is that its metrics port?"),
        },
        Ok(answer) => bail!("{server}{path} answers {}: that is no convoy's metrics port", answer.status()),
        Err(Error::Timeout(_)) => bail!("the server at {server} has not answered within {} ms", args.timeout_ms),
        Err(Error::Protocol(_)) => {
            bail!(
                "whoever listens at {server} does not speak HTTP/1.1: that is no metrics port, but convoy's port for gRPC, say"
            )
        }
        Err(error) => Err(error).with_context(|| format!("there is no server at {server}")),
    }
}

/// What a server says that is not ready.
fn reason(mut answer: Response<Body>) -> Option<String> {
    #[derive(Deserialize)]
    struct NotReady {
        error: String,
    }
    let body = answer.body_mut().with_config().limit(MAX_REASON_BYTES).read_to_string().ok()?;
    Some(serde_json::from_str::<NotReady>(&body).ok()?.error)
}

/// Where the server of this machine is asked, which listens as the options, the environment or the file say.
fn address(args: &HealthArgs) -> Result<SocketAddr> {
    let address = match (args.metrics_address, &args.config) {
        (Some(address), _) => address,
        (None, Some(path)) => ServerConfig::read(path)?.metrics.address,
        (None, None) => ServerConfig::default().metrics.address,
    };
    ensure!(address.port() != 0, "the server takes a free port for its metrics: name it with --url");
    Ok(reachable(address))
}

/// An address at which whoever listens on `address` can be reached: nobody can be on all of a machine's at once.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// `http://host:port`, out of a URL that says no more.
fn checked(url: &str) -> Result<String> {
    let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    let authority = uri.authority().with_context(|| format!("{url} names no host: write http://host:port"))?;
    ensure!(uri.scheme_str() == Some("http"), "{url}: the metrics port speaks http alone");
    ensure!(matches!(uri.path(), "" | "/") && uri.query().is_none(), "{url}: the path is not to be given");
    Ok(format!("http://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_this_machine() {
        for (listens, asked) in [
            ("0.0.0.0:8002", "127.0.0.1:8002"),
            ("[::]:9", "[::1]:9"),
            ("10.0.0.1:8002", "10.0.0.1:8002"),
            ("[::1]:8002", "[::1]:8002"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn a_url_names_a_server_and_no_more() {
        assert_eq!(checked("http://replica-1:8002/").unwrap(), "http://replica-1:8002");
        assert_eq!(checked("http://[::1]:8002").unwrap(), "http://[::1]:8002");
        for url in ["replica-1:8002", "https://replica-1:8002", "http://replica-1/v2", "http://replica-1/?a", "", "/"] {
            assert!(checked(url).is_err(), "{url}");
        }
    }
}
