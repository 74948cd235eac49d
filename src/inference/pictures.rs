//! Decoding and preprocessing, on a bounded number of blocking threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Limits;
use super::request::Admission;
use crate::error::{Error, Result};
use crate::preprocess::{PictureLimits, Preprocessor};
use crate::tensor::Tensor;

/// The bounded place where pictures are decoded.
#[derive(Debug)]
pub(super) struct Pictures {
    threads: Arc<Semaphore>,
    limits: PictureLimits,
}

impl Pictures {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(limits.decode_threads.clamp(1, Semaphore::MAX_PERMITS))),
            limits: PictureLimits { max_pixels: limits.max_pixels, max_decode_bytes: limits.max_decode_bytes },
        }
    }

    /// Makes a picture the model's input, a row for each crop, and says how long that took.
    ///
    /// A picture that nobody waits for any more, or whose deadline has passed, is not decoded.
    pub(super) async fn prepare(
        &self,
        admission: &Admission,
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
        let preprocessor = Arc::clone(preprocessor);
        let limits = self.limits.clone();
        let decode_seconds = model.metrics().decode_seconds.clone();
        let decoding = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            let started = Instant::now();
            let row = preprocessor.tensor(&picture, &limits)?;
            let took = started.elapsed();
            decode_seconds.observe(took.as_secs_f64());
            Ok((row, took))
        });
        decoding.await.unwrap_or_else(|failure| {
            Err(Error::internal("the picture could not be decoded").with_source(failure.to_string()))
        })
    }
}
