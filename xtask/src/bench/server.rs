//! The server under measurement: started as a user would, stopped by SIGTERM.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::table::{self, Row};
use crate::process;

const START_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(2);

/// A running `convoy serve`. Dropped without [`Server::stop`], it is killed.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    grpc_address: SocketAddr,
    ready_after: Duration,
    cores: Cores,
}

/// Which cores the server and its load run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cores {
    /// Both on all.
    Shared,
    /// The load on the last of so many, the server on the others.
    Apart(usize),
}

impl Cores {
    /// `program` on the server's cores.
    fn server(self, program: &Path) -> Command {
        self.pinned(program, |count| format!("0-{}", count - 2))
    }

    /// `program` on the load's.
    fn load(self, program: &Path) -> Command {
        self.pinned(program, |count| (count - 1).to_string())
    }

    fn pinned(self, program: &Path, list: impl Fn(usize) -> String) -> Command {
        match self {
            Self::Shared => Command::new(program),
            Self::Apart(count) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &list(count)]).arg(program);
                command
            }
        }
    }
}

impl Server {
    /// Starts the server and waits until it is ready.
    pub(super) fn start(
        repository: &Path,
        onnxruntime: &Path,
        log: &Path,
        cores: Cores,
        arguments: &[&str],
    ) -> Result<Self> {
        let log = File::create(log)?;
        let (address, grpc_address) = (free_address()?, free_address()?);
        let mut command = cores.server(&process::convoy());
        command.arg("serve").arg("--model-repository").arg(repository);
        command.args(["--http-address", &address.to_string()]);
        command.args(["--grpc-address", &grpc_address.to_string(), "--metrics-address", "127.0.0.1:0"]);
        command.args(arguments).env("ORT_DYLIB_PATH", onnxruntime);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = command.spawn().context("the server could not be started")?;
        let mut server = Self { child, address, grpc_address, ready_after: Duration::ZERO, cores };
        while !is_ready(address) {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended before it was ready ({status})");
            }
            if started.elapsed() > START_LIMIT {
                bail!("the server was not ready within {} s", START_LIMIT.as_secs());
            }
            thread::sleep(POLL);
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    /// From the start of the process to the first positive readiness, in milliseconds.
    pub(super) fn ready_ms(&self) -> f64 {
        self.ready_after.as_secs_f64() * 1e3
    }

    /// One row for each concurrency.
    pub(super) fn load(&self, way: Way<'_>, concurrencies: &[u32], seconds: f64) -> Result<Vec<Row>> {
        let list = concurrencies.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let mut bench = self.bench(way);
        bench.args(["--concurrency", &list, "--duration-s", &seconds.to_string()]);
        table::parse(&output(&mut bench)?)
    }

    /// The row for this concurrency.
    pub(super) fn load_once(&self, way: Way<'_>, concurrency: u32, seconds: f64) -> Result<Row> {
        self.load(way, &[concurrency], seconds)?.into_iter().next().context("the load has no measurement")
    }

    /// The row for so many requests a second, each with this timeout, whether or not the server keeps up.
    pub(super) fn offer(&self, picture: &Path, rate: f64, timeout_ms: u64, seconds: f64) -> Result<Row> {
        let mut bench = self.bench(Way::http(picture));
        bench.args(["--rate", &rate.to_string(), "--timeout-ms", &timeout_ms.to_string()]);
        bench.args(["--duration-s", &seconds.to_string()]);
        table::parse(&quiet_output(&mut bench)?)?.into_iter().next().context("the load has no measurement")
    }

    /// Sends so many requests over 8 connections.
    pub(super) fn requests(&self, picture: &Path, requests: u64) -> Result<Row> {
        let mut bench = self.bench(Way::http(picture));
        bench.args(["--concurrency", "8", "--warmup-s", "0", "--requests", &requests.to_string()]);
        table::parse(&output(&mut bench)?)?.into_iter().next().context("the load has no measurement")
    }

    /// Does `work` while one explanation of `picture` after the other is asked for, by this path below the model's. Returns how many
    /// there were a second, too.
    pub(super) fn while_explaining<T>(
        &self,
        model: &str,
        query: &str,
        picture: &Path,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, f64)> {
        let picture = fs::read(picture)?;
        let head = format!(
            "POST /v1/models/{model}/explain?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            picture.len()
        );
        let request = [head.as_bytes(), &picture].concat();
        let explain = || {
            let answer = exchange(TcpStream::connect(self.address)?, &request)?;
            if !answer.starts_with("HTTP/1.1 200") {
                bail!("an explanation was not answered: {}", answer.lines().last().unwrap_or_default());
            }
            Ok(())
        };
        // The first one makes the graphs.
        explain()?;
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let explaining = scope.spawn(|| {
                let mut count = 0;
                loop {
                    explain()?;
                    // What ends later was quick because nothing was beside it any more.
                    if is_done.load(Ordering::Relaxed) {
                        return anyhow::Ok(f64::from(count));
                    }
                    count += 1;
                }
            });
            let started = Instant::now();
            let result = work();
            let elapsed = started.elapsed().as_secs_f64();
            is_done.store(true, Ordering::Relaxed);
            let count = explaining.join().map_err(|_| anyhow!("the load of explanations panicked"))??;
            Ok((result?, count / elapsed))
        })
    }

    /// Loads a model again, and returns the answer's status.
    pub(super) fn load_model(&self, model: &str) -> Result<u16> {
        let request = format!(
            "POST /v2/repository/models/{model}/load HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let answer = exchange(TcpStream::connect(self.address)?, request.as_bytes())?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.with_context(|| format!("the server's answer is not HTTP: {answer}"))
    }

    /// The server's resident memory, in MiB.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: f64| kib / 1024.0).context("the server's memory is not known")
    }

    /// Stops the server as an orchestrator does, and holds it to its exit code.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        process::run(Command::new("kill").args(["-TERM", &pid]))?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server did not stop cleanly ({status})");
        }
        Ok(())
    }

    fn bench(&self, way: Way<'_>) -> Command {
        let mut bench = self.cores.load(&process::convoy());
        let url = match way.protocol {
            Protocol::Http => format!("http://{}", self.address),
            Protocol::Grpc | Protocol::Stream => format!("grpc://{}", self.grpc_address),
        };
        bench.args(["bench", "--format", "csv", "--url", &url, "--pid", &self.child.id().to_string()]);
        if way.protocol == Protocol::Stream {
            bench.arg("--stream");
        }
        match way.payload {
            Payload::Picture(picture) => bench.arg("--image").arg(picture),
            Payload::Tensor { model, form } => bench.args(["--model", model, "--tensor", form]),
        };
        bench
    }
}

/// How a server is loaded.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) protocol: Protocol,
    pub(super) payload: Payload<'a>,
}

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, a connection for each request on its way.
    Http,
    /// Unary gRPC, a connection for each request on its way.
    Grpc,
    /// One bidirectional stream of gRPC.
    Stream,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Picture(&'a Path),
    /// The form is `json` or `binary`.
    Tensor {
        model: &'a str,
        form: &'a str,
    },
}

impl<'a> Way<'a> {
    /// Pictures over HTTP.
    pub(super) fn http(picture: &'a Path) -> Self {
        Self { protocol: Protocol::Http, payload: Payload::Picture(picture) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail once the server has been stopped, which is as it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the command prints, which must succeed.
pub(super) fn output(command: &mut Command) -> Result<String> {
    quiet_output(command.stderr(Stdio::inherit()))
}

/// The same without what it says on stderr: how often it was refused, where that is meant to happen.
fn quiet_output(command: &mut Command) -> Result<String> {
    let output = process::capture(command)?;
    if !output.status.success() {
        bail!("`{}` failed ({})", process::line(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || {
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(100))?;
        exchange(stream, b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The answer to a request after which the server closes the connection.
fn exchange(mut stream: TcpStream, request: &[u8]) -> io::Result<String> {
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
