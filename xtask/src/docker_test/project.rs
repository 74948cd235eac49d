//! The compose file's services as a project of their own, with free ports, and what can be done to their containers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bases::Bases;
use super::daemon::{Daemon, output};
use super::http;
use super::keys::Keys;
use crate::process;
use crate::progress;

const FILE: &str = "docker/compose.yaml";
/// Grafana is left out: nothing is known of it before its image can be pulled.
const SERVICES: [&str; 3] = ["convoy", "load-balancer", "prometheus"];
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(100);

/// A running project. Dropped, its containers, networks and volumes are removed.
pub(super) struct Project<'a> {
    pub(super) daemon: &'a Daemon,
    name: String,
    environment: Vec<(String, String)>,
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    haproxy: SocketAddr,
    prometheus: SocketAddr,
}

impl<'a> Project<'a> {
    /// Starts `replicas` of `image`, which find their API keys in `files`, and what stands beside them; they need not be ready yet.
    ///
    /// # Errors
    /// When Compose fails.
    pub(super) fn up(daemon: &'a Daemon, bases: &Bases, image: &str, replicas: usize, files: &Path) -> Result<Self> {
        let [http, grpc, haproxy, prometheus] = free_ports()?;
        let port = |address: SocketAddr| address.port().to_string();
        let environment = [
            ("CONVOY_IMAGE", image.to_owned()),
            ("CONVOY_REPLICAS", replicas.to_string()),
            ("CONVOY_FILES", files.display().to_string()),
            ("CONVOY_AUTH_KEYS_FILE", Keys::FILE.to_owned()),
            ("CONVOY_HTTP_PORT", port(http)),
            ("CONVOY_GRPC_PORT", port(grpc)),
            ("HAPROXY_IMAGE", bases.haproxy.clone()),
            ("HAPROXY_PORT", port(haproxy)),
            ("PROMETHEUS_IMAGE", bases.prometheus.clone()),
            ("PROMETHEUS_PORT", port(prometheus)),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let name = format!("convoytest{}", std::process::id());
        let project = Self { daemon, name, environment, http, grpc, haproxy, prometheus };
        project.compose(
            &[&["up", "--detach", "--no-build", "--scale", &format!("convoy={replicas}")], &SERVICES[..]].concat(),
        )?;
        Ok(project)
    }

    /// Runs Compose on this project.
    pub(super) fn compose(&self, arguments: &[&str]) -> Result<String> {
        output(
            self.with_environment(self.daemon.compose())
                .args(["--file", FILE, "--project-name", &self.name])
                .args(arguments),
        )
    }

    /// Runs a script of the tree on this project, as an operator would, with these variables beside the project's own.
    pub(super) fn script(&self, script: &str, variables: &[(&str, &str)]) -> Result<String> {
        let compose = self.daemon.compose();
        let mut command = Command::new(process::root().join(script));
        for (name, value) in compose.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("COMPOSE", words(&compose)).env("DOCKER", words(&self.daemon.docker()));
        command.env("COMPOSE_PROJECT_NAME", &self.name).current_dir(process::root());
        output(self.with_environment(command).envs(variables.iter().copied()))
    }

    /// Has the service run `replicas` containers: those that are there, and new ones or fewer.
    pub(super) fn scale(&self, replicas: usize) -> Result<()> {
        let scale = format!("convoy={replicas}");
        self.compose(&["up", "--detach", "--no-build", "--no-recreate", "--no-deps", "--scale", &scale, "convoy"])
            .map(drop)
    }

    /// The replicas' containers.
    pub(super) fn replicas(&self) -> Result<Vec<String>> {
        Ok(self.compose(&["ps", "--quiet", "convoy"])?.lines().map(str::to_owned).collect())
    }

    /// The network on which the replicas are.
    pub(super) fn network(&self) -> String {
        format!("{}_serving", self.name)
    }

    /// Waits until HAProxy sends HTTP and gRPC to so many replicas, and no other.
    pub(super) fn wait_for_replicas(&self, replicas: usize) -> Result<()> {
        wait_for(&format!("HAProxy to use {replicas} replicas"), || {
            let metrics = http::get(self.haproxy, "/metrics").unwrap_or_default();
            let active = |proxy| {
                let name = format!("haproxy_backend_active_servers{{proxy=\"{proxy}\"}} ");
                metrics.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse::<usize>().ok())
            };
            Ok(active("http_replicas") == Some(replicas) && active("grpc_replicas") == Some(replicas))
        })
    }

    /// What Prometheus answers to a query, when it is one number.
    pub(super) fn query(&self, query: &str) -> Result<Option<f64>> {
        let answer = http::get(self.prometheus, &format!("/api/v1/query?query={}", http::escape(query)))?;
        // {"status":"success","data":{"resultType":"vector","result":[{"metric":{…},"value":[TIME,"VALUE"]}]}}
        let value = answer.split_once("\"value\":[").and_then(|(_, rest)| rest.split('"').nth(1));
        Ok(value.and_then(|value| value.parse().ok()))
    }

    /// Waits until a query's answer is this number.
    pub(super) fn wait_for_query(&self, query: &str, wanted: f64) -> Result<()> {
        wait_for(&format!("Prometheus to answer {wanted} to {query}"), || {
            Ok(self.query(query).ok().flatten().is_some_and(|value| (value - wanted).abs() < 1e-9))
        })
    }

    /// The metrics of HAProxy itself.
    pub(super) fn haproxy_metrics(&self) -> Result<String> {
        http::get(self.haproxy, "/metrics")
    }

    fn with_environment(&self, mut command: Command) -> Command {
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if std::env::var_os("CONVOY_DOCKER_TEST_LOGS").is_some() {
            println!("{}", self.compose(&["logs", "--no-color", "load-balancer", "convoy"]).unwrap_or_default());
        }
        if let Err(error) = self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "5"]) {
            progress::say(&format!("the project could not be removed: {error:#}"));
        }
    }
}

/// A command without its environment.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Waits until `is_so`, but not for ever.
///
/// # Errors
/// When it has not come about in time.
pub(super) fn wait_for(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > PATIENCE {
            bail!("{} s were too few for {what}", PATIENCE.as_secs());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// All taken at once, so that they differ.
fn free_ports() -> Result<[SocketAddr; 4]> {
    let listeners: Vec<_> = (0..4)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()
        .context("no port is free")?;
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); 4];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}
