//! What explanations cost beside a classification of the same picture, each alone on one thread:
//! `cargo run --release --example explain_costs -- photo.jpg`
//!
//! The networks have seeded weights: what a run takes does not depend on them.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use convoy::engine::Runtime;
use convoy::explain::{ExplainConfig, ExplainMetrics, ExplainRequest, Explainer, Method};
use convoy::inference::{ClassifyRequest, Inference, Limits, RequestContext};
use convoy::onnx::write_model;
use convoy::preprocess::PictureLimits;
use convoy::repository::{ModelControlConfig, Repository};
use convoy::telemetry::Metrics;
use convoy::zoo::weights::Weights;
use convoy::zoo::{Architecture, OnnxOptions};

const ROUNDS: usize = 25;
const CONFIG: &str = "max_batch_size = 1\n[instances]\ncount = 1\n";

/// What is explained, how, and of which layer.
const CASES: [(&str, &str, Option<&str>); 7] = [
    ("alexnet", "deconvnet", Some("features.10.relu")),
    ("alexnet", "guided", Some("features.10.relu")),
    ("alexnet", "gradient", None),
    ("alexnet", "gradcam", None),
    ("resnet18", "cam", None),
    ("resnet50", "cam", None),
    ("resnet18", "deconvnet", Some("layer4.1")),
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
    let inference = Inference::new(repository.into(), Limits::default(), None);
    let explain_metrics = ExplainMetrics::register(metrics.registry())?;
    let explainer = Explainer::new(runtime, &ExplainConfig::default(), PictureLimits::default(), explain_metrics);

    let mut out = std::io::stdout().lock();
    writeln!(out, "| network | explanation | classify, ms | explain, ms | ratio |\n|---|---|---|---|---|")?;
    for (name, method, layer) in CASES {
        let model = inference.model(name, None)?;
        let (mut classified, mut shown) = (Vec::new(), Vec::new());
        // One after the other, so that whatever else the machine does meets both.
        for round in 0..=ROUNDS {
            let started = Instant::now();
            let admission = inference.admit(model.clone(), RequestContext::new("example"))?;
            let request = ClassifyRequest { pictures: vec![picture.clone()], top_k: 1, aux: false };
            inference.classify(admission, request).await?;
            let classify = started.elapsed();
            let started = Instant::now();
            let method: Method = method.parse()?;
            let layer = layer.map(str::to_owned);
            let request = ExplainRequest { method: Some(method), layer, ..ExplainRequest::new(picture.clone()) };
            explainer.explain(model.clone(), request).await?;
            let explain = started.elapsed();
            // The first makes the graphs.
            if round > 0 {
                classified.push(classify);
                shown.push(explain);
            }
        }
        let (classify, explain) = (median(classified), median(shown));
        let ratio = explain.as_secs_f64() / classify.as_secs_f64();
        let [classify, explain] = [classify, explain].map(|time| time.as_secs_f64() * 1e3);
        let layer = layer.map_or(String::new(), |layer| format!(" of {layer}"));
        writeln!(out, "| {name} | {method}{layer} | {classify:.1} | {explain:.1} | {ratio:.2} |")?;
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
