//! The spans of a batch and of what its requests had to do with it.
//!
//! A batch belongs to no single request, so its span begins a trace of its own and links the requests' spans. In each request's
//! trace are the times that the request saw: how long it waited, and the run, which links the batch.

use std::time::{Duration, Instant};

use opentelemetry::trace::{Link, SpanBuilder, SpanContext, Status};
use opentelemetry::{Context, KeyValue};

use super::Trace;

/// What is known of a batch that has run.
#[derive(Debug)]
pub struct BatchFacts<'a> {
    /// The model's name and version.
    pub model: [&'a str; 2],
    /// The instance that ran it, by its index.
    pub instance: usize,
    /// How many rows it had.
    pub rows: usize,
    /// How many rows it was filled up to.
    pub run_rows: usize,
    /// When it was taken.
    pub taken: Instant,
    /// When the run itself began, its rows put together.
    pub began: Instant,
    /// How long the run took.
    pub took: Duration,
    /// When everything was over, or `Err` with the reason why there is no answer.
    pub result: Result<(), &'a str>,
}

/// What is known of one of its entries.
#[derive(Debug)]
pub struct TracedEntry<'a> {
    /// Its request's.
    pub trace: &'a Trace,
    /// When it joined the queue; `None` where its waiting has been recorded before.
    pub arrived: Option<Instant>,
    /// How many rows it has.
    pub rows: usize,
}

/// Records a batch that has just run, if one of its requests is traced.
pub fn record_batch<'a>(entries: impl Iterator<Item = TracedEntry<'a>> + Clone, facts: &BatchFacts<'_>) {
    let Some(first) = entries.clone().find_map(|entry| entry.trace.recorded()) else { return };
    let now = Instant::now();
    let links: Vec<Link> = entries.clone().filter_map(|entry| entry.trace.link()).collect();
    let mut attributes = facts.attributes();
    attributes.push(KeyValue::new("convoy.batch.entries", entries.clone().count() as i64));
    let span = SpanBuilder::from_name("batch").with_attributes(attributes).with_links(links);
    let batch = first.record_in(span, (facts.taken, now), facts.status(), &Context::new());
    for entry in entries {
        facts.record_entry(&entry, &batch);
    }
}

impl BatchFacts<'_> {
    fn record_entry(&self, entry: &TracedEntry<'_>, batch: &SpanContext) {
        let Some(traced) = entry.trace.recorded() else { return };
        if let Some(arrived) = entry.arrived {
            let queue = SpanBuilder::from_name("queue").with_attributes([rows(entry.rows)]);
            traced.record(queue, (arrived.min(self.taken), self.taken), Status::Unset);
        }
        let link = Link::new(batch.clone(), Vec::new(), 0);
        let compute = SpanBuilder::from_name("compute").with_attributes(self.attributes()).with_links(vec![link]);
        traced.record(compute, (self.began, self.began + self.took), self.status());
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let [model, version] = self.model;
        vec![
            KeyValue::new("convoy.model.name", model.to_owned()),
            KeyValue::new("convoy.model.version", version.to_owned()),
            KeyValue::new("convoy.instance", self.instance as i64),
            KeyValue::new("convoy.batch.size", self.rows as i64),
            KeyValue::new("convoy.batch.run_size", self.run_rows as i64),
        ]
    }

    fn status(&self) -> Status {
        self.result.map_or_else(|reason| Status::error(reason.to_owned()), |()| Status::Unset)
    }
}

fn rows(rows: usize) -> KeyValue {
    KeyValue::new("convoy.rows", rows as i64)
}
