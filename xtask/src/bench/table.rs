//! Measurements, read from `convoy bench --format csv` and set beside their floor.

use std::fmt;

use anyhow::{Context, Result};

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Requests on their way at once; 0 in an open loop.
    pub(super) concurrency: f64,
    pub(super) images_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) refused: f64,
    /// 0 where none was.
    pub(super) refused_p99_ms: f64,
    pub(super) expired: f64,
    pub(super) errors: f64,
    pub(super) cpu_ms_per_image: f64,
    pub(super) rss_mib: f64,
}

impl Row {
    /// The median of several measurements of the same thing, of two their mean. Errors are added up: none is to be lost.
    pub(super) fn median(rows: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(rows.iter().map(value));
        Self {
            concurrency: of(|row| row.concurrency),
            images_per_s: of(|row| row.images_per_s),
            p50_ms: of(|row| row.p50_ms),
            p99_ms: of(|row| row.p99_ms),
            refused: of(|row| row.refused),
            refused_p99_ms: of(|row| row.refused_p99_ms),
            expired: of(|row| row.expired),
            errors: rows.iter().map(|row| row.errors).sum(),
            cpu_ms_per_image: of(|row| row.cpu_ms_per_image),
            rss_mib: of(|row| row.rss_mib),
        }
    }

    /// How many requests were not answered with success, for whatever reason.
    pub(super) fn unanswered(&self) -> f64 {
        self.errors + self.refused + self.expired
    }
}

/// The value in the middle, or the mean of the two that are.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => at(count / 2),
        count => f64::midpoint(at(count / 2 - 1), at(count / 2)),
    }
}

/// Reads the rows of `convoy bench --format csv`.
pub(super) fn parse(csv: &str) -> Result<Vec<Row>> {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().context("the report is empty")?.split(',').collect();
    lines
        .map(|line| {
            let values: Vec<&str> = line.split(',').collect();
            let cell = |name: &str| {
                let at = names.iter().position(|other| *other == name);
                at.and_then(|at| values.get(at).copied()).with_context(|| format!("the report has no {name}: {line}"))
            };
            let number = |name: &str, text: &str| {
                text.parse::<f64>().with_context(|| format!("the report's {name} is no number: {line}"))
            };
            let value = |name: &str| number(name, cell(name)?);
            // What does not apply is empty.
            let value_or_0 = |name: &str| match cell(name)? {
                "" => Ok(0.0),
                text => number(name, text),
            };
            Ok(Row {
                concurrency: value_or_0("concurrency")?,
                images_per_s: value("images_per_s")?,
                p50_ms: value("p50_ms")?,
                p99_ms: value("p99_ms")?,
                refused: value("refused")?,
                refused_p99_ms: value_or_0("refused_p99_ms")?,
                expired: value("expired")?,
                errors: value("errors")?,
                cpu_ms_per_image: value("cpu_ms_per_image")?,
                rss_mib: value("rss_mib")?,
            })
        })
        .collect()
}

/// What became of a target.
pub(super) fn said(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "missed" }
}

/// The server's rows beside their floor.
pub(super) struct Table {
    pub(super) floor: Row,
    /// Over HTTP.
    pub(super) rows: Vec<Row>,
    /// Over gRPC, at concurrency 8.
    pub(super) grpc: Row,
}

impl Table {
    /// One sentence: what was to be reached at concurrency 8, and what was.
    pub(super) fn verdict(&self, cpu_target: f64, throughput_target: f64) -> String {
        let Some(row) = self.rows.iter().find(|row| (row.concurrency - 8.0).abs() < 0.5) else {
            return "concurrency 8 was not measured".into();
        };
        let cpu = row.cpu_ms_per_image / self.floor.cpu_ms_per_image;
        let throughput = row.images_per_s / self.floor.images_per_s;
        format!(
            "At concurrency 8: CPU per image {cpu:.3} of the floor (at most {cpu_target}: {}), throughput {throughput:.3} \
             (at least {throughput_target}: {}).",
            said(cpu <= cpu_target),
            said(throughput >= throughput_target),
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | images/s | of floor | p50 ms | p99 ms | CPU ms/image | of floor | RSS MiB | errors |")?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
        let floor = ("floor, one thread a core".to_owned(), &self.floor);
        let rows = self.rows.iter().map(|row| (format!("server, HTTP, concurrency {:.0}", row.concurrency), row));
        let grpc = (format!("server, gRPC, concurrency {:.0}", self.grpc.concurrency), &self.grpc);
        for (name, row) in std::iter::once(floor).chain(rows).chain(std::iter::once(grpc)) {
            writeln!(
                f,
                "| {name} | {:.1} | {:.2} | {:.1} | {:.1} | {:.2} | {:.2} | {:.0} | {:.0} |",
                row.images_per_s,
                row.images_per_s / self.floor.images_per_s,
                row.p50_ms,
                row.p99_ms,
                row.cpu_ms_per_image,
                row.cpu_ms_per_image / self.floor.cpu_ms_per_image,
                row.rss_mib,
                row.unanswered(),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "concurrency,rate_per_s,images_per_s,p50_ms,p99_ms,refused,refused_p99_ms,expired,errors,\
                       cpu_ms_per_image,rss_mib\n\
                       8,,10.0,1.0,3.0,2,,1,0,5.5,100.0\n";

    #[test]
    fn the_median_ignores_one_stray_value() {
        assert!((median([9.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([1.0, 2.0].into_iter()) - 1.5).abs() < f64::EPSILON);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn rows_are_read_by_name() {
        let rows = parse(CSV).unwrap();
        assert_eq!(rows.len(), 1);
        assert!((rows[0].p99_ms - 3.0).abs() < f64::EPSILON);
        assert!(rows[0].refused_p99_ms.abs() < f64::EPSILON);
        assert!(parse("").is_err());
        assert!(parse("concurrency,images_per_s\n8,10\n").is_err());
        assert!(parse(&CSV.replace("5.5", "")).is_err());
    }

    #[test]
    fn the_verdict_says_what_was_missed() {
        let row = parse(CSV).unwrap().remove(0);
        let floor = Row { images_per_s: 12.0, cpu_ms_per_image: 5.0, ..row.clone() };
        let verdict = Table { floor, grpc: row.clone(), rows: vec![row] }.verdict(1.15, 0.93);
        assert!(verdict.contains("CPU per image 1.100 of the floor (at most 1.15: reached)"), "{verdict}");
        assert!(verdict.contains("throughput 0.833 (at least 0.93: missed)"), "{verdict}");
    }
}
