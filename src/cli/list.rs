//! `convoy list`: the architectures, what they cost, and how accurate published weights are.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::zoo::describe::Description;
use crate::zoo::published::{PUBLISHED, Published};
use crate::zoo::{ARCHITECTURES, Architecture, IMAGENET_CLASSES};

/// List the architectures, their costs, and the weights that can be pulled
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One architecture.
#[derive(Serialize)]
struct Entry {
    name: &'static str,
    title: &'static str,
    paper: &'static str,
    input_size: usize,
    parameters: u64,
    macs: u64,
    side_branches: Vec<&'static str>,
    weights: Vec<Weights>,
}

/// Weights that were published for it.
#[derive(Serialize)]
struct Weights {
    name: &'static str,
    /// What `convoy pull` downloads, where it can.
    file: Option<&'static str>,
    top1: f64,
    top5: Option<f64>,
    source: &'static str,
}

impl Entry {
    fn new(architecture: &Architecture) -> Self {
        let Architecture { name, title, paper, input_size, .. } = *architecture;
        let graph = architecture.graph(IMAGENET_CLASSES);
        let cost = Description::of_graph(name, &graph.trunk());
        let weights = |&Published { weights: name, file, top1, top5, source, .. }: &Published| Weights {
            name,
            file,
            top1,
            top5,
            source,
        };
        Self {
            name,
            title,
            paper,
            input_size,
            parameters: cost.parameters,
            macs: cost.macs,
            side_branches: graph.side_branches().iter().map(|branch| branch.name).collect(),
            weights: PUBLISHED.iter().filter(|it| it.architecture == name).map(weights).collect(),
        }
    }
}

/// Prints what there is.
///
/// # Errors
/// When standard output is closed.
pub(super) fn run(args: &ListArgs) -> Result<()> {
    let entries: Vec<_> = ARCHITECTURES.iter().map(Entry::new).collect();
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &entries)?;
        writeln!(out)?;
    } else {
        write_table(&entries, &mut out)?;
    }
    Ok(())
}

/// One line for each architecture, and one for each further weights of it.
fn write_table(entries: &[Entry], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<18} {:>11} {:>7} {:>5}  {:<13} {:>5} {:>5}  ACCURACY FROM",
        "ARCHITECTURE", "PARAMETERS", "GMACS", "INPUT", "WEIGHTS", "TOP-1", "TOP-5"
    )?;
    for Entry { name, parameters, macs, input_size, weights, .. } in entries {
        let costs = format!("{name:<18} {parameters:>11} {:>7.3} {input_size:>5}", *macs as f64 / 1e9);
        if weights.is_empty() {
            writeln!(out, "{costs}")?;
        }
        for (index, Weights { name, file, top1, top5, source }) in weights.iter().enumerate() {
            let costs = if index == 0 { costs.as_str() } else { "" };
            let name = if file.is_some() { (*name).to_owned() } else { format!("({name})") };
            let top5 = top5.map_or(String::new(), |top5| format!("{top5:.2}"));
            writeln!(out, "{costs:<44}  {name:<13} {top1:>5.2} {top5:>5}  {source}")?;
        }
    }
    writeln!(
        out,
        "\nParameters and multiply-accumulates are for one picture and 1000 classes, without side branches.\n\
         Accuracy is in percent on ImageNet's validation set, one crop. Weights in brackets cannot be pulled."
    )
}
