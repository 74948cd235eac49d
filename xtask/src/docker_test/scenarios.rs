//! What is done to the replicas while they are loaded.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::http;
use super::load::unix_now;
use super::project::{Project, wait_for};
use crate::process;

/// How many replicas there are before and after each scenario.
pub(super) const REPLICAS: usize = 3;
/// How long a lost replica is left alone.
const ABSENCE: Duration = Duration::from_secs(6);
const METRICS_PORT: u16 = 8002;

/// Something that happens to the replicas.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Does it. For what nobody plans, returns when a replica was lost, in Unix time.
    pub(super) run: fn(&Project<'_>, &str) -> Result<Option<Duration>>,
}

pub(super) const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "nothing",
        run: |_, _| {
            sleep(ABSENCE);
            Ok(None)
        },
    },
    Scenario { name: "rolling restart", run: restart_each },
    Scenario { name: "rolling update", run: update },
    Scenario { name: "an update that fails", run: fail_to_update },
    Scenario { name: "an update without keys", run: refuse_to_open },
    Scenario { name: "HAProxy reloaded", run: reload_balancer },
    Scenario { name: "SIGKILL of one", run: kill_one },
    Scenario { name: "one frozen", run: freeze_one },
    Scenario { name: "one without its model", run: add_broken },
    Scenario { name: "scaling 3, 5, 2", run: scale },
];

/// Restarts one after the other, each when the one before it is back.
fn restart_each(project: &Project<'_>, _: &str) -> Result<Option<Duration>> {
    for replica in project.replicas()? {
        project.daemon.tell(&["restart", "--time", "35", &replica])?;
        project.wait_for_replicas(REPLICAS)?;
    }
    Ok(None)
}

/// Replaces every container by one of a new version, two at a time, as the script for operators does.
fn update(project: &Project<'_>, image: &str) -> Result<Option<Duration>> {
    let next = "convoy-test/next";
    project.daemon.tell(&["tag", image, next])?;
    project.script("docker/rolling-update.sh", &[("CONVOY_IMAGE", next), ("BATCH", "2")])?;
    let after = project.replicas()?;
    ensure!(after.len() == REPLICAS, "there are {} replicas after the update", after.len());
    for replica in after {
        let version = project.daemon.ask(&["inspect", "--format", "{{.Config.Image}}", &replica])?;
        ensure!(version == next, "the update has left a replica as it was, of {version}");
    }
    project.wait_for_replicas(REPLICAS)?;
    Ok(None)
}

/// An update to a version that never gets ready. It must fail, and leave what there was.
fn fail_to_update(project: &Project<'_>, image: &str) -> Result<Option<Duration>> {
    let before = sorted_replicas(project)?;
    let broken = "convoy-test/broken";
    let container = project.daemon.ask(&["create", image])?;
    let changed =
        project.daemon.tell(&["commit", "--change", "ENV CONVOY_MODEL_REPOSITORY=/nonexistent", &container, broken]);
    project.daemon.tell(&["rm", &container])?;
    changed?;
    let update = project.script("docker/rolling-update.sh", &[("CONVOY_IMAGE", broken), ("PATIENCE_S", "10")]);
    let error = update.err().context("an update to a version that cannot start has succeeded")?;
    ensure!(format!("{error:#}").contains("is not healthy"), "the update has failed otherwise: {error:#}");
    ensure!(sorted_replicas(project)? == before, "the failed update has changed which replicas there are");
    project.wait_for_replicas(REPLICAS)?;
    Ok(None)
}

/// An update from an environment that lacks the API keys that the replicas were given. It must say so, and leave what there was.
fn refuse_to_open(project: &Project<'_>, image: &str) -> Result<Option<Duration>> {
    let before = sorted_replicas(project)?;
    let update = project
        .script("docker/rolling-update.sh", &[("CONVOY_IMAGE", image), ("CONVOY_AUTH_KEYS_FILE", ""), ("BATCH", "1")]);
    let error = update.err().context("an update to replicas that are open to all has not asked")?;
    ensure!(
        format!("{error:#}").contains("they would have another CONVOY_AUTH_KEYS_FILE"),
        "the update has failed otherwise: {error:#}"
    );
    ensure!(sorted_replicas(project)? == before, "the refused update has changed which replicas there are");
    Ok(None)
}

