//! Explanations: what they take from requests, and what each takes beside a run of the model.
//!
//! Requests keep the server busy throughout, so that whatever explanations get, requests lose.

use std::path::Path;

use anyhow::Result;

use super::server::{Way, output};
use super::table::{Row, median, said};
use super::{Bench, MODELS, Model};
use crate::{process, progress};

/// What is asked for without pause: runs of little, and of much, on graphs of their own, and runs of the model itself.
const QUERIES: [(&str, &str); 3] =
    [("cam", "method=cam"), ("guided, of the class", "method=guided"), ("occlusion", "method=occlusion")];
/// What an explanation may take of a core that requests want.
const SHARE: f64 = 0.1;
/// Each is measured so often, in turn with the others; the median counts.
const ROUNDS: usize = 3;

/// Measures both and prints Markdown.
pub(super) fn measure(bench: &Bench, picture: &Path) -> Result<()> {
    println!("Explanations, one after the other, beside 8 connections that classify\n");
    for model in &MODELS {
        measure_share(bench, model, picture)?;
    }
    progress::say("measuring explanations by themselves");
    let mut example = process::cargo();
    example.args(["run", "--release", "--locked", "--quiet", "--example", "explain_costs", "--"]);
    example.arg(picture).env("ORT_DYLIB_PATH", &bench.ready.onnxruntime);
    println!("{}", output(&mut example)?);
    Ok(())
}

fn measure_share(bench: &Bench, model: &Model, picture: &Path) -> Result<()> {
    progress::say(&format!("measuring {} beside explanations", model.name));
    let server = bench.start(&bench.make_repository(model)?)?;
    let classify = || server.load_once(Way::http(picture), 8, bench.seconds);
    let (mut alone, mut beside) = (Vec::new(), vec![Vec::new(); QUERIES.len()]);
    for _ in 0..ROUNDS {
        alone.push(classify()?);
        for ((_, query), beside) in QUERIES.iter().zip(&mut beside) {
            beside.push(server.while_explaining(model.name, query, picture, classify)?);
        }
    }
    server.stop()?;
    let alone = Row::median(&alone);
    println!("{}\n", model.name);
    println!("| explained meanwhile | images/s | of alone | p99 ms | of alone | explanations/s | errors |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let line = |name: &str, row: &Row, explained: f64| {
        let (rate, p99) = (row.images_per_s / alone.images_per_s, row.p99_ms / alone.p99_ms);
        println!(
            "| {name} | {:.1} | {rate:.3} | {:.0} | {p99:.2} | {explained:.2} | {:.0} |",
            row.images_per_s,
            row.p99_ms,
            row.unanswered()
        );
        rate
    };
    line("nothing", &alone, 0.0);
    let mut least = f64::INFINITY;
    for ((name, _), beside) in QUERIES.iter().zip(beside) {
        let (rows, rates): (Vec<_>, Vec<_>) = beside.into_iter().unzip();
        least = least.min(line(name, &Row::median(&rows), median(rates.into_iter())));
    }
    let target = 1.0 - SHARE / bench.cores as f64;
    println!("\nThroughput is at least {least:.3} of that alone (at least {target:.3}: {}).\n", said(least >= target));
    Ok(())
}
