//! What a server's memory becomes when its model is loaded again and again under load, every second time from a broken file.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::server::{Cores, Server, Way};
use super::table::said;
use super::{Bench, MODELS, copy_model};
use crate::progress;

const LOADS: usize = 100;
/// Connections that classify all the while.
const CLIENTS: u32 = 4;
/// Threads that decode pictures keep some memory until they end, after 10 seconds of rest.
const REST: Duration = Duration::from_secs(13);
/// What memory at rest may be at most after the loads, of that after the first load and its requests.
const TARGET: f64 = 1.05;

/// Measures the first model and prints a sentence.
pub(super) fn measure(bench: &Bench, picture: &Path) -> Result<()> {
    let model = &MODELS[0];
    progress::say(&format!("measuring memory over {LOADS} loads of {}", model.name));
    let source = bench.make_repository(model)?.join(model.name);
    let repository = bench.folder.join("reloads");
    let folder = repository.join(model.name);
    copy_model(&source, &folder)?;
    let graph = folder.join("1/model.onnx");
    let arguments = ["--model-control-mode", "explicit", "--model-control-load", "*"];
    let log = bench.folder.join("server.log");
    let server = Server::start(&repository, &bench.ready.onnxruntime, &log, Cores::Shared, &arguments)?;
    server.load_once(Way::http(picture), CLIENTS, bench.seconds)?;
    let before = server.resident_mib()?;
    let requests = under_load(&server, bench.seconds, picture, || load_again(&server, model.name, &graph))?;
    thread::sleep(REST);
    let after = server.resident_mib()?;
    server.stop()?;
    println!(
        "Resident memory of {}: {before:.0} MiB after its first requests, {after:.0} MiB at rest after {LOADS} loads, every second \
         of a broken file, beside {requests:.0} requests of which none failed ({:+.1} %; at most {:+.0} %: {})\n",
        model.name,
        (after / before - 1.0) * 100.0,
        (TARGET - 1.0) * 100.0,
        said(after <= before * TARGET),
    );
    Ok(())
}

/// Loads the model [`LOADS`] times, from its file as it is and cut off somewhere, in turns.
fn load_again(server: &Server, model: &str, graph: &Path) -> Result<()> {
    let whole = fs::read(graph)?;
    // Where it is renamed from.
    let beside = graph.with_extension("part");
    for load in 0..LOADS {
        let is_whole = load % 2 == 0;
        let bytes = if is_whole { &whole[..] } else { &whole[..whole.len() * load / LOADS] };
        fs::write(&beside, bytes)?;
        fs::rename(&beside, graph)?;
        let status = server.load_model(model)?;
        ensure!((status == 200) == is_whole, "a load of {} of {} bytes got {status}", bytes.len(), whole.len());
    }
    fs::write(graph, whole)?;
    Ok(())
}

/// Does `work` while clients classify. Returns how many requests they had answered, all of them with success.
fn under_load(server: &Server, seconds: f64, picture: &Path, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut answered = 0.0;
            while !is_done.load(Ordering::Relaxed) {
                let row = server.load_once(Way::http(picture), CLIENTS, seconds)?;
                ensure!(row.unanswered() == 0.0, "{} requests failed", row.unanswered());
                answered += row.images_per_s * seconds;
            }
            Ok(answered)
        });
        let worked = work();
        is_done.store(true, Ordering::Relaxed);
        let answered = clients.join().map_err(|_| anyhow!("the load panicked"))?;
        worked.and(answered)
    })
}
