//! When requests came to nothing: what tells a failure at the moment at which a server was lost from one long after.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The requests of a load that were not answered with success on time, in the order in which this was known.
#[derive(Debug)]
pub(super) struct Journal {
    /// The same moment on both clocks.
    began: (Instant, SystemTime),
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    took: Duration,
    said: String,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { began: (Instant::now(), SystemTime::now()), entries: Vec::new() }
    }

    /// Notes a request that was due at `due`, came to nothing after `took`, and what was said of it.
    pub(super) fn note(&mut self, due: Instant, took: Duration, said: String) {
        self.entries.push(Entry { due, took, said });
    }

    /// Writes a line of names and a line for each request to the file `path`: when it was due, in milliseconds of Unix time, how
    /// long it took, in milliseconds, and what was said, with commas as they come because it is the last.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::from("due_unix_ms,took_ms,said\n");
        for Entry { due, took, said } in &self.entries {
            let due = self.unix(*due).as_millis();
            let said = said.replace('\n', " ");
            let _ = writeln!(text, "{due},{},{said}", took.as_millis());
        }
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    fn unix(&self, moment: Instant) -> Duration {
        let (instant, time) = self.began;
        (time + moment.saturating_duration_since(instant)).duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_a_request_was_due() {
        let mut journal = Journal::new();
        let (instant, time) = journal.began;
        journal.note(instant + Duration::from_millis(1500), Duration::from_millis(20), "status 503".to_owned());
        journal.note(instant, Duration::ZERO, "one, and\ntwo".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failures.csv");
        journal.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let began = time.duration_since(UNIX_EPOCH).unwrap();
        let (first, second) = ((began + Duration::from_millis(1500)).as_millis(), began.as_millis());
        assert_eq!(text, format!("due_unix_ms,took_ms,said\n{first},20,status 503\n{second},0,one, and two\n"));
    }
}
