//! `convoy bench`: a closed-loop load on a running server, and what it took.
//!
//! Closed loop: each connection sends its next request when the last one is answered, so the offered load adapts to the
//! server. Latencies under more load than the server can take need an open loop.

mod client;
mod floor;
mod process;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use tokio::task::JoinSet;

use self::client::{Connection, Target};
use self::process::Usage;
use self::report::{Format, Measurement, Report};
use crate::engine::Runtime;

/// Load a running server and report throughput, latency and its CPU time
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Where pictures are posted; a bare server address means its /v1/classify
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,

    /// The pictures to post, in turn
    #[arg(long, required = true, value_name = "PICTURE", num_args = 1..)]
    image: Vec<PathBuf>,

    /// Connections that send at the same time; several numbers are measured one after the other
    #[arg(long, default_value = "1,8,32", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: Vec<u32>,

    /// How long to measure each, in seconds
    #[arg(long, default_value_t = 10.0)]
    duration_s: f64,

    /// How long to load the server before each measurement, in seconds
    #[arg(long, default_value_t = 1.0)]
    warmup_s: f64,

    /// Measure this many requests instead of a duration
    #[arg(long)]
    requests: Option<u64>,

    /// The server's process: adds its CPU time for each picture and its memory to the report (Linux)
    #[arg(long)]
    pid: Option<u32>,

    /// Measure no server but the floor under any: decoding, preprocessing and the model in a bare loop in this process, one
    /// thread for each number of --concurrency
    #[arg(long, requires = "model", conflicts_with_all = ["url", "pid"])]
    floor: bool,

    /// With --floor, the model
    #[arg(long)]
    model: Option<String>,

    /// With --floor, the model's version
    #[arg(long, default_value_t = 1)]
    version: u64,

    /// With --floor, the folder that holds the models
    #[arg(long, value_name = "DIR", default_value = "models", env = "CONVOY_MODEL_REPOSITORY")]
    model_repository: PathBuf,

    /// With --floor, ONNX Runtime's library [default: ORT_DYLIB_PATH, then beside the executable, then target/onnxruntime]
    #[arg(long, value_name = "FILE")]
    onnxruntime_library: Option<PathBuf>,

    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
enum Until {
    Elapsed(Duration),
    Requests(u64),
}

/// Runs the measurements and prints the report; returns whether no request failed.
///
/// # Errors
/// When a picture cannot be read, the address is malformed, the server cannot be reached, or `--pid` names no process.
pub(super) async fn run(args: &BenchArgs) -> Result<bool> {
    ensure!(args.duration_s > 0.0 && args.warmup_s >= 0.0, "durations cannot be negative, nor the measurement's zero");
    let pictures: Arc<[Bytes]> = args
        .image
        .iter()
        .map(|path| std::fs::read(path).map(Bytes::from).with_context(|| format!("{} cannot be read", path.display())))
        .collect::<Result<_>>()?;
    let until = match args.requests {
        Some(requests) => Until::Requests(requests),
        None => Until::Elapsed(Duration::from_secs_f64(args.duration_s)),
    };
    let (subject, measurements) = match &args.model {
        Some(model) if args.floor => {
            (format!("floor of {model}"), tokio::task::block_in_place(|| measure_floor(args, model, &pictures, until))?)
        }
        _ => (args.url.clone(), measure_server(args, &pictures, until).await?),
    };
    let report = Report { subject: &subject, measurements: &measurements };
    report.print(args.format)?;
    Ok(measurements.iter().all(|measurement| measurement.errors.is_empty()))
}

fn measure_floor(args: &BenchArgs, model: &str, pictures: &Arc<[Bytes]>, until: Until) -> Result<Vec<Measurement>> {
    let runtime = Runtime::load(args.onnxruntime_library.as_deref())?;
    let folder = args.model_repository.join(model);
    let warmup = Duration::from_secs_f64(args.warmup_s);
    args.concurrency
        .iter()
        .map(|&threads| floor::measure(&runtime, &folder, args.version, pictures, threads, warmup, until))
        .collect()
}

async fn measure_server(args: &BenchArgs, pictures: &Arc<[Bytes]>, until: Until) -> Result<Vec<Measurement>> {
    let target = Arc::new(Target::parse(&args.url)?);
    let mut measurements = Vec::new();
    for &concurrency in &args.concurrency {
        if args.warmup_s > 0.0 {
            load(&target, pictures, concurrency, Until::Elapsed(Duration::from_secs_f64(args.warmup_s))).await?;
        }
        let before = args.pid.map(Usage::of).transpose()?;
        let started = Instant::now();
        let mut measurement = load(&target, pictures, concurrency, until).await?;
        measurement.elapsed = started.elapsed();
        if let (Some(pid), Some(before)) = (args.pid, before) {
            let after = Usage::of(pid)?;
            measurement.server_cpu = Some(after.cpu.saturating_sub(before.cpu));
            measurement.server_rss_bytes = Some(after.rss_bytes);
        }
        measurements.push(measurement);
    }
    Ok(measurements)
}

/// Keeps `concurrency` connections busy until the load's end, and gathers what each saw.
async fn load(target: &Arc<Target>, pictures: &Arc<[Bytes]>, concurrency: u32, until: Until) -> Result<Measurement> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for index in 0..u64::from(concurrency) {
        let (target, pictures, stop) = (Arc::clone(target), Arc::clone(pictures), Arc::clone(&stop));
        let quota = match until {
            Until::Elapsed(_) => u64::MAX,
            Until::Requests(total) => {
                total / u64::from(concurrency) + u64::from(index < total % u64::from(concurrency))
            }
        };
        workers.spawn(async move { worker(&target, &pictures, index as usize, quota, &stop).await });
    }
    if let Until::Elapsed(duration) = until {
        tokio::time::sleep(duration).await;
        stop.store(true, Ordering::Relaxed);
    }
    let mut results = Vec::new();
    while let Some(worker) = workers.join_next().await {
        results.push(worker.context("a connection's task ended early")?);
    }
    merge_workers(concurrency, results)
}

/// What all connections, or threads, saw together.
fn merge_workers(concurrency: u32, workers: impl IntoIterator<Item = Result<Measurement>>) -> Result<Measurement> {
    let mut measurement = Measurement::new(concurrency);
    for worker in workers {
        measurement.merge(worker?);
    }
    if measurement.latencies.is_empty() && measurement.errors.is_empty() {
        bail!("nothing was answered in the time given: measure longer");
    }
    Ok(measurement)
}

/// One connection: request after request, reconnecting where the server closed it.
async fn worker(
    target: &Target,
    pictures: &[Bytes],
    offset: usize,
    quota: u64,
    stop: &AtomicBool,
) -> Result<Measurement> {
    let mut measurement = Measurement::new(0);
    let mut connection = Connection::open(target).await?;
    for request in 0..quota {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let picture = pictures[(offset + request as usize) % pictures.len()].clone();
        let started = Instant::now();
        match connection.post(target, picture).await {
            Ok(status) if status.is_success() => measurement.latencies.push(started.elapsed()),
            Ok(status) => measurement.count_error(format!("status {}", status.as_u16())),
            Err(error) => {
                measurement.count_error(format!("{error:#}"));
                connection = Connection::open(target).await?;
            }
        }
    }
    Ok(measurement)
}
