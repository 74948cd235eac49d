//! Traces of real requests, as a real collector gets them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests need more")]
#[path = "../support/http.rs"]
mod client;
mod collector;
#[expect(dead_code, reason = "other tests need more")]
#[path = "../support/graphs.rs"]
mod graphs;
mod grpc;
#[expect(dead_code, reason = "other tests need more")]
#[path = "../support/grpc.rs"]
mod grpc_client;
mod http;
mod loss;
#[expect(dead_code, reason = "other tests need more")]
#[path = "../support/server.rs"]
mod server;
#[path = "../support/table.rs"]
mod table;

use std::net::SocketAddr;

use convoy::config::ServerConfig;
use convoy::server::Server;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::collector::text;
use crate::server::{PLAIN_RECIPE, Repository, config, start};
use crate::table::table;

/// A trace that somebody else began, and the span in it that calls.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// `traceparent` of a caller who has decided that the request is traced, or that it is not.
fn traceparent(is_sampled: bool) -> String {
    format!("00-{TRACE}-{CALLER}-0{}", u8::from(is_sampled))
}

/// The models `means`, `paired`, whose batches wait for a second row, and `table`.
fn repository() -> Repository {
    let paired = "max_batch_size = 2\n[instances]\ncount = 1\n[batching]\nmax_queue_delay_us = 600000000\n".to_owned()
        + PLAIN_RECIPE;
    Repository::new()
        .with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "red\ngreen\nblue\n")
        .with("paired", &graphs::channel_means(2, None), &paired, "")
        .with("table", &table(), "", "")
}

/// A server that sends its traces to `collector`.
async fn traced(repository: &Repository, collector: SocketAddr, change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = config(repository);
    config.tracing.endpoint = Some(format!("http://{collector}"));
    change(&mut config);
    start(config).await
}

/// The one span of this name.
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    text(&span.attributes, key)
}

/// Ids as W3C writes them.
fn hex(id: &[u8]) -> String {
    convoy::sha256::hex(id)
}

/// Checks that `child` is `parent`'s child and began and ended within it.
fn assert_child(child: &Span, parent: &Span) {
    assert_eq!((&child.trace_id, &child.parent_span_id), (&parent.trace_id, &parent.span_id), "{child:#?}");
    assert!(child.start_time_unix_nano >= parent.start_time_unix_nano, "{child:#?} {parent:#?}");
    assert!(child.end_time_unix_nano >= child.start_time_unix_nano, "{child:#?}");
    assert!(child.end_time_unix_nano <= parent.end_time_unix_nano, "{child:#?} {parent:#?}");
}

/// Whether `span` links `other`.
fn links(span: &Span, other: &Span) -> bool {
    span.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&other.trace_id, &other.span_id))
}
