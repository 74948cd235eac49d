//! The command line: one file a verb.
//!
//! Exit codes: 0 when all went well, 1 when the command failed, 2 when it was called wrongly.

mod serve;

use std::io::Write;
use std::process::ExitCode;

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
    Serve(serve::Serve),
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
