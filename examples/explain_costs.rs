//! What explanations cost beside a bare run of the model, each alone on one thread:
//! `cargo run --release --example explain_costs -- photo.jpg`
//!
//! The bare run is a session's, with nothing before or behind it. An explanation is everything from the encoded picture to the PNG,
//! with the graphs made already. The networks have seeded weights: what a run takes does not depend on them.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use convoy::engine::{Graph, GraphOptimization, GraphOptions, Runtime};
use convoy::explain::{ExplainConfig, ExplainMetrics, ExplainRequest, Explainer, Method, Work};
use convoy::onnx::write_model;
use convoy::preprocess::PictureLimits;
use convoy::repository::{ModelControlConfig, Repository};
use convoy::telemetry::Metrics;
use convoy::zoo::weights::Weights;
use convoy::zoo::{Architecture, OnnxOptions};

const ROUNDS: usize = 25;
const CONFIG: &str = "max_batch_size = 1\n[instances]\ncount = 1\n";

/// What is explained, how, of which layer, and what it should take at most, in bare runs.
const CASES: [(&str, &str, Option<&str>, Option<f64>); 8] = [
    ("alexnet", "deconvnet", Some("features.10.relu"), Some(4.0)),
    ("alexnet", "deconvnet", None, Some(4.0)),
    ("alexnet", "gradient", None, None),
    ("alexnet", "gradcam", None, None),
    ("resnet18", "cam", None, Some(1.3)),
    ("resnet50", "cam", None, Some(1.3)),
    ("resnet18", "deconvnet", Some("layer4.1"), None),
    ("resnet50", "guided", None, None),
];

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("name a picture")?;
    let picture = Bytes::from(std::fs::read(&path).with_context(|| format!("{path} cannot be read"))?);
    let folder = tempfile::tempdir()?;
    for name in ["alexnet", "resnet18", "resnet50"] {
        let version = folder.path().join(name).join("1");
        std::fs::create_dir_all(&version)?;
        std::fs::write(folder.path().join(name).join("config.toml"), CONFIG)?;
        let model = Architecture::find(name)?.to_onnx(&Weights::random(7), OnnxOptions::default())?;
        write_model(model, &mut File::create(version.join("model.onnx"))?)?;
    }
    let (runtime, metrics) = (Runtime::load(None)?, Metrics::new());
    let repository = Repository::new(folder.path(), ModelControlConfig::default(), runtime.clone(), metrics.clone());
    repository.load_all()?;
    let explain_metrics = ExplainMetrics::register(metrics.registry())?;
    let limits = PictureLimits::default();
    let explainer = Explainer::new(runtime.clone(), &ExplainConfig::default(), limits.clone(), explain_metrics);

    let mut out = std::io::stdout().lock();
    writeln!(out, "| network | explanation | bare run, ms | explanation, ms | ratio | at most |")?;
    writeln!(out, "|---|---|---:|---:|---:|---:|")?;
    for (name, method, layer, most) in CASES {
        let model = repository.get(name, None)?;
        let graph_model = model.graph().context("a model of the zoo has a graph")?;
        let tensor = graph_model.preprocessor().tensor(&picture, &limits)?;
        let options =
            GraphOptions { providers: vec![], intra_op_threads: 1, optimization: GraphOptimization::default() };
        let file = folder.path().join(name).join("1/model.onnx");
        let (_graph, mut session) = Graph::load(&runtime, &file, &options)?;
        let method: Method = method.parse()?;
        let (mut bare, mut whole) = (Vec::new(), Vec::new());
        // One after the other, so that whatever else the machine does meets both.
        for round in 0..=ROUNDS {
            let started = Instant::now();
            session.run(std::slice::from_ref(&tensor), 1)?;
            let ran = started.elapsed();
            let layer = layer.map(str::to_owned);
            let request = ExplainRequest { method: Some(method), layer, ..ExplainRequest::new(picture.clone()) };
            let started = Instant::now();
            explainer.admit(model.clone(), Work::Explanation(Some(method)), None)?.explain(request).await?;
            let explain = started.elapsed();
            // The first makes the graphs.
            if round > 0 {
                bare.push(ran);
                whole.push(explain);
            }
        }
        let (bare, whole) = (median(bare), median(whole));
        let ratio = whole / bare;
        let what = layer.map_or_else(|| method.as_str().to_owned(), |layer| format!("{} of {layer}", method.as_str()));
        let said = most
            .map_or_else(String::new, |most| format!("{most}: {}", if ratio <= most { "reached" } else { "missed" }));
        writeln!(out, "| {name} | {what} | {bare:.1} | {whole:.1} | {ratio:.2} | {said} |")?;
    }
    Ok(())
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
