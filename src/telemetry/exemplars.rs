//! Traces that stand for what a histogram has counted: for each bucket the last request in it that was recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::proto::LabelPair;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// The trace's id in hexadecimal digits.
    pub trace: String,
    /// The span's.
    pub span: String,
    /// What was observed.
    pub value: f64,
    /// When, in seconds since the Unix epoch.
    pub at: f64,
}

/// A histogram's name and the values of its labels, by the labels' names.
type Series = (String, BTreeMap<String, String>);

/// Those of every histogram that has some. Cheap to clone. Only requests that are recorded come here, so one lock is enough.
#[derive(Debug, Clone, Default)]
pub struct Exemplars(Arc<Mutex<BTreeMap<Series, BTreeMap<usize, Exemplar>>>>);

impl Exemplars {
    /// Keeps one in place of the one that its bucket had; `bounds` are the buckets' upper bounds.
    pub(super) fn put(&self, name: &str, labels: &[(&str, &str)], bounds: &[f64], exemplar: Exemplar) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let bucket = bounds.iter().position(|&bound| exemplar.value <= bound).unwrap_or(bounds.len());
        self.lock().entry((name.to_owned(), labels)).or_default().insert(bucket, exemplar);
    }

    /// Those of one series, at most one in each bucket.
    pub(super) fn of(&self, name: &str, labels: &[LabelPair]) -> Vec<Exemplar> {
        let labels = labels.iter().map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
        self.lock().get(&(name.to_owned(), labels)).map(|found| found.values().cloned().collect()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Series, BTreeMap<usize, Exemplar>>> {
        // It is changed by whole operations only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
