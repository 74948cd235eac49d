//! `convoy tune`: how models are best run on this machine.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::engine::Runtime;
use crate::repository::tuning::{Measurement, Setup, TuneOptions, TuningCacheConfig, TuningReport};
use crate::repository::{ModelControlConfig, Repository};
use crate::telemetry::Metrics;

/// Measure how models are best run on this machine: in which batches, on how many instances, with how many threads
///
/// Numbers in a model's config.toml stand; what it does not name, or calls "auto", is chosen. The choice is cached, and a server
/// takes it from there for what its config.toml calls "auto". Nothing else should run meanwhile.
#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// The models [default: all of the repository]
    #[arg(value_name = "MODEL")]
    models: Vec<String>,

    /// Measure even if the cache has a choice
    #[arg(long)]
    fresh: bool,

    /// Measure every setup afterwards, and say how near to the best of them the choice is; takes minutes
    #[arg(long)]
    full: bool,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// The folder that holds the models
    #[arg(long, value_name = "DIR", default_value = "models", env = "CONVOY_MODEL_REPOSITORY")]
    model_repository: PathBuf,

    /// The folder in which choices are kept [default: ~/.cache/convoy/tuning]
    #[arg(long, value_name = "DIR", env = "CONVOY_TUNING_CACHE")]
    cache: Option<PathBuf>,

    /// ONNX Runtime's library [default: ORT_DYLIB_PATH, then beside the executable, then target/onnxruntime]
    #[arg(long, value_name = "FILE")]
    onnxruntime_library: Option<PathBuf>,
}

/// Tunes the models and prints what was measured; returns whether every one could be.
///
/// # Errors
/// When ONNX Runtime or the repository cannot be read, or the output cannot be written. A model that cannot be tuned is reported
/// and does not keep the others from being.
pub(super) fn run(args: &TuneArgs) -> Result<bool> {
    let runtime = Runtime::load(args.onnxruntime_library.as_deref())?;
    let cache = TuningCacheConfig { cache: args.cache.clone() }.folder();
    let repository = Repository::new(&args.model_repository, ModelControlConfig::default(), runtime, Metrics::new())
        .with_tuning_cache(cache);
    let names = if args.models.is_empty() { repository.tunable()? } else { args.models.clone() };
    ensure!(!names.is_empty(), "there are no models in {}", args.model_repository.display());
    let options = TuneOptions { is_fresh: args.fresh, is_full: args.full };
    let mut complete = true;
    let mut reports = Vec::new();
    let mut out = io::stdout().lock();
    for name in &names {
        match repository.tune(name, options) {
            Ok(report) if args.json => reports.push(report),
            Ok(report) => print(&mut out, &report)?,
            Err(error) => {
                complete = false;
                writeln!(io::stderr(), "error: {name}: {}", error.chain())?;
            }
        }
    }
    if args.json {
        serde_json::to_writer_pretty(&mut out, &reports)?;
        writeln!(out)?;
    }
    Ok(complete)
}

fn print(out: &mut impl Write, report: &TuningReport) -> io::Result<()> {
    let TuningReport { model_name, model_version, provider, cores, tuning, full_sweep } = report;
    let from = if tuning.is_cached { ", from the cache" } else { "" };
    writeln!(out, "{model_name}, version {model_version}, {provider}, {cores} cores{from}\n")?;
    print_table(out, &tuning.measurements, &[(tuning.choice, "chosen")])?;
    if let Some(sweep) = full_sweep {
        writeln!(out, "\nThe full sweep:\n")?;
        print_table(out, &sweep.measurements, &[(tuning.choice, "chosen"), (sweep.best, "best")])?;
        let percent = sweep.choice_of_best * 100.0;
        writeln!(out, "\nIn turn with the best, the choice has {percent:.1} % of its throughput.")?;
    }
    let Setup { max_batch_size, intra_op_threads, instances } = tuning.choice;
    writeln!(
        out,
        "\nmax_batch_size = {max_batch_size}\n\n[instances]\ncount = {instances}\nintra_op_threads = {intra_op_threads}\n"
    )
}

fn print_table(out: &mut impl Write, measurements: &[Measurement], notes: &[(Setup, &str)]) -> io::Result<()> {
    writeln!(out, "{:>9} {:>7} {:>5} {:>10} {:>9}", "INSTANCES", "THREADS", "BATCH", "IMAGES/S", "BATCH MS")?;
    for Measurement { setup, images_per_second, batch_latency_ms, .. } in measurements {
        let Setup { max_batch_size, intra_op_threads, instances } = setup;
        let notes: Vec<_> = notes.iter().filter(|(noted, _)| noted == setup).map(|(_, note)| *note).collect();
        let line = format!(
            "{instances:>9} {intra_op_threads:>7} {max_batch_size:>5} {images_per_second:>10.1} {batch_latency_ms:>9.1}  {}",
            notes.join(", ")
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
