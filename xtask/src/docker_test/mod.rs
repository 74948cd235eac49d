//! `cargo xtask docker-test`: the images and the compose file as operators use them. Replicas behind HAProxy are restarted,
//! replaced, killed, frozen, broken and scaled under a steady load, and no client may notice more than it must.

mod bases;
mod daemon;
mod http;
mod keys;
mod load;
mod project;
mod scenarios;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::bases::Bases;
use self::daemon::Daemon;
use self::keys::Keys;
use self::load::{Failure, Load, Offer, Seen};
use self::project::Project;
use self::scenarios::{REPLICAS, SCENARIOS, Scenario};
use crate::pins;
use crate::process;
use crate::progress;

const USAGE: &str = "`cargo xtask docker-test` takes --if-possible (where no Docker daemon can be started, say so and succeed), \
                     --image NAME (test this image instead of building one), --rate R (requests a second over each protocol)";
/// What the load sends a second over each of its two protocols: less than one core answers, so that what fails has not failed
/// for want of one.
const DEFAULT_RATE: f64 = 10.0;
/// What the CPU image may take, without a model.
const MAX_IMAGE_BYTES: u64 = 130_000_000;
/// After a replica was lost, how long requests may still be sent to it.
const LOSS_SHOWS_WITHIN: Duration = Duration::from_secs(2);

/// How long the load goes on before something happens, and after it.
const BESIDE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Options {
    if_possible: bool,
    image: Option<String>,
    rate: f64,
}

/// Builds the image, starts what the compose file says, and goes through every scenario.
///
/// # Errors
/// When a bound is broken, after all scenarios; or when one cannot be gone through.
pub(crate) fn docker_test(arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    let daemon = match Daemon::start() {
        Ok(daemon) => daemon,
        Err(error) if options.if_possible => {
            println!("\ndocker-test: SKIPPED, nothing was tested: {error:#}\n");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let bases = Bases::ensure(&daemon)?;
    let image = match &options.image {
        Some(image) => image.clone(),
        None => build(&daemon, &bases)?,
    };
    let folder = process::target().join("docker-test");
    fs::create_dir_all(&folder)?;
    let convoy = take_binary(&daemon, &image, &folder)?;
    let picture = pins::cats().ensure()?.join("siamese-cat.jpg");

    let keys = Keys::make(&convoy, &folder)?;
    let project = progress::step("starting what the compose file says", || {
        let project = Project::up(&daemon, &bases, &image, REPLICAS, &keys.folder)?;
        project.wait_for_replicas(REPLICAS)?;
        Ok(project)
    })?;
    check_hardening(&project)?;
    check_keys(&project, &keys.key)?;
    check_prometheus(&project)?;

    let mut broken = Vec::new();
    println!(
        "\n{:<22} {:<5} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "scenario", "over", "requests", "failures", "p50 ms", "p99 ms", "max ms"
    );
    for scenario in SCENARIOS {
        let offer = Offer {
            convoy: &convoy,
            http: project.http,
            grpc: project.grpc,
            key: &keys.key,
            picture: &picture,
            rate: options.rate,
        };
        let (lost, all) = go_through(&scenario, &project, &image, offer, &folder)?;
        for seen in &all {
            let Seen { protocol, requests, p50_ms, p99_ms, max_ms, failures } = seen;
            let failed = failures.len();
            println!(
                "{:<22} {protocol:<5} {requests:>8} {failed:>8} {p50_ms:>8.1} {p99_ms:>8.1} {max_ms:>8.1}",
                scenario.name
            );
            for failure in failures {
                let offset = lost.map_or_else(String::new, |lost| {
                    format!(" {:+.3} s from the loss,", failure.due.as_secs_f64() - lost.as_secs_f64())
                });
                println!("    due{offset} after {} ms: {}", failure.took.as_millis(), failure.said);
            }
            broken.extend(broken_bound(lost, failures).map(|bound| format!("{}, {protocol}: {bound}", scenario.name)));
        }
    }
    println!();
    ensure!(broken.is_empty(), "clients noticed more than they must:\n{}", broken.join("\n"));
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options { if_possible: false, image: None, rate: DEFAULT_RATE };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--if-possible" => options.if_possible = true,
            "--image" => options.image = Some(arguments.next().context(USAGE)?.clone()),
            "--rate" => options.rate = arguments.next().and_then(|rate| rate.parse().ok()).context(USAGE)?,
            other => bail!("{USAGE}; not {other}"),
        }
    }
    Ok(options)
}

/// Builds the image without a model and the one with it, and holds the first to its size.
fn build(daemon: &Daemon, bases: &Bases) -> Result<String> {
    let [server, example] = ["convoy-test/server", "convoy-test/example"];
    progress::step("building the images", || {
        for (target, name) in [("server", server), ("example", example)] {
            let mut build = daemon.docker();
            // Where the daemon has BuildKit, only the stages that are needed are built.
            build.env("DOCKER_BUILDKIT", "1").args(["build", "--file", "docker/Dockerfile"]);
            build.args(["--target", target, "--tag", name]);
            build.args(["--build-arg", &format!("BUILD_IMAGE={}", bases.build)]);
            build.args(["--build-arg", &format!("RUNTIME_IMAGE={}", bases.runtime), "."]);
            process::run(&mut build)?;
        }
        Ok(())
    })?;
    let bytes: u64 = daemon.ask(&["image", "inspect", "--format", "{{.Size}}", server])?.parse()?;
    progress::say(&format!("the image without a model has {:.1} MB", bytes as f64 / 1e6));
    ensure!(bytes < MAX_IMAGE_BYTES, "the image has {bytes} bytes, and may have {MAX_IMAGE_BYTES}");
    Ok(example.to_owned())
}

