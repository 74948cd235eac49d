//! `cargo xtask bench`: the server beside its floor, on one machine, in one run.
//!
//! The floor is decoding, preprocessing and ONNX Runtime in a bare loop, one thread a core. What the server needs beyond
//! that is its own cost. The machine may be busy with other things, so floor and server take turns, and what counts is their
//! ratio.

mod explanations;
mod overload;
mod protocols;
mod reloads;
mod server;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};

use self::server::{Cores, Payload, Protocol, Server, Way};
use self::table::{Row, Table};
use crate::pins::Device;
use crate::process;
use crate::progress;
use crate::setup::{self, Ready};

/// A model to measure, as `convoy export` makes it.
struct Model {
    name: &'static str,
    /// What the server's CPU time for an image may be at concurrency 8, in floors.
    cpu_target: f64,
}

const MODELS: [Model; 2] =
    [Model { name: "efficientnet-lite0", cpu_target: 1.15 }, Model { name: "resnet50", cpu_target: 1.05 }];
const PICTURES: [(&str, usize, usize); 2] = [("500x375", 500, 375), ("12 megapixels", 4000, 3000)];
const CONCURRENCIES: [u32; 3] = [1, 8, 32];
/// The server's throughput at concurrency 8 should be at least this, in floors.
const THROUGHPUT_TARGET: f64 = 0.93;
/// Requests after which the server's memory is read, and read again.
const MEMORY_AFTER: [u64; 2] = [1_000, 10_000];
const DEFAULT_SECONDS: f64 = 10.0;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The server beside its floor.
    Floor,
    /// The protocols beside each other.
    Protocols,
    /// More load than the server can take.
    Overload,
    /// Resident memory over many requests.
    Memory,
    /// Resident memory over many loads.
    Reloads,
    /// Explanations beside requests, and what each takes.
    Explanations,
}

impl Part {
    const ALL: [(&str, Self); 6] = [
        ("floor", Self::Floor),
        ("protocols", Self::Protocols),
        ("overload", Self::Overload),
        ("memory", Self::Memory),
        ("reloads", Self::Reloads),
        ("explanations", Self::Explanations),
    ];
}

/// Measures and prints Markdown tables. `arguments`: the parts to measure (`floor`, `protocols`, `overload`,
/// `memory`, `reloads`, `explanations`; all where none is named), and `--seconds S` for each measurement.
///
/// # Errors
/// When the set-up fails, or a measurement does.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let (parts, seconds) = parse(arguments)?;
    let ready = setup::setup(Device::Cpu)?;
    let folder = process::target().join("bench");
    let pictures = make_pictures(&ready, &folder)?;
    let bench = Bench { ready, folder, seconds, cores: thread::available_parallelism().map_or(1, usize::from) };
    println!("`cargo xtask bench`, {} cores, {seconds} s a measurement\n", bench.cores);
    for part in parts {
        match part {
            Part::Floor => bench.measure_models(&pictures)?,
            Part::Protocols => protocols::measure(&bench, &pictures[0].1)?,
            Part::Overload => overload::measure(&bench, &pictures[0].1)?,
            Part::Memory => bench.measure_memory(&pictures[0].1)?,
            Part::Reloads => reloads::measure(&bench, &pictures[0].1)?,
            Part::Explanations => explanations::measure(&bench, &pictures[0].1)?,
        }
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<(Vec<Part>, f64)> {
    let (mut parts, mut seconds) = (Vec::new(), DEFAULT_SECONDS);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--seconds" {
            seconds = arguments.next().and_then(|text| text.parse().ok()).context("--seconds takes a number")?;
        } else if let Some((_, part)) = Part::ALL.iter().find(|(name, _)| name == argument) {
            parts.push(*part);
        } else {
            let names = Part::ALL.map(|(name, _)| name).join(", ");
            bail!("`cargo xtask bench` measures {names}, and takes --seconds S; not {argument}");
        }
    }
    if parts.is_empty() {
        parts = Part::ALL.map(|(_, part)| part).to_vec();
    }
    Ok((parts, seconds))
}

struct Bench {
    ready: Ready,
    folder: PathBuf,
    seconds: f64,
    cores: usize,
}

impl Bench {
    fn measure_models(&self, pictures: &[(&str, PathBuf)]) -> Result<()> {
        for model in &MODELS {
            let repository = self.make_repository(model)?;
            for (label, picture) in pictures {
                progress::say(&format!("measuring {} with {label}", model.name));
                self.measure(model, &repository, label, picture)?;
            }
        }
        Ok(())
    }

    fn start(&self, repository: &Path) -> Result<Server> {
        self.start_on(repository, Cores::Shared)
    }

