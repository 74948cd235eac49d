//! A model in this process, for the verbs that need no server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use crate::engine::Runtime;
use crate::inference::{Inference, Limits};
use crate::repository::tuning::TuningCacheConfig;
use crate::repository::{Model, ModelControlConfig, Repository};
use crate::store::{Store, StoreConfig};
use crate::telemetry::Metrics;

/// Which model, and where it is.
#[derive(Debug, Args)]
pub(super) struct LocalArgs {
    /// The model; needed where the repository has several
    #[arg(long)]
    model: Option<String>,

    /// The model's version [default: the highest]
    #[arg(long)]
    version: Option<u64>,

    /// The folder that holds the models, or a store of them: an archive, an image layout, `s3://bucket/prefix`
    #[arg(long, value_name = "DIR", default_value = "models", env = "CONVOY_MODEL_REPOSITORY")]
    model_repository: PathBuf,

    /// ONNX Runtime's library [default: ORT_DYLIB_PATH, then beside the executable, then target/onnxruntime]
    #[arg(long, value_name = "FILE")]
    onnxruntime_library: Option<PathBuf>,
}

/// A loaded model and what runs it.
pub(super) struct Local {
    pub(super) runtime: Runtime,
    pub(super) metrics: Metrics,
    pub(super) inference: Inference,
    pub(super) model: Arc<Model>,
}

/// Loads the model. Blocks.
///
/// # Errors
/// When ONNX Runtime or the model cannot be loaded, or it does not say which model.
pub(super) fn load(args: &LocalArgs, limits: &Limits) -> Result<Local> {
    let runtime = Runtime::load(args.onnxruntime_library.as_deref())?;
    let metrics = Metrics::new();
    let control = ModelControlConfig::default();
    let store = Store::open(&args.model_repository, &StoreConfig::default(), metrics.registry())?;
    let root = store.as_ref().map_or(args.model_repository.as_path(), Store::root).to_owned();
    if let Some(store) = &store {
        store.start(|_| true)?;
    }
    let repository = Repository::new(root, control, runtime.clone(), metrics.clone()).with_store(store);
    let repository = Arc::new(repository.with_tuning_cache(TuningCacheConfig::default().folder()));
    match &args.model {
        Some(name) => repository.load_one(name)?,
        None => repository.load_all()?,
    }
    let inference = Inference::new(repository, limits.clone(), args.model.clone());
    let default = || inference.default_model("name one with --model");
    let model = match (&args.model, args.version) {
        (Some(name), version) => inference.model(name, version),
        (None, None) => default(),
        (None, Some(version)) => default().and_then(|model| inference.model(model.name(), Some(version))),
    }?;
    Ok(Local { runtime, metrics, inference, model })
}