/// Copies the binary out of the image: what loads it is of the same build.
fn take_binary(daemon: &Daemon, image: &str, folder: &Path) -> Result<PathBuf> {
    let container = daemon.ask(&["create", "--network", "none", image])?;
    let path = folder.join("convoy");
    let copied = daemon.tell(&["cp", &format!("{container}:/usr/local/bin/convoy"), &path.display().to_string()]);
    daemon.tell(&["rm", &container])?;
    copied.map(|()| path)
}

/// The replicas run as the compose file promises: not as root, on a root file system that cannot be written, and healthy.
fn check_hardening(project: &Project<'_>) -> Result<()> {
    for replica in project.replicas()? {
        let inspect = |format: &str| project.daemon.ask(&["inspect", "--format", format, &replica]);
        let found = inspect("{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}")?;
        ensure!(found == "65532:65532 true [ALL]", "a replica runs as {found}");
        project::wait_for("a replica to be healthy", || Ok(inspect("{{.State.Health.Status}}")? == "healthy"))?;
    }
    Ok(())
}

/// Whoever has no key is refused, and whoever has one is not.
fn check_keys(project: &Project<'_>, key: &str) -> Result<()> {
    let models = |headers: &str| http::status_of(project.http, "/v1/models", headers);
    let (without, with) = (models("")?, models(&format!("Authorization: Bearer {key}\r\n"))?);
    ensure!((without, with) == (401, 200), "{without} without a key, and {with} with one");
    Ok(())
}

/// Prometheus finds every replica and HAProxy, and HAProxy has what alerts and dashboard ask for.
fn check_prometheus(project: &Project<'_>) -> Result<()> {
    project.wait_for_query("count(up{job=\"convoy\"} == 1)", REPLICAS as f64)?;
    project.wait_for_query("count(up{job=\"haproxy\"} == 1)", 1.0)?;
    project.wait_for_query("sum(convoy_instances > bool 0)", REPLICAS as f64)?;
    let metrics = project.haproxy_metrics()?;
    for file in ["docker/prometheus/alerts.yml", "docker/grafana/dashboards/convoy.json"] {
        let text = fs::read_to_string(process::root().join(file))?;
        for name in text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
            let is_known = metrics
                .lines()
                .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
            ensure!(!name.starts_with("haproxy_") || is_known, "{file} asks for {name}, which HAProxy does not have");
        }
    }
    Ok(())
}

/// Loads the replicas while the scenario happens. Returns when a replica was lost, if one was, and what the clients saw.
fn go_through(
    scenario: &Scenario,
    project: &Project<'_>,
    image: &str,
    offer: Offer<'_>,
    folder: &Path,
) -> Result<(Option<Duration>, Vec<Seen>)> {
    let happens = || {
        let mut load = Load::start(offer, folder)?;
        sleep(BESIDE);
        let lost = (scenario.run)(project, image)?;
        sleep(BESIDE);
        ensure!(load.is_under_way()?, "the load has ended before it was told to");
        Ok((lost, load.finish()?))
    };
    let seen = progress::step(scenario.name, happens).with_context(|| format!("the scenario `{}`", scenario.name))?;
    if project.replicas()?.len() != REPLICAS {
        project.scale(REPLICAS)?;
        project.wait_for_replicas(REPLICAS)?;
    }
    Ok(seen)
}

/// What is wrong about these failures: anything, where nothing was lost; else what was sent long after the loss, or had its end
/// before it.
fn broken_bound(lost: Option<Duration>, failures: &[Failure]) -> Option<String> {
    let Some(lost) = lost else {
        return (!failures.is_empty()).then(|| format!("{} requests failed, and none may", failures.len()));
    };
    let is_excused = |failure: &&Failure| failure.due <= lost + LOSS_SHOWS_WITHIN && failure.due + failure.took >= lost;
    let others = failures.iter().filter(|failure| !is_excused(failure)).count();
    (others > 0).then(|| format!("{others} requests failed that the lost replica cannot have had"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loss_excuses_failures_and_only_for_two_seconds() {
        let at = |due: u64, took: u64| Failure {
            due: Duration::from_millis(due),
            took: Duration::from_millis(took),
            said: String::new(),
        };
        let lost = Some(Duration::from_secs(10));
        assert_eq!(broken_bound(None, &[]), None);
        assert!(broken_bound(None, &[at(10_000, 1)]).is_some());
        assert_eq!(broken_bound(lost, &[]), None);
        assert_eq!(broken_bound(lost, &[at(9_900, 200), at(11_900, 5)]), None);
        assert!(broken_bound(lost, &[at(9_900, 50)]).is_some(), "it had failed before");
        assert!(broken_bound(lost, &[at(12_100, 5)]).is_some(), "nothing should be sent there any more");
    }

    #[test]
    fn options_are_read() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let options = parse(&words(&["--if-possible", "--image", "a", "--rate", "5"])).unwrap();
        assert!(options.if_possible && options.image.as_deref() == Some("a") && (options.rate - 5.0).abs() < 1e-9);
        assert!(parse(&words(&["--rate"])).is_err() && parse(&words(&["--rates", "5"])).is_err());
    }
}
