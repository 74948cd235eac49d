//! Streams on which many requests are in flight.
//!
//! A stream reads ahead by a bounded number of requests. When these are in flight, or answered and not yet read by the client,
//! nothing more is read, and HTTP/2's flow control holds the client up: however much it sends, and whether it reads or not, the
//! memory is bounded. Each request runs on a task of its own, so that one whose answer the client does not read still gives
//! back its place in the model's queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

use super::call::Call;
use super::status::corrected;

/// How many requests of one stream are in flight.
const MAX_IN_FLIGHT: usize = 64;

/// The answers of a stream, as tonic sends them.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Whether answers come in the order of their requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// They do.
    Requests,
    /// Each comes as soon as it is there.
    Completion,
}

/// Answers each of `requests` by `answer`, until the client has sent its last, the server drains or the call's deadline
/// passes. The requests that were read by then are answered in any case.
///
/// When the stream of answers is dropped, because the client has cancelled the call, what is in flight is dropped with it.
pub(super) fn answers<Q, A, F>(
    call: &Call,
    requests: Streaming<Q>,
    order: Order,
    answer: impl Fn(Call, Q) -> F + Send + 'static,
) -> Answers<A>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let (end, ended) = oneshot::channel();
    let stream_call = call.clone();
    let tasks = read(requests, ending(call), end).map(move |request| {
        let mut call = stream_call.of_message();
        // So that it shows which picture was decoded for which request.
        let span = stream_call.trace.child("message");
        call.trace = span.trace().clone();
        let answer = answer(call, request);
        Task(tokio::spawn(async move {
            let answer = answer.await;
            drop(span);
            answer
        }))
    });
    let answers: Answers<A> = match order {
        Order::Requests => Box::pin(tasks.buffered(MAX_IN_FLIGHT)),
        Order::Completion => Box::pin(tasks.buffer_unordered(MAX_IN_FLIGHT)),
    };
    // No status is sent where the client has said that there is nothing more to come.
    let end = stream::once(ended).filter_map(async |status| status.ok().map(Err));
    Box::pin(answers.chain(end))
}

/// Yields requests to the last; where that is not the client's doing, the reason goes to `end`.
fn read<Q: Send + 'static>(
    requests: Streaming<Q>,
    ending: impl Future<Output = Status> + Send,
    end: oneshot::Sender<Status>,
) -> impl Stream<Item = Q> + Send {
    stream::unfold((requests, Box::pin(ending), end), async |(mut requests, mut ending, end)| {
        let status = tokio::select! {
            biased;
            status = &mut ending => status,
            request = requests.next() => match request? {
                Ok(request) => return Some((request, (requests, ending, end))),
                Err(status) => Status::new(corrected(status.code()), status.message()),
            },
        };
        // The receiver is gone only if the whole stream is.
        let _ = end.send(status);
        None
    })
}

/// Completes when the server ends the stream.
fn ending(call: &Call) -> impl Future<Output = Status> + Send + use<> {
    let mut draining = call.draining.clone();
    let deadline = call.deadline;
    async move {
        tokio::select! {
            () = draining.begun() => Status::unavailable("the server is shutting down"),
            () = passed(deadline) => Status::deadline_exceeded("the call's deadline passed"),
        }
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A task that ends when its handle is dropped.
struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|error| {
            tracing::error!(%error, "a request of a stream failed");
            Status::new(Code::Internal, "the server failed on a request of this stream")
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
