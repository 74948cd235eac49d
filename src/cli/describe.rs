//! `convoy describe`: what a network costs, layer by layer.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;

use crate::onnx;
use crate::zoo::describe::Description;
use crate::zoo::{Architecture, IMAGENET_CLASSES};

/// Show what a network costs for one picture: each layer's output shape, parameters, multiply-accumulates and memory.
#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// An architecture (`convoy list` names them) or an ONNX file.
    #[arg(value_name = "ARCHITECTURE|FILE")]
    network: String,

    /// With an architecture's side branches.
    #[arg(long)]
    aux: bool,

    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the description.
///
/// # Errors
/// When there is no such network, or standard output is closed.
pub(super) fn run(args: &DescribeArgs) -> Result<()> {
    let description = describe(&args.network, args.aux)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &description)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table(&description))?;
    }
    Ok(())
}

fn describe(network: &str, side_branches: bool) -> Result<Description> {
    let path = Path::new(network);
    match Architecture::find(network) {
        Ok(architecture) => {
            let graph = architecture.graph(IMAGENET_CLASSES);
            let graph = if side_branches { graph } else { graph.trunk() };
            Ok(Description::of_graph(network, &graph))
        }
        Err(_) if path.is_file() => Ok(Description::of_model(&onnx::read_model(path)?, None)?),
        Err(error) => bail!("{error}; nor is there a file {network}"),
    }
}

fn table(description: &Description) -> String {
    let mut rows = vec![["LAYER", "OPERATOR", "OUTPUT", "PARAMETERS", "MACS", "BYTES"].map(str::to_owned).to_vec()];
    rows.extend(description.layers.iter().map(|layer| {
        let shape = layer.output_shape.as_deref().map_or("?".to_owned(), shape);
        let costs = [layer.parameters, layer.macs, layer.activation_bytes].map(grouped);
        [vec![printable(&layer.name), printable(&layer.operator), shape], costs.to_vec()].concat()
    }));
    let totals = [description.parameters, description.macs, description.activation_bytes].map(grouped);
    rows.push([vec!["total".to_owned(), String::new(), String::new()], totals.to_vec()].concat());

    let width = |column: usize| rows.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..6).map(width).collect();
    let mut text = format!("{}, input {}\n\n", printable(&description.name), shape(&description.input_shape));
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            // Names to the left, numbers to the right.
            if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    for operator in &description.not_inferred {
        text += "\nThe output shape of ";
        text += &printable(operator);
        text += " cannot be inferred: what depends on it is not counted.\n";
    }
    text
}

/// A name out of a file, without what would tell a terminal to do something.
fn printable(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

/// `64x112x112`.
fn shape(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_described_by_name() {
        let text = table(&describe("alexnet", false).unwrap());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["alexnet,", "input", "3x224x224"]);
        // 64 filters of 3x11x11 and their biases, at 55x55 places.
        assert_eq!(lines[3], ["features.0", "Conv", "64x55x55", "23,296", "70,276,800", "774,400"]);
        assert_eq!(lines.last().unwrap()[..3], ["total", "61,100,840", "714,188,480"]);
        assert!(describe("googlenet", true).unwrap().parameters > describe("googlenet", false).unwrap().parameters);
    }

    #[test]
    fn what_is_neither_architecture_nor_file_is_told_so() {
        let error = describe("absent.onnx", false).unwrap_err().to_string();
        assert!(error.starts_with("there is no architecture absent.onnx"), "{error}");
        assert!(error.ends_with("nor is there a file absent.onnx"), "{error}");
    }

    #[test]
    fn a_file_cannot_command_the_terminal() {
        let mut description = describe("alexnet", false).unwrap();
        description.layers.truncate(1);
        description.layers[0].name = "é\x1b[2J\nfake".to_owned();
        description.name = "\x1b]0;title\x07".to_owned();
        description.not_inferred = vec!["Odd\r (node)".to_owned()];
        let text = table(&description);
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
        let columns: Vec<_> = text.lines().skip(2).take(2).map(|line| line.chars().count()).collect();
        assert_eq!(columns[0], columns[1], "{text}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 138_357_544].map(grouped), ["0", "999", "1,000", "138,357,544"]);
    }
}
