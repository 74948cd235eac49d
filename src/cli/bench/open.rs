//! The open loop: requests come when they come, as those of many clients do who do not know of each other, whether or not the
//! server keeps up. Only this shows what a server does under more load than it can take.
//!
//! The gaps between requests are exponentially distributed (a Poisson process). A request's latency counts from the moment at
//! which it was due, not from when the load got round to sending it, so that a stalled server, or a load that cannot keep up,
//! shows in the latencies instead of being left out of them (Tene's "coordinated omission").

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::journal::Journal;
use super::report::{Measurement, Offered};
use super::requests::{Answer, Requests};
use super::target::{Connection, Target};
use crate::telemetry::Usage;

/// The most connections. Beyond them a request waits for one, and the wait counts. Within what a process may usually open.
const MAX_CONNECTIONS: usize = 512;
/// How long answers are waited for after the last request.
const PATIENCE: Duration = Duration::from_mins(1);
/// Each load of a rate has the same gaps.
const SEED: u64 = 0x5eed;

/// An open load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Requests a second, on average.
    pub(super) rate: f64,
    /// How long to load before measuring.
    pub(super) warmup: Duration,
    /// How long to measure.
    pub(super) duration: Duration,
    /// The server's process.
    pub(super) pid: Option<u32>,
}

/// Loads the server, and says what became of the requests that were due while it was measured: until the load's end, or until
/// the process is interrupted.
///
/// Throughput counts the answers that came while it was measured, so that neither what was on its way at the beginning nor what
/// was at the end distorts it.
pub(super) async fn run(
    target: &Arc<Target>,
    requests: &Arc<Requests>,
    load: Load,
    journal: &mut Journal,
) -> Result<Measurement> {
    let pool = Arc::new(Pool::new(target, requests));
    // Whether there is a server at all should not show as so many failed requests.
    pool.give_back(Connection::open(target).await?);
    let began = Instant::now() + load.warmup;
    let ended = began + load.duration;
    let (due, mut arrivals) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("pace".to_owned()).spawn(move || pace(load.rate, ended, &due))?;
    let usage = tokio::spawn(usage(load.pid, began, ended));

    let mut measurement = Measurement::new(Offered::Rate(load.rate));
    let mut note = |Outcome { due, finished, result }: Outcome| {
        let latency = finished.saturating_duration_since(due);
        if due >= began
            && let Some(said) = why_not(&result, latency, requests.timeout())
        {
            journal.note(due, latency, said);
        }
        match result {
            Ok(answer) => {
                let is_within = (began..ended).contains(&finished);
                measurement.images += u64::from(is_within && answer.is_on_time(latency, requests.timeout()));
                if due >= began {
                    measurement.record_latency(answer, latency, requests.timeout());
                }
            }
            Err(error) if due >= began => measurement.fail(format!("{error:#}")),
            Err(_) => {}
        }
    };
    let mut sent = JoinSet::new();
    let mut turn = 0;
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let mut elapsed = load.duration;
    loop {
        tokio::select! {
            // Whoever interrupts wants to know what was seen so far.
            _ = &mut interrupted => {
                elapsed = elapsed.min(began.elapsed());
                usage.abort();
                break;
            }
            arrival = arrivals.recv() => {
                let Some(due) = arrival else { break };
                sent.spawn(send(Arc::clone(&pool), due, turn));
                turn += 1;
            }
            Some(outcome) = sent.join_next() => note(outcome.context("a request's task ended early")?),
        }
    }
    let patience = Instant::now() + PATIENCE;
    while let Ok(Some(outcome)) = tokio::time::timeout_at(patience.into(), sent.join_next()).await {
        note(outcome.context("a request's task ended early")?);
    }
    for _ in 0..sent.len() {
        let said = format!("no answer within {} s of the load's end", PATIENCE.as_secs());
        // When each was due is gone with its task: it is counted to the end.
        journal.note(ended, PATIENCE, said.clone());
        measurement.fail(said);
    }
    measurement.elapsed = elapsed;
    // There is none of a load that was interrupted.
    if let Ok(usage) = usage.await
        && let Some((before, after)) = usage?
    {
        measurement.note_usage(before, after);
    }
    if measurement.is_empty() {
        bail!("no request was due in the time given: measure longer");
    }
    Ok(measurement)
}

