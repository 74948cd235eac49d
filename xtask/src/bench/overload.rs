//! The server under more load than it can take: an open loop at multiples of its capacity, each request with a deadline.
//!
//! The load has the last core to itself (taskset), since what it takes grows with the rate and would pass for the server's own
//! loss.

use std::path::Path;

use anyhow::{Result, ensure};

use super::server::{Cores, Way};
use super::table::{Row, said};
use super::{Bench, MODELS, Model};
use crate::progress;

/// Rates, in capacities. Up to 1 the server is meant to answer everything.
const LOADS: [f64; 6] = [0.5, 0.8, 1.0, 2.0, 4.0, 10.0];
/// The deadline, in times of one picture alone.
const DEADLINE: f64 = 10.0;
/// What goodput under overload should be at least, of its peak.
const GOODPUT_TARGET: f64 = 0.95;
const REFUSAL_TARGET_MS: f64 = 5.0;
/// What memory at the greatest load may be at most, of that at the first load over capacity.
const MEMORY_TARGET: f64 = 1.05;
/// Each load is measured so often, in turn with the others; the median counts.
const ROUNDS: usize = 3;

/// Measures each model and prints Markdown.
pub(super) fn measure(bench: &Bench, picture: &Path) -> Result<()> {
    ensure!(bench.cores > 1, "the server and its load need a core each");
    println!("Under overload, the server on {} of {} cores and the load on the last\n", bench.cores - 1, bench.cores);
    for model in &MODELS {
        measure_model(bench, model, picture)?;
    }
    Ok(())
}

fn measure_model(bench: &Bench, model: &Model, picture: &Path) -> Result<()> {
    progress::say(&format!("measuring {} under overload", model.name));
    let server = bench.start_on(&bench.make_repository(model)?, Cores::Apart(bench.cores))?;
    let alone_ms = server.load_once(Way::http(picture), 1, bench.seconds)?.p50_ms;
    let capacity = server.load_once(Way::http(picture), 8, bench.seconds)?.images_per_s;
    let deadline_ms = (DEADLINE * alone_ms).round();
    let mut measured = vec![Vec::new(); LOADS.len()];
    for _ in 0..ROUNDS {
        for (load, measured) in LOADS.iter().zip(&mut measured) {
            measured.push(server.offer(picture, load * capacity, deadline_ms as u64, bench.seconds)?);
        }
    }
    server.stop()?;
    let rows: Vec<(f64, Row)> = LOADS.into_iter().zip(measured.iter().map(|rows| Row::median(rows))).collect();
    print_table(model, alone_ms, capacity, deadline_ms, &rows);
    Ok(())
}

fn print_table(model: &Model, alone_ms: f64, capacity: f64, deadline_ms: f64, rows: &[(f64, Row)]) {
    println!(
        "{}: one picture alone takes {alone_ms:.1} ms, 8 connections get {capacity:.1} images/s, deadline {deadline_ms:.0} ms\n",
        model.name
    );
    let peak = rows.iter().map(|(_, row)| row.images_per_s).fold(capacity, f64::max);
    println!(
        "| load | requests/s | goodput/s | of peak | p50 ms | p99 ms | expired | refused | their p99 ms | server's CPU | \
         RSS MiB | errors |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (load, row) in rows {
        println!(
            "| {load} × | {:.0} | {:.1} | {:.3} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} | {:.0} | {:.0} |",
            load * capacity,
            row.images_per_s,
            row.images_per_s / peak,
            row.p50_ms,
            row.p99_ms,
            row.expired,
            row.refused,
            row.refused_p99_ms,
            row.cpu_ms_per_image * row.images_per_s / 1e3,
            row.rss_mib,
            row.errors,
        );
    }
    println!("\n{}\n", verdict(peak, deadline_ms, rows));
}

/// One sentence: what was to be reached over capacity, and what was.
fn verdict(peak: f64, deadline_ms: f64, rows: &[(f64, Row)]) -> String {
    let over: Vec<&Row> = rows.iter().filter(|(load, _)| *load > 1.0).map(|(_, row)| row).collect();
    let most = |value: fn(&Row) -> f64| over.iter().map(|row| value(row)).fold(0.0, f64::max);
    let goodput = over.iter().map(|row| row.images_per_s).fold(f64::INFINITY, f64::min) / peak;
    let (p99, refusal, errors) = (most(|row| row.p99_ms), most(|row| row.refused_p99_ms), most(|row| row.errors));
    let memory = most(|row| row.rss_mib) / over.first().map_or(f64::NAN, |row| row.rss_mib);
    format!(
        "Over capacity: goodput at least {goodput:.3} of its peak (at least {GOODPUT_TARGET}: {}); p99 of what was accepted at \
         most {p99:.0} ms (at most {deadline_ms:.0}: {}); refusals' p99 at most {refusal:.1} ms (at most \
         {REFUSAL_TARGET_MS}: {}); memory at most {memory:.3} of that at the first (at most {MEMORY_TARGET}: {}); errors \
         {errors:.0} (0: {}).",
        said(goodput >= GOODPUT_TARGET),
        said(p99 <= deadline_ms),
        said(refusal <= REFUSAL_TARGET_MS),
        said(memory <= MEMORY_TARGET),
        said(errors < 0.5),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_of_the_worst_row_over_capacity() {
        let row = |images_per_s, p99_ms, refused_p99_ms, rss_mib| Row {
            concurrency: 0.0,
            images_per_s,
            p50_ms: 1.0,
            p99_ms,
            refused: 1.0,
            refused_p99_ms,
            expired: 0.0,
            errors: 0.0,
            cpu_ms_per_image: 1.0,
            rss_mib,
        };
        let rows = [
            (1.0, row(100.0, 900.0, 90.0, 10.0)),
            (2.0, row(99.0, 80.0, 1.0, 100.0)),
            (4.0, row(90.0, 101.0, 2.0, 104.0)),
            (10.0, row(96.0, 90.0, 6.0, 106.0)),
        ];
        let verdict = verdict(100.0, 100.0, &rows);
        for part in [
            "0.900 of its peak (at least 0.95: missed)",
            "at most 101 ms (at most 100: missed)",
            "at most 6.0 ms (at most 5: missed)",
            "at most 1.060 of that at the first (at most 1.05: missed)",
            "errors 0 (0: reached)",
        ] {
            assert!(verdict.contains(part), "{part}: {verdict}");
        }
    }
}