fn sorted_replicas(project: &Project<'_>) -> Result<Vec<String>> {
    let mut replicas = project.replicas()?;
    replicas.sort();
    Ok(replicas)
}

/// Another HAProxy takes over, as after a change of its configuration.
fn reload_balancer(project: &Project<'_>, _: &str) -> Result<Option<Duration>> {
    project.compose(&["kill", "--signal", "HUP", "load-balancer"])?;
    sleep(ABSENCE);
    project.wait_for_replicas(REPLICAS)?;
    Ok(None)
}

fn kill_one(project: &Project<'_>, _: &str) -> Result<Option<Duration>> {
    let replica = first_replica(project)?;
    let lost = unix_now();
    project.daemon.tell(&["kill", "--signal", "KILL", &replica])?;
    sleep(ABSENCE);
    project.daemon.tell(&["start", &replica])?;
    project.wait_for_replicas(REPLICAS)?;
    Ok(Some(lost))
}

fn freeze_one(project: &Project<'_>, _: &str) -> Result<Option<Duration>> {
    let replica = first_replica(project)?;
    let lost = unix_now();
    project.daemon.tell(&["pause", &replica])?;
    let absence = (|| {
        project.wait_for_replicas(REPLICAS - 1)?;
        sleep(ABSENCE);
        Ok(())
    })();
    project.daemon.tell(&["unpause", &replica])?;
    absence.and_then(|()| project.wait_for_replicas(REPLICAS))?;
    Ok(Some(lost))
}

/// Puts a replica beside the others whose model cannot be loaded. It must get no request at all.
fn add_broken(project: &Project<'_>, image: &str) -> Result<Option<Duration>> {
    let models = process::target().join("docker-test/broken");
    let version = models.join("efficientnet-lite0/1");
    fs::create_dir_all(&version)?;
    fs::write(version.join("model.onnx"), "not a graph")?;
    let mount = format!("{}:/models:ro", models.display());
    let name = format!("{}-broken", project.network());
    let mut run = vec!["run", "--detach", "--name", &name, "--network"];
    let network = project.network();
    run.extend([&network, "--network-alias", "convoy", "--read-only", "--tmpfs", "/tmp", "--volume", &mount]);
    run.extend(["--env", "CONVOY_MODEL_CONTROL_STRICT_READINESS=true", image]);
    project.daemon.tell(&run)?;
    let seen = watch_broken(project, &name);
    project.daemon.tell(&["rm", "--force", &name])?;
    seen.map(|()| None)
}

fn watch_broken(project: &Project<'_>, name: &str) -> Result<()> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address: IpAddr = project.daemon.ask(&["inspect", "--format", format, name])?.parse()?;
    let address = SocketAddr::from((address, METRICS_PORT));
    wait_for("the broken replica to load what it can", || {
        Ok(http::get(address, "/metrics").is_ok_and(|metrics| metrics.contains("state=\"UNAVAILABLE\"")))
    })?;
    let ready = http::status_of(address, "/v2/health/ready", "")?;
    ensure!(ready == 503, "the readiness of a replica without its model is {ready}");
    project.wait_for_query("count(ALERTS{alertname=\"ConvoyModelUnavailable\"})", 1.0)?;
    let metrics = http::get(address, "/metrics")?;
    let requests: Vec<_> = metrics
        .lines()
        .filter(|line| {
            line.starts_with("convoy_requests_total{") || line.contains("/classify") || line.contains("Classify")
        })
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    ensure!(requests.is_empty(), "a replica without its model got requests: {requests:?}");
    Ok(())
}

fn scale(project: &Project<'_>, _: &str) -> Result<Option<Duration>> {
    for replicas in [5, 2] {
        project.scale(replicas)?;
        project.wait_for_replicas(replicas)?;
        sleep(Duration::from_secs(3));
    }
    Ok(None)
}

fn first_replica(project: &Project<'_>) -> Result<String> {
    project.replicas()?.into_iter().next().context("there is no replica")
}
