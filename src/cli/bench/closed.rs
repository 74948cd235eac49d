//! The closed loop: each connection, or each place on a stream, sends its next request when the last one is answered, so the
//! offered load adapts to the server. Latencies under more load than a server can take need an open loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::grpc::Stream;
use super::report::{Measurement, Offered};
use super::requests::Requests;
use super::target::{Connection, Target};
use super::{Until, merge_workers};

/// How much is on its way at once, and on what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Connections with one request each, or requests on the one stream.
    pub(super) concurrency: u32,
    pub(super) is_stream: bool,
}

/// Loads the server until the load's end, and says what was seen.
pub(super) async fn run(
    target: &Arc<Target>,
    requests: &Arc<Requests>,
    load: Load,
    until: Until,
) -> Result<Measurement> {
    if load.is_stream {
        stream(target, requests, load.concurrency, until).await
    } else {
        connections(target, requests, load.concurrency, until).await
    }
}

/// Keeps `concurrency` connections busy until the load's end, and gathers what each saw.
async fn connections(
    target: &Arc<Target>,
    requests: &Arc<Requests>,
    concurrency: u32,
    until: Until,
) -> Result<Measurement> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for index in 0..u64::from(concurrency) {
        let (target, requests, stop) = (Arc::clone(target), Arc::clone(requests), Arc::clone(&stop));
        let quota = match until {
            Until::Elapsed(_) => u64::MAX,
            Until::Requests(total) => {
                total / u64::from(concurrency) + u64::from(index < total % u64::from(concurrency))
            }
        };
        workers.spawn(async move { connection(&target, &requests, index as usize, quota, &stop).await });
    }
    if let Until::Elapsed(duration) = until {
        tokio::time::sleep(duration).await;
        stop.store(true, Ordering::Relaxed);
    }
    let mut results = Vec::new();
    while let Some(worker) = workers.join_next().await {
        results.push(worker.context("a connection's task ended early")?);
    }
    merge_workers(concurrency, results)
}

/// One connection: request after request, reconnecting where the server closed it.
async fn connection(
    target: &Target,
    requests: &Requests,
    offset: usize,
    quota: u64,
    stop: &AtomicBool,
) -> Result<Measurement> {
    let mut measurement = Measurement::new(Offered::Concurrency(0));
    let mut connection = Connection::open(target).await?;
    for request in 0..quota {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let started = Instant::now();
        match connection.send(requests, offset + request as usize).await {
            Ok(answer) => measurement.record(answer, started.elapsed(), requests.timeout()),
            Err(error) => {
                measurement.fail(format!("{error:#}"));
                connection = Connection::open(target).await?;
            }
        }
    }
    Ok(measurement)
}

/// Keeps `concurrency` requests on their way on one stream until the load's end.
async fn stream(target: &Target, requests: &Requests, concurrency: u32, until: Until) -> Result<Measurement> {
    let started = Instant::now();
    let (end, quota) = match until {
        Until::Elapsed(duration) => (Some(started + duration), u64::MAX),
        Until::Requests(requests) => (None, requests),
    };
    let is_over = |sent: u64| sent >= quota || end.is_some_and(|end| Instant::now() >= end);
    let mut stream = Stream::open(target, requests).await?;
    let mut measurement = Measurement::new(Offered::Concurrency(concurrency));
    let (mut sent, mut answered) = (0, 0);
    while sent < u64::from(concurrency) && !is_over(sent) {
        stream.send(requests, sent as usize)?;
        sent += 1;
    }
    while answered < sent {
        let (answer, started) = stream.next(requests).await?;
        answered += 1;
        measurement.record(answer, started.elapsed(), requests.timeout());
        if !is_over(sent) {
            stream.send(requests, sent as usize)?;
            sent += 1;
        }
    }
    merge_workers(concurrency, [Ok(measurement)])
}
