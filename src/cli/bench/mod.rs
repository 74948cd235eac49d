//! `convoy bench`: a load on a running server, over HTTP or gRPC, and what it took.

mod closed;
mod floor;
mod grpc;
mod http;
mod journal;
mod open;
mod report;
mod requests;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;

use self::closed::Load;
use self::journal::Journal;
use self::report::{Format, Measurement, Offered, Report};
use self::requests::{Common, Payload, Requests, TensorForm};
use self::target::Target;
use crate::engine::Runtime;
use crate::telemetry::Usage;

/// Load a running server and report throughput, latency and its CPU time
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The server: http://host:port, with a path where it is not to be /v1/classify or --model's, or grpc://host:port for
    /// convoy.v1.ImageClassifier; https:// and grpcs:// with --ca
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,

    /// The certificates (PEM) one of which has signed the server's, for https:// and grpcs://
    #[arg(long, value_name = "FILE", conflicts_with = "floor")]
    ca: Option<PathBuf>,

    /// The pictures to post, in turn
    #[arg(long, required_unless_present = "tensor", value_name = "PICTURE", num_args = 1..)]
    image: Vec<PathBuf>,

    /// Send a tensor of the model's input instead of a picture, by the Open Inference Protocol: what the server costs without
    /// decoding
    #[arg(long, value_enum, value_name = "FORM", requires = "model", conflicts_with_all = ["image", "floor"])]
    tensor: Option<TensorForm>,

    /// The model [default: the server's; with --floor or --tensor it must be named]
    #[arg(long)]
    model: Option<String>,

    /// Send all requests on one bidirectional stream of gRPC, --concurrency of them on their way at once
    #[arg(long, conflicts_with = "floor")]
    stream: bool,

    /// The key to send as `authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "CONVOY_KEY", hide_env_values = true)]
    key: Option<String>,

    /// The timeout that each request brings, in milliseconds [default: the model's]
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,

    /// Requests on their way at the same time, each on a connection of its own; several numbers are measured one after the
    /// other
    #[arg(long, default_value = "1,8,32", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: Vec<u32>,

    /// Requests a second, Poisson distributed and sent whether or not the server keeps up (an open loop), instead of
    /// --concurrency; latencies count from when a request was due. Several numbers are measured one after the other. Ctrl-C
    /// ends a measurement early, and the report says what was seen
    #[arg(long, value_delimiter = ',', value_name = "PER_SECOND", conflicts_with_all = ["concurrency", "stream", "requests", "floor"])]
    rate: Vec<f64>,

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

    /// With --floor, the model's version
    #[arg(long, default_value_t = 1)]
    version: u64,

    /// With --floor, the folder that holds the models
    #[arg(long, value_name = "DIR", default_value = "models", env = "CONVOY_MODEL_REPOSITORY")]
    model_repository: PathBuf,

    /// With --floor, ONNX Runtime's library [default: ORT_DYLIB_PATH, then beside the executable, then target/onnxruntime]
    #[arg(long, value_name = "FILE")]
    onnxruntime_library: Option<PathBuf>,

    /// With --rate, a file for what was not answered with success: when each request was due (Unix time in milliseconds), how
    /// long it took, and what was said, as CSV
    #[arg(long, value_name = "FILE", requires = "rate")]
    failures: Option<PathBuf>,

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

/// Runs the measurements and prints the report; returns whether no request failed. A refusal is no failure, unless nothing else
/// came.
///
/// # Errors
/// When a picture cannot be read, the address is malformed, the server cannot be reached, or `--pid` names no process.
pub(super) async fn run(args: &BenchArgs) -> Result<bool> {
    ensure!(args.duration_s > 0.0 && args.warmup_s >= 0.0, "durations cannot be negative, nor the measurement's zero");
    ensure!(args.rate.iter().all(|rate| rate.is_finite() && *rate > 0.0), "--rate must be a number above 0");
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
    Ok(measurements.iter().all(Measurement::is_success))
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

async fn measure_server(args: &BenchArgs, pictures: &[Bytes], until: Until) -> Result<Vec<Measurement>> {
    let target = Arc::new(Target::parse(&args.url, args.ca.as_deref())?);
    let payload = args.tensor.map_or(Payload::Pictures(pictures), Payload::Tensor);
    let common = Common {
        model: args.model.as_deref(),
        key: args.key.as_deref(),
        timeout_ms: args.timeout_ms,
        is_stream: args.stream,
    };
    let requests = Arc::new(Requests::prepare(&target, payload, common).await?);
    if args.rate.is_empty() {
        measure_closed(args, &target, &requests, until).await
    } else {
        measure_open(args, &target, &requests).await
    }
}

async fn measure_open(args: &BenchArgs, target: &Arc<Target>, requests: &Arc<Requests>) -> Result<Vec<Measurement>> {
    let (warmup, duration) = (Duration::from_secs_f64(args.warmup_s), Duration::from_secs_f64(args.duration_s));
    let mut measurements = Vec::new();
    let mut journal = Journal::new();
    for &rate in &args.rate {
        let load = open::Load { rate, warmup, duration, pid: args.pid };
        measurements.push(open::run(target, requests, load, &mut journal).await?);
    }
    if let Some(path) = &args.failures {
        journal.write(path)?;
    }
    Ok(measurements)
}

async fn measure_closed(
    args: &BenchArgs,
    target: &Arc<Target>,
    requests: &Arc<Requests>,
    until: Until,
) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for &concurrency in &args.concurrency {
        let load = Load { concurrency, is_stream: args.stream };
        if args.warmup_s > 0.0 {
            closed::run(target, requests, load, Until::Elapsed(Duration::from_secs_f64(args.warmup_s))).await?;
        }
        let before = args.pid.map(Usage::of).transpose()?;
        let started = Instant::now();
        let mut measurement = closed::run(target, requests, load, until).await?;
        measurement.elapsed = started.elapsed();
        if let (Some(pid), Some(before)) = (args.pid, before) {
            measurement.note_usage(before, Usage::of(pid)?);
        }
        measurements.push(measurement);
    }
    Ok(measurements)
}

/// What all connections, or threads, saw together.
fn merge_workers(concurrency: u32, workers: impl IntoIterator<Item = Result<Measurement>>) -> Result<Measurement> {
    let mut measurement = Measurement::new(Offered::Concurrency(concurrency));
    for worker in workers {
        measurement.merge(worker?);
    }
    if measurement.is_empty() {
        bail!("nothing was answered in the time given: measure longer");
    }
    Ok(measurement)
}
