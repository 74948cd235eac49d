//! The Docker daemon that the test talks to: the user's, where `DOCKER_HOST` names one, or one of its own on a private socket
//! with private data.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::progress;

const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(200);

/// A daemon, and the clients that talk to it. Dropped, it ends if the test started it; what it has built is kept.
pub(super) struct Daemon {
    host: String,
    own: Option<Own>,
    compose: Compose,
}

/// A daemon of our own, and what is removed with it.
struct Own {
    dockerd: Child,
    /// Its socket's folder.
    run: PathBuf,
    _bridge: Bridge,
}

/// A bridge for its containers. Docker's usual one, `docker0`, may be another daemon's, which would lose its network.
struct Bridge(String);

impl Bridge {
    fn new() -> Result<Self> {
        // At most 15 bytes.
        let name = format!("cvt{}", std::process::id());
        output(Command::new("ip").args(["link", "add", "name", &name, "type", "bridge"]))?;
        Ok(Self(name))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.0]).status();
    }
}

/// Which Compose there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compose {
    /// `docker compose`, the second version.
    Plugin,
    /// `docker-compose`, either.
    Program,
}

impl Daemon {
    /// The daemon that `DOCKER_HOST` names, or a new one.
    ///
    /// # Errors
    /// When there is no Docker here or its daemon cannot be started: then nothing can be tested, and nothing has been.
    pub(super) fn start() -> Result<Self> {
        let compose = find_compose().context("there is neither `docker compose` nor `docker-compose`")?;
        if let Some(host) = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
            let daemon = Self { host, own: None, compose };
            if !daemon.answers() {
                bail!("no Docker daemon answers at {}, which DOCKER_HOST names", daemon.host);
            }
            return Ok(daemon);
        }
        if !process::on_path("dockerd") {
            bail!("dockerd is not on the PATH, and DOCKER_HOST names no daemon");
        }
        let data = process::target().join("docker-test");
        fs::create_dir_all(&data)?;
        // The path of a socket may have 107 bytes, which a deep checkout has already.
        let run = env::temp_dir().join(format!("convoy-docker-test-{}", std::process::id()));
        fs::create_dir_all(&run)?;
        let host = format!("unix://{}", run.join("docker.sock").display());
        let log_path = data.join("dockerd.log");
        let log = File::create(&log_path)?;
        let mut dockerd = Command::new("dockerd");
        let bridge = Bridge::new()?;
        dockerd.args(["--host", &host, "--bridge", &bridge.0]);
        for (option, path) in [
            ("--data-root", data.join("data")),
            ("--exec-root", run.join("exec")),
            ("--pidfile", run.join("dockerd.pid")),
        ] {
            dockerd.arg(option).arg(path);
        }
        dockerd.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let own = dockerd.spawn().context("dockerd could not be started")?;
        let mut daemon = Self { host, own: Some(Own { dockerd: own, run, _bridge: bridge }), compose };
        daemon.wait_until_it_answers(&log_path)?;
        Ok(daemon)
    }

    fn wait_until_it_answers(&mut self, log: &PathBuf) -> Result<()> {
        let started = Instant::now();
        while !self.answers() {
            let ended = self.own.as_mut().map(|own| own.dockerd.try_wait()).transpose()?.flatten();
            if ended.is_some() || started.elapsed() > START_LIMIT {
                let log = fs::read_to_string(log).unwrap_or_default();
                let last =
                    log.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
                bail!("dockerd does not run here; it said last:\n{last}");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The client.
    pub(super) fn docker(&self) -> Command {
        let mut docker = Command::new(docker_program());
        docker.env("DOCKER_HOST", &self.host).current_dir(process::root());
        docker
    }

    /// Compose.
    pub(super) fn compose(&self) -> Command {
        let mut compose = match self.compose {
            Compose::Plugin => {
                let mut docker = Command::new(docker_program());
                docker.arg("compose");
                docker
            }
            Compose::Program => Command::new("docker-compose"),
        };
        compose.env("DOCKER_HOST", &self.host).current_dir(process::root());
        compose
    }

    /// What `docker` prints with these arguments, without the space around it.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String> {
        output(self.docker().args(arguments))
    }

    /// Runs `docker` with these arguments, and shows what it says only when it fails.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn tell(&self, arguments: &[&str]) -> Result<()> {
        self.ask(arguments).map(drop)
    }

    /// Whether the daemon has an image of this name.
    pub(super) fn has_image(&self, name: &str) -> bool {
        self.tell(&["image", "inspect", name]).is_ok()
    }

    fn answers(&self) -> bool {
        self.tell(&["version"]).is_ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(Own { dockerd: daemon, run, .. }) = &mut self.own else { return };
        let _ = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
        let began = Instant::now();
        while let Ok(None) = daemon.try_wait() {
            if began.elapsed() > STOP_LIMIT {
                progress::say("dockerd does not end: it is killed");
                let _ = daemon.kill();
                let _ = daemon.wait();
                break;
            }
            thread::sleep(POLL);
        }
        let _ = fs::remove_dir_all(run);
    }
}

/// Debian's client comes with Debian's daemon: a newer one elsewhere on the PATH may not speak to it.
fn docker_program() -> &'static str {
    if fs::exists("/usr/bin/docker").unwrap_or(false) { "/usr/bin/docker" } else { "docker" }
}

fn find_compose() -> Option<Compose> {
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if works(Command::new(docker_program()).args(["compose", "version"])) {
        Some(Compose::Plugin)
    } else if works(Command::new("docker-compose").arg("version")) {
        Some(Compose::Program)
    } else {
        None
    }
}

/// What the command prints, without the space around it.
///
/// # Errors
/// When it fails, with what it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = process::capture(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", process::line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
