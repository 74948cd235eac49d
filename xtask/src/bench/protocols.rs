//! What the protocols cost beside the model: the front end's CPU time for a request with a trivial model and a small tensor,
//! and one stream beside many connections.

use std::path::Path;

use anyhow::Result;

use super::server::{Payload, Protocol, Way};
use super::table::{Row, median, said};
use super::{Bench, MODELS};
use crate::{process, progress};

const TRIVIAL: &str = "trivial";
/// The front end's CPU time for a request in a binary form should be at most this.
const FRONT_END_TARGET_US: f64 = 60.0;
/// One stream's throughput should be at least this, in that of as many connections.
const STREAM_TARGET: f64 = 0.95;
/// Requests on their way, on one stream or on as many connections.
const IN_FLIGHT: u32 = 64;
/// Each way is measured so often, in turn with the others; the median counts.
const ROUNDS: usize = 3;

/// Measures both and prints Markdown.
pub(super) fn measure(bench: &Bench, picture: &Path) -> Result<()> {
    front_end(bench)?;
    streams(bench, picture)
}

fn front_end(bench: &Bench) -> Result<()> {
    progress::say("measuring the front end");
    let repository = bench.folder.join(TRIVIAL);
    let mut example = process::cargo();
    example.args(["run", "--release", "--locked", "--quiet", "--example", "trivial_model", "--"]);
    process::run(example.arg(repository.join(TRIVIAL)))?;
    let server = bench.start(&repository)?;
    let tensor = |form| Payload::Tensor { model: TRIVIAL, form };
    let ways = [
        ("HTTP, JSON", Way { protocol: Protocol::Http, payload: tensor("json") }),
        ("HTTP, binary", Way { protocol: Protocol::Http, payload: tensor("binary") }),
        ("gRPC, unary", Way { protocol: Protocol::Grpc, payload: tensor("binary") }),
        ("gRPC, one stream", Way { protocol: Protocol::Stream, payload: tensor("binary") }),
    ];
    let mut measured = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, way), measured) in ways.iter().zip(&mut measured) {
            let row = server.load_once(*way, 8, bench.seconds)?;
            measured.push((row.cpu_ms_per_image * 1e3, row.images_per_s, row.unanswered()));
        }
    }
    server.stop()?;
    println!("Server CPU time for a request, trivial model, 8×8 picture as FP32, 8 requests on their way\n");
    println!("| | CPU µs/request | requests/s | errors |\n|---|---:|---:|---:|");
    let mut worst: f64 = 0.0;
    for ((name, way), measured) in ways.iter().zip(&measured) {
        let cpu = median(measured.iter().map(|(cpu, ..)| *cpu));
        if !matches!(way.payload, Payload::Tensor { form: "json", .. }) {
            worst = worst.max(cpu);
        }
        let errors: f64 = measured.iter().map(|(.., errors)| errors).sum();
        println!("| {name} | {cpu:.0} | {:.0} | {errors:.0} |", median(measured.iter().map(|(_, rate, _)| *rate)));
    }
    println!(
        "\nThe binary forms take at most {worst:.0} µs (at most {FRONT_END_TARGET_US:.0}: {}).\n",
        said(worst <= FRONT_END_TARGET_US)
    );
    Ok(())
}

fn streams(bench: &Bench, picture: &Path) -> Result<()> {
    progress::say("measuring one stream beside many connections");
    let server = bench.start(&bench.make_repository(&MODELS[0])?)?;
    let way = |protocol| Way { protocol, payload: Payload::Picture(picture) };
    let ways = [
        (format!("gRPC, {IN_FLIGHT} connections"), way(Protocol::Grpc)),
        (format!("gRPC, one stream, {IN_FLIGHT} requests on their way"), way(Protocol::Stream)),
        (format!("HTTP, {IN_FLIGHT} connections"), way(Protocol::Http)),
    ];
    let mut measured = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, way), measured) in ways.iter().zip(&mut measured) {
            measured.push(server.load_once(*way, IN_FLIGHT, bench.seconds)?);
        }
    }
    server.stop()?;
    println!("{} with a photograph\n", MODELS[0].name);
    println!("| | images/s | of the connections' | CPU ms/image | p99 ms | errors |\n|---|---:|---:|---:|---:|---:|");
    let rate = |index: usize| median(measured[index].iter().map(|row| row.images_per_s));
    for (index, (name, _)) in ways.iter().enumerate() {
        let rows = &measured[index];
        println!(
            "| {name} | {:.1} | {:.2} | {:.2} | {:.0} | {:.0} |",
            rate(index),
            rate(index) / rate(0),
            median(rows.iter().map(|row| row.cpu_ms_per_image)),
            median(rows.iter().map(|row| row.p99_ms)),
            rows.iter().map(Row::unanswered).sum::<f64>(),
        );
    }
    let ratio = rate(1) / rate(0);
    println!(
        "\nOne stream reaches {ratio:.3} of the connections' throughput (at least {STREAM_TARGET}: {}).\n",
        said(ratio >= STREAM_TARGET)
    );
    Ok(())
}
