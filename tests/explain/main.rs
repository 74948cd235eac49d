//! Explanations: numbers against PyTorch (`tests/reference/explain.py`), and pictures whose answer is known.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::float_cmp, reason = "these numbers are exact")]

mod foreign;
mod goldens;
mod known;
mod limits;
mod shown;

#[path = "../support/colors.rs"]
mod colors;
#[path = "../support/graphs.rs"]
mod graphs;
#[path = "../support/networks.rs"]
mod networks;

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use convoy::engine::Runtime;
use convoy::error::Result;
use convoy::explain::{
    Admission, Exciting, ExcitingRequest, ExplainConfig, ExplainMetrics, ExplainRequest, Explainer, Explanation,
    Features, Filters, Work,
};
use convoy::onnx::ModelProto;
use convoy::preprocess::PictureLimits;
use convoy::repository::{Model, ModelControlConfig, Repository};
use convoy::telemetry::Metrics;
use image::RgbImage;

/// A model in a repository of its own, and what explains it.
struct Fixture {
    explainer: Explainer,
    model: Arc<Model>,
    metrics: Metrics,
    _repository: Repository,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(model: &ModelProto, config: &str) -> Self {
        Self::with(model, config, &ExplainConfig::default())
    }

    fn with(model: &ModelProto, config: &str, explain: &ExplainConfig) -> Self {
        Self::with_files(model, config, explain, &[])
    }

    /// With files beside the model's.
    fn with_files(model: &ModelProto, config: &str, explain: &ExplainConfig, files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("m/1");
        std::fs::create_dir_all(&version).unwrap();
        graphs::write(&version, model);
        for (name, bytes) in files {
            std::fs::write(version.join(name), bytes).unwrap();
        }
        std::fs::write(folder.path().join("m/config.toml"), config).unwrap();
        let (runtime, metrics) = (runtime(), Metrics::new());
        let repository =
            Repository::new(folder.path(), ModelControlConfig::default(), runtime.clone(), metrics.clone());
        repository.load_all().unwrap();
        let loaded = repository.get("m", None).unwrap();
        let explain_metrics = ExplainMetrics::register(metrics.registry()).unwrap();
        let explainer = Explainer::new(runtime, explain, PictureLimits::default(), explain_metrics);
        Self { explainer, model: loaded, metrics, _repository: repository, folder }
    }

    async fn explain(&self, request: ExplainRequest) -> Result<Explanation> {
        self.admit(Work::Explanation(request.method))?.explain(request).await
    }

    async fn features(&self, picture: Bytes, layer: &str) -> Result<Features> {
        self.admit(Work::Features)?.features(picture, layer.to_owned()).await
    }

    async fn filters(&self) -> Result<Filters> {
        self.admit(Work::Filters)?.filters().await
    }

    async fn exciting(&self, request: ExcitingRequest, pictures: Vec<Bytes>) -> Result<Exciting> {
        let pictures = pictures.into_iter().enumerate().map(|(index, bytes)| (format!("number {index}"), Ok(bytes)));
        self.admit(Work::Exciting)?.exciting(request, pictures).await
    }

    fn admit(&self, work: Work) -> Result<Admission> {
        self.explainer.admit(self.model.clone(), work, None)
    }

    /// The value of a counter or gauge of this name, whatever its labels.
    fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.registry().gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|it| it.get_counter().get_value() + it.get_gauge().get_value()).sum()
    }

    /// How many requests ended so.
    fn outcomes(&self, outcome: &str) -> f64 {
        let families = self.metrics.registry().gather();
        let family = families.iter().find(|family| family.name() == "convoy_explain_requests_total").unwrap();
        let is_it = |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|it| it.value() == outcome);
        family.get_metric().iter().filter(is_it).map(|it| it.get_counter().get_value()).sum()
    }
}

fn runtime() -> Runtime {
    Runtime::load(None).expect("`cargo xtask setup` fetches ONNX Runtime")
}

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/explain"))
}

fn png(picture: &RgbImage) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

fn decoded(png: &[u8]) -> RgbImage {
    image::load_from_memory(png).unwrap().to_rgb8()
}