/// What is said of a request that was not answered with success within its `timeout`.
fn why_not(result: &Result<Answer>, latency: Duration, timeout: Option<Duration>) -> Option<String> {
    match result {
        Ok(answer) if answer.is_on_time(latency, timeout) => None,
        Ok(Answer::Success) => Some("answered after the timeout".to_owned()),
        Ok(Answer::Refused(said) | Answer::Expired(said) | Answer::Failed(said)) => Some(said.clone()),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// What became of a request.
struct Outcome {
    due: Instant,
    finished: Instant,
    result: Result<Answer>,
}

/// Says when requests are due, at that moment, until `end`. It blocks: a timer of the runtime would be a millisecond late.
fn pace(rate: f64, end: Instant, arrivals: &mpsc::UnboundedSender<Instant>) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut due = Instant::now();
    loop {
        due += gap(rate, random.f64());
        if due >= end {
            return;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if arrivals.send(due).is_err() {
            return;
        }
    }
}

/// The gap before the next request, for a `uniform` number from 0 up to but not including 1: the exponential distribution's
/// quantile.
fn gap(rate: f64, uniform: f64) -> Duration {
    Duration::try_from_secs_f64(-(1.0 - uniform).ln() / rate).unwrap_or(Duration::MAX / 4)
}

/// Sends the request that was due.
async fn send(pool: Arc<Pool>, due: Instant, turn: usize) -> Outcome {
    let result = pool.send(turn).await;
    Outcome { due, finished: Instant::now(), result }
}

/// What the server had used at the beginning and at the end of the measurement.
async fn usage(pid: Option<u32>, began: Instant, ended: Instant) -> Result<Option<(Usage, Usage)>> {
    let Some(pid) = pid else { return Ok(None) };
    sleep_until(began.into()).await;
    let before = Usage::of(pid)?;
    sleep_until(ended.into()).await;
    Ok(Some((before, Usage::of(pid)?)))
}

/// Connections that carry no request. The last one used is the next, so that there are no more than needed.
struct Pool {
    target: Arc<Target>,
    requests: Arc<Requests>,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Pool {
    fn new(target: &Arc<Target>, requests: &Arc<Requests>) -> Self {
        Self {
            target: Arc::clone(target),
            requests: Arc::clone(requests),
            idle: Mutex::default(),
            places: Semaphore::new(MAX_CONNECTIONS),
        }
    }

    async fn send(&self, turn: usize) -> Result<Answer> {
        let _place = self.places.acquire().await?;
        let mut connection = match self.open_one() {
            Some(connection) => connection,
            None => Connection::open(&self.target).await?,
        };
        let answer = connection.send(&self.requests, turn).await?;
        self.give_back(connection);
        Ok(answer)
    }

    /// The one that was used last, of those that the server has not closed meanwhile, as it may: nothing was sent on them.
    fn open_one(&self) -> Option<Connection> {
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.pop()).find(|connection| !connection.is_closed())
    }

    fn give_back(&self, connection: Connection) {
        self.idle().push(connection);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponentially_distributed() {
        let mut random = fastrand::Rng::with_seed(SEED);
        let gaps: Vec<f64> = (0..100_000).map(|_| gap(50.0, random.f64()).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.02).abs() < 0.0005, "{mean}");
        // The share of gaps that are longer than t is e^(-rate t).
        for t in [0.005f64, 0.02, 0.06] {
            let longer = gaps.iter().filter(|&&gap| gap > t).count() as f64 / gaps.len() as f64;
            assert!((longer - (-50.0 * t).exp()).abs() < 0.01, "{t}: {longer}");
        }
    }
}
