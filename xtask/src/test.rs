//! `cargo xtask test`: the set-up, the photographs, the real clients and what looks at the page, then every test of the workspace.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::pins::{self, Device};
use crate::process;
use crate::setup;
use crate::venv;

/// Runs every test. `arguments` go to `cargo test`: a filter, for instance.
///
/// # Errors
/// When the set-up fails, or a test does.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    let ready = setup::setup(Device::Cpu)?;
    pins::photos().ensure()?;
    pins::axe().ensure()?;
    venv::ensure()?;
    pins::kubernetes_schemas().ensure()?;
    if let Some(kubectl) = pins::kubectl() {
        kubectl.program("kubectl")?;
    }

    let mut cargo = process::cargo();
    cargo.args(["test", "--locked", "--workspace"]).args(arguments).stdout(Stdio::piped());
    if env::var_os("ORT_DYLIB_PATH").is_none() {
        cargo.env("ORT_DYLIB_PATH", ready.onnxruntime);
    }
    let mut child = cargo.spawn().context("cargo could not be started")?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        counts.add(&line);
        println!("{line}");
    }
    let status = child.wait()?;
    // cargo reports one binary at a time; this is the sum.
    println!("\n{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    if !status.success() {
        bail!("the tests failed ({status})");
    }
    Ok(())
}

/// Sums over the `test result:` lines of all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds the counts of a `test result: ok. 3 passed; 0 failed; 1 ignored; …` line; other lines say nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            let mut words = count.split(' ');
            let number = words.next().and_then(|number| number.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_binaries_are_summed() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test something ... ok",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.10s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 5, failed: 4, ignored: 1 });
    }
}
