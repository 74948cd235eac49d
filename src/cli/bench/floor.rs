//! The floor: decoding, preprocessing and ONNX Runtime in a bare loop, with no server, queue or batch. What a server adds
//! to this is its own cost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;

use super::report::{Measurement, Offered};
use super::{Until, merge_workers};
use crate::engine::{Graph, GraphOptions, Runtime, Session};
use crate::inference::DEFAULT_TOP_K;
use crate::postprocess;
use crate::preprocess::{PictureLimits, Preprocessor};
use crate::repository::Machine;
use crate::repository::config::ModelConfig;
use crate::telemetry::Usage;

/// Runs the bare loop on `threads` threads, each with a session of its own, and measures it as a server is measured.
///
/// # Errors
/// When the model in `folder` (`config.toml`, `version/model.onnx`) or a picture cannot be used.
pub(super) fn measure(
    runtime: &Runtime,
    folder: &Path,
    version: u64,
    pictures: &Arc<[Bytes]>,
    threads: u32,
    warmup: Duration,
    until: Until,
) -> Result<Measurement> {
    let config = ModelConfig::read(folder, Machine::of(runtime))?;
    let options = GraphOptions {
        providers: config.providers.clone(),
        intra_op_threads: 1,
        optimization: config.graph_optimization,
    };
    let (graph, first) = Graph::load(runtime, &config.graph(&folder.join(version.to_string())), &options)?;
    let device_id = graph.provider().device_ids()[0];
    let mut loops = std::iter::once(Ok(first))
        .chain((1..threads).map(|_| graph.session(device_id)))
        .map(|session| {
            let session = session?;
            let preprocessor =
                Preprocessor::new(&config.preprocess, &session.input().shape[1..], session.input().data_type)?;
            Ok(Loop { session, preprocessor })
        })
        .collect::<Result<Vec<_>>>()?;
    if !warmup.is_zero() {
        run(&mut loops, pictures, Until::Elapsed(warmup))?;
    }
    let own = std::process::id();
    let before = Usage::of(own)?;
    let started = Instant::now();
    let mut measurement = run(&mut loops, pictures, until)?;
    measurement.elapsed = started.elapsed();
    measurement.offered = Offered::Concurrency(threads);
    measurement.note_usage(before, Usage::of(own)?);
    Ok(measurement)
}

/// What one thread owns.
struct Loop {
    session: Session,
    preprocessor: Preprocessor,
}

impl Loop {
    fn once(&mut self, picture: &[u8]) -> Result<()> {
        let tensor = self.preprocessor.tensor(picture, &PictureLimits::default())?;
        let (outputs, _) = self.session.run(std::slice::from_ref(&tensor), 1)?;
        let scores = outputs.first().context("the model has no output")?.to_slice::<f32>()?;
        std::hint::black_box(postprocess::top_k(&scores, DEFAULT_TOP_K));
        Ok(())
    }
}

fn run(loops: &mut [Loop], pictures: &[Bytes], until: Until) -> Result<Measurement> {
    let stop = AtomicBool::new(false);
    let left = AtomicU64::new(match until {
        Until::Requests(requests) => requests,
        Until::Elapsed(_) => u64::MAX,
    });
    let (stop, left) = (&stop, &left);
    std::thread::scope(|scope| {
        let workers: Vec<_> = loops
            .iter_mut()
            .enumerate()
            .map(|(index, own)| {
                scope.spawn(move || {
                    let mut measurement = Measurement::new(Offered::Concurrency(0));
                    let mut turn = index;
                    while !stop.load(Ordering::Relaxed)
                        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
                    {
                        let started = Instant::now();
                        own.once(&pictures[turn % pictures.len()])?;
                        measurement.answer(started.elapsed());
                        turn += 1;
                    }
                    Ok(measurement)
                })
            })
            .collect();
        if let Until::Elapsed(duration) = until {
            std::thread::sleep(duration);
            stop.store(true, Ordering::Relaxed);
        }
        let results = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the bare loop panicked"))));
        merge_workers(0, results)
    })
}