    fn start_on(&self, repository: &Path, cores: Cores) -> Result<Server> {
        Server::start(repository, &self.ready.onnxruntime, &self.folder.join("server.log"), cores, &[])
    }

    /// A repository with nothing but this model, so that memory and start-up are its own.
    fn make_repository(&self, model: &Model) -> Result<PathBuf> {
        let repository = self.folder.join(model.name);
        let folder = repository.join(model.name);
        if folder.join("1/model.onnx").is_file() {
            return Ok(repository);
        }
        if model.name == "efficientnet-lite0" {
            copy_model(&self.ready.models.join(model.name), &folder)?;
        } else {
            let mut export = Command::new(process::convoy());
            export.args(["export", model.name, "--weights", "random:1"]);
            process::run(export.arg("--output").arg(folder.join("1/model.onnx")))?;
        }
        Ok(repository)
    }

    /// Floor, server, floor: the mean of the two floors stands beside the server.
    fn measure(&self, model: &Model, repository: &Path, label: &str, picture: &Path) -> Result<()> {
        let before = self.floor(model, repository, picture)?;
        let server = self.start(repository)?;
        let rows = server.load(Way::http(picture), &CONCURRENCIES, self.seconds)?;
        let grpc = Way { protocol: Protocol::Grpc, payload: Payload::Picture(picture) };
        let grpc = server.load_once(grpc, 8, self.seconds)?;
        let ready_ms = server.ready_ms();
        server.stop()?;
        let after = self.floor(model, repository, picture)?;
        let floor = Row::median(&[before, after]);
        println!("{} with a JPEG of {label} (ready after {ready_ms:.0} ms)\n", model.name);
        let table = Table { floor, rows, grpc };
        println!("{table}");
        println!("{}\n", table.verdict(model.cpu_target, THROUGHPUT_TARGET));
        Ok(())
    }

    fn floor(&self, model: &Model, repository: &Path, picture: &Path) -> Result<Row> {
        let mut floor = Command::new(process::convoy());
        floor.args(["bench", "--format", "csv", "--floor", "--model", model.name]);
        floor.args(["--concurrency", &self.cores.to_string(), "--duration-s", &self.seconds.to_string()]);
        floor.arg("--model-repository").arg(repository).arg("--image").arg(picture);
        floor.env("ORT_DYLIB_PATH", &self.ready.onnxruntime);
        let rows = table::parse(&server::output(&mut floor)?)?;
        rows.into_iter().next().context("the floor has no measurement")
    }

    fn measure_memory(&self, picture: &Path) -> Result<()> {
        let repository = self.folder.join(MODELS[0].name);
        let server = self.start(&repository)?;
        let mut sizes = Vec::new();
        let mut sent = 0;
        for requests in MEMORY_AFTER {
            progress::say(&format!("measuring memory after {requests} requests"));
            sizes.push(server.requests(picture, requests - sent)?.rss_mib);
            sent = requests;
        }
        server.stop()?;
        println!(
            "Resident memory of {} after {} requests: {:.0} MiB; after {}: {:.0} MiB ({:+.1} %)",
            MODELS[0].name,
            MEMORY_AFTER[0],
            sizes[0],
            MEMORY_AFTER[1],
            sizes[1],
            (sizes[1] / sizes[0] - 1.0) * 100.0
        );
        Ok(())
    }
}

/// Copies what a model's folder has to another.
fn copy_model(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.join("1"))?;
    for file in ["config.toml", "labels.txt", "1/model.onnx"] {
        fs::copy(from.join(file), to.join(file))?;
    }
    Ok(())
}

/// The pictures' labels and files, enlarged from the photograph that the set-up fetched.
fn make_pictures(ready: &Ready, folder: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    fs::create_dir_all(folder)?;
    let mut pictures = Vec::new();
    for (label, width, height) in PICTURES {
        let path = folder.join(format!("{width}x{height}.jpg"));
        if !path.is_file() {
            let mut enlarge = process::cargo();
            enlarge.args(["run", "--release", "--locked", "--quiet", "--example", "enlarge_photo", "--"]);
            enlarge.arg(&ready.photo).arg(&path).args([width.to_string(), height.to_string()]);
            process::run(&mut enlarge)?;
        }
        pictures.push((label, path));
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_seconds_come_in_any_order() {
        let parse = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("").unwrap(), (Part::ALL.map(|(_, part)| part).to_vec(), DEFAULT_SECONDS));
        assert_eq!(parse("memory --seconds 2.5 floor").unwrap(), (vec![Part::Memory, Part::Floor], 2.5));
        for line in ["--seconds", "--seconds soon", "everything"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
