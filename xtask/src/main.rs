//! convoy's development tasks, as `cargo xtask <verb>`: one file a verb.
//!
//! xtask knows the server only as a program that it builds and starts; it shares no code with it, so that `cargo xtask`
//! compiles in seconds.

mod archive;
mod bench;
mod bundle;
mod ci;
mod docker_test;
mod pins;
mod process;
mod progress;
mod serve;
mod setup;
mod stage;
mod test;
mod venv;
mod wheel;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::pins::Device;

const USAGE: &str = "\
Usage: cargo xtask <VERB>

  setup [--gpu]               fetch ONNX Runtime, the weights and the labels, build the server, write the model
  serve [--gpu] [-- ARGS...]  set up, then run the server; ARGS go to `convoy serve`
  test [-- ARGS...]           set up, then run every test; ARGS go to `cargo test`, a filter for instance
  bench [-- PARTS...]         set up, then measure: the server beside its floor (floor), HTTP and gRPC (protocols),
                              overload (overload), memory (memory, reloads), explanations (explanations); all where
                              none is named. `--seconds S`: so long a measurement
  fetch [--gpu]               fetch what the server and its example model are made from, and build nothing
  stage [--gpu] FOLDER        set up, then copy into FOLDER what an image installs: binary, libraries, model
  docker-test [-- OPTIONS...] build the images, run three replicas behind HAProxy, and restart, kill, freeze and scale them under
                              load; `--if-possible`, `--image NAME`, `--rate R`
  ci                          fmt, cargo-deny, clippy, rustdoc and every test: what a change must pass

--gpu takes ONNX Runtime's CUDA build instead of the CPU's.
Everything is downloaded, unpacked and built under target/; the model's files go to models/.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    // What stands after `--` belongs to the program that the verb starts.
    let (ours, theirs) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[] as &[String]),
    };
    let words: Vec<&str> = ours.iter().map(String::as_str).collect();
    match (words.as_slice(), theirs) {
        (["setup"], []) => setup::setup(Device::Cpu).map(drop),
        (["setup", "--gpu"], []) => setup::setup(Device::Gpu).map(drop),
        (["serve"], arguments) => serve::serve(Device::Cpu, arguments),
        (["serve", "--gpu"], arguments) => serve::serve(Device::Gpu, arguments),
        (["test"], arguments) => test::test(arguments),
        (["fetch"], []) => setup::fetch(Device::Cpu),
        (["fetch", "--gpu"], []) => setup::fetch(Device::Gpu),
        (["stage", folder], []) if !folder.starts_with('-') => stage::stage(Device::Cpu, folder),
        (["stage", "--gpu", folder], []) => stage::stage(Device::Gpu, folder),
        (["bench"], arguments) => bench::bench(arguments),
        (["docker-test"], arguments) => docker_test::docker_test(arguments),
        (["ci"], []) => ci::ci(),
        ([] | ["help" | "-h" | "--help"], []) => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("`cargo xtask {}` is not a task\n\n{USAGE}", arguments.join(" ")),
    }
}
