//! Decoding and preprocessing, on a bounded number of blocking threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Limits;
use super::request::Admission;
use crate::error::{Error, Result};
use crate::preprocess::{PictureLimits, Preprocessor};
use crate::scheduler::Preparation;
use crate::telemetry::Attribute;
use crate::tensor::Tensor;

/// The bounded place where pictures are decoded.
#[derive(Debug)]
pub(super) struct Pictures {
    threads: Arc<Semaphore>,
    thread_count: usize,
    limits: PictureLimits,
    backlog: Arc<Backlog>,
}

/// The pictures that are not decoded yet, of all models.
#[derive(Debug, Default)]
struct Backlog {
    pictures: AtomicUsize,
    /// A moving average of the time that a picture takes, in nanoseconds; 0 before the first.
    picture_ns: AtomicU64,
}

/// Some pictures in the backlog. What is left of them leaves it when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    backlog: Arc<Backlog>,
    pictures: AtomicUsize,
    preparation: Preparation,
}

impl Pictures {
    pub(super) fn new(limits: &Limits) -> Self {
        let thread_count = limits.decode_threads.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            threads: Arc::new(Semaphore::new(thread_count)),
            thread_count,
            limits: limits.picture(),
            backlog: Arc::default(),
        }
    }

    /// Adds `count` pictures to the backlog, and estimates how long it will take.
    pub(super) fn enqueue(&self, count: usize) -> Waiting {
        let ahead = self.backlog.pictures.fetch_add(count, Ordering::Relaxed);
        let picture = Duration::from_nanos(self.backlog.picture_ns.load(Ordering::Relaxed));
        let rounds = |pictures: usize| u32::try_from(pictures / self.thread_count).unwrap_or(u32::MAX);
        let preparation = Preparation {
            backlog: picture.saturating_mul(rounds(ahead)),
            own: picture.saturating_mul(rounds(count.saturating_sub(1)).saturating_add(1)),
        };
        Waiting { backlog: Arc::clone(&self.backlog), pictures: AtomicUsize::new(count), preparation }
    }

    /// Makes a picture, one of those that `waiting` stands for, the model's input, a row for each crop, and says how long that
    /// took.
    ///
    /// A picture that nobody waits for any more, or whose deadline has passed or cannot be met any more, is not decoded.
    pub(super) async fn prepare(
        &self,
        admission: &Admission,
        waiting: &Waiting,
        preprocessor: &Arc<Preprocessor>,
        picture: Bytes,
    ) -> Result<(Tensor, Duration)> {
        let thread = Arc::clone(&self.threads)
            .acquire_owned()
            .await
            .map_err(|_| Error::unavailable("the server is shutting down"))?;
        let model = admission.model();
        if admission.context().deadline(model).is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::deadline_exceeded("the request's deadline passed before its picture was decoded"));
        }
        admission.check_deadline()?;
        let preprocessor = Arc::clone(preprocessor);
        let limits = self.limits.clone();
        let decode_seconds = model.metrics().decode_seconds.clone();
        let trace = admission.context().trace.clone();
        // Dropped by the thread, which goes on when nobody waits for the picture any more.
        let decoding = waiting.begin();
        let decoding = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            let started = Instant::now();
            let row = preprocessor.tensor(&picture, &limits);
            let took = started.elapsed();
            trace.part("decode", (started, started + took), || decoded(&picture, &row));
            let row = row?;
            decode_seconds.observe(took.as_secs_f64());
            decoding.backlog.observe(took);
            Ok((row, took))
        });
        decoding.await.unwrap_or_else(|failure| {
            Err(Error::internal("the picture could not be decoded").with_source(failure.to_string()))
        })
    }
}

/// What the span of a decoded picture says.
fn decoded(picture: &Bytes, row: &Result<Tensor>) -> Vec<Attribute> {
    let mut attributes = vec![Attribute::new("convoy.picture.bytes", picture.len() as i64)];
    if let Err(error) = row {
        attributes.push(Attribute::new("error.type", error.kind().as_str()));
    }
    attributes
}

impl Backlog {
    /// Folds a picture's time into the average.
    fn observe(&self, took: Duration) {
        let measured = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let average = match self.picture_ns.load(Ordering::Relaxed) {
            0 => measured,
            // An eighth of the new value: a single large picture does not make the server refuse work.
            average => average - average / 8 + measured / 8,
        };
        self.picture_ns.store(average, Ordering::Relaxed);
    }
}

impl Waiting {
    /// The estimated time before the pictures' rows can be queued.
    pub(super) fn preparation(&self) -> Preparation {
        self.preparation
    }

    /// Splits off one picture.
    fn begin(&self) -> Self {
        self.pictures.fetch_sub(1, Ordering::Relaxed);
        Self { backlog: Arc::clone(&self.backlog), pictures: AtomicUsize::new(1), preparation: self.preparation }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.pictures.fetch_sub(*self.pictures.get_mut(), Ordering::Relaxed);
    }
}
