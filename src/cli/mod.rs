//! The command line: one file a verb.
//!
//! Exit codes: 0 when all went well, 1 when the command failed, 2 when it was called wrongly.

mod bench;
mod classify;
mod describe;
mod environment;
mod explain;
mod export;
mod hash_key;
mod health;
mod list;
mod local;
mod pull;
mod serve;
mod tune;
mod variables;

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// An inference server for convolutional image classifiers.
#[derive(Debug, Parser)]
#[command(name = "convoy", version, about, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 when all went well, 1 when the command failed, 2 when it was called wrongly.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Classify(classify::ClassifyArgs),
    Explain(explain::ExplainArgs),
    Export(export::ExportArgs),
    Pull(pull::PullArgs),
    List(list::ListArgs),
    Describe(describe::DescribeArgs),
    Tune(tune::TuneArgs),
    Bench(bench::BenchArgs),
    HashKey(hash_key::HashKeyArgs),
    Health(health::HealthArgs),
}

impl Command {
    /// Whether it may load ONNX Runtime.
    fn loads_runtime(&self) -> bool {
        !matches!(self, Self::Pull(_) | Self::List(_) | Self::HashKey(_) | Self::Health(_))
    }
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let command = variables::parse::<Cli>().command;
    if command.loads_runtime() {
        environment::settle();
    }
    let complete = match command {
        Command::Serve(serve) => serve.run().map(|()| true),
        Command::Classify(args) => block_on(classify::run(&args)),
        Command::Explain(args) => until_closed(block_on(explain::run(&args))).map(|()| true),
        Command::Export(args) => export::run(&args).map(|()| true),
        Command::Pull(args) => pull::run(&args).map(|()| true),
        Command::List(args) => until_closed(list::run(&args)).map(|()| true),
        Command::Describe(args) => until_closed(describe::run(&args)).map(|()| true),
        Command::Tune(args) => tune::run(&args),
        Command::Bench(args) => block_on(bench::run(&args)),
        Command::HashKey(args) => hash_key::run(&args).map(|()| true),
        Command::Health(args) => health::run(&args).map(|()| true),
    };
    match complete {
        Ok(true) => ExitCode::SUCCESS,
        // The command has already said what failed.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // There is nobody left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads a long table may stop before its end, as `head` does. That is no failure.
fn until_closed(result: Result<()>) -> Result<()> {
    let Err(error) = result else { return Ok(()) };
    let kind = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<serde_json::Error>()) {
        (Some(error), _) => Some(error.kind()),
        (_, Some(error)) => error.io_error_kind(),
        _ => None,
    };
    if kind == Some(io::ErrorKind::BrokenPipe) { Ok(()) } else { Err(error) }
}

fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime does not start")?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(until_closed(Err(broken().into())).is_ok());
        assert!(until_closed(Err(serde_json::Error::io(broken()).into())).is_ok());
        assert!(until_closed(Err(io::Error::from(io::ErrorKind::StorageFull).into())).is_err());
        assert!(until_closed(Err(anyhow::anyhow!("there is no such network"))).is_err());
    }
}
