//! A model's `config.toml`, or Triton's `config.pbtxt` in its place. Everything in it has a default, and an unknown key is an error.

mod tables;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

pub use self::tables::{
    BatchingConfig, GoldenClass, GoldenConfig, InstancesConfig, ModelCacheConfig, Tunable, TuningConfig, VersionPolicy,
};
use super::beside;
use super::layout::{CONFIG_FILE, MODEL_FILE, TRITON_CONFIG_FILE};
use super::overrides::is_plain_name;
use super::translate::{Machine, Translation, translate};
use crate::engine::{GraphOptimization, Provider};
use crate::error::{Error, Result};
use crate::postprocess::Scores;
use crate::preprocess::Recipe;
use crate::serde_words::in_words;
use crate::triton;

/// The most that a size in the configuration can be. Each is far beyond use; over it, a slip of the keyboard would take all
/// memory, or threads without end, from the other models.
pub(super) const MAX_BATCH_SIZE: usize = 4096;
const MAX_QUEUE_SIZE: usize = 1 << 20;
const MAX_INSTANCES: usize = 1024;
const MAX_THREADS: usize = 1024;
/// An hour.
const MAX_TUNING_MS: u64 = 3_600_000;

/// A model's configuration, as `config.toml` in its folder gives it, or `config.pbtxt`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The most rows in a batch. Default: the graph's batch dimension where it is fixed, which nothing else can be, else 4 on
    /// a CPU and 32 on a GPU.
    pub max_batch_size: Option<Tunable>,
    /// A text file with one class label a line, beside `config.toml`. Default: `labels.txt` where there is one.
    pub labels: Option<PathBuf>,
    /// The output that holds the class scores. Default: the graph's first.
    pub output: Option<String>,
    /// Whether that output holds `"logits"` or `"probabilities"`. Default: read from the graph, which has probabilities
    /// when it ends in a softmax.
    pub scores: Option<Scores>,
    /// Which versions are loaded: `{ latest = n }`, `"all"` or `{ specific = [1, 3] }`. Default: `{ latest = 1 }`.
    pub versions: VersionPolicy,
    /// The graph's file in a version's folder. Default: `model.onnx`. Where that is a folder, the `model.onnx` in it.
    pub filename: Option<String>,
    /// How far ONNX Runtime rewrites the graph: `"none"`, `"basic"`, `"extended"` or `"all"`, the default.
    pub graph_optimization: GraphOptimization,
    /// How a picture becomes the input tensor.
    pub preprocess: Recipe,
    /// The queue and the batches.
    pub batching: BatchingConfig,
    /// How many instances run the model.
    pub instances: InstancesConfig,
    /// How what is `"auto"` is chosen.
    pub tuning: TuningConfig,
    /// Execution providers in order of preference. Default: the CPU.
    pub providers: Vec<Provider>,
    /// Whether its answers are kept, on a server that keeps answers.
    pub response_cache: ModelCacheConfig,
    /// A picture whose class is known, which must come out before the model serves. Default: none.
    pub golden: Option<GoldenConfig>,
    /// What the others were translated from, where that was Triton's configuration.
    #[serde(skip)]
    pub triton: Option<Arc<triton::ModelConfig>>,
    /// Whether a load call brought it along, so that it stands in no file.
    #[serde(skip)]
    pub is_brought: bool,
}

impl ModelConfig {
    /// Reads the configuration in `folder`, whose name is the model's: `config.toml`, else Triton's `config.pbtxt`, else the defaults.
    /// The log says what of it is without effect, and where a recipe is assumed.
    ///
    /// # Errors
    /// `InvalidArgument` with a message that names the file, and the key and line where that is known.
    pub fn read(folder: &Path, machine: Machine) -> Result<Self> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let model = &*name;
        let path = folder.join(TRITON_CONFIG_FILE);
        if let Some(text) = read_file(&folder.join(CONFIG_FILE))? {
            if path.exists() {
                warn!(model, "there are both {CONFIG_FILE} and {TRITON_CONFIG_FILE}: {CONFIG_FILE} is read");
            }
            return Self::from_toml(&text, &folder.join(CONFIG_FILE));
        }
        let Some(text) = read_file(&path)? else {
            info!(model, "there is no {CONFIG_FILE}: torchvision's ImageNet preprocessing is assumed");
            return Ok(Self::default());
        };
        let translated = triton::parse_text(&text).and_then(|read| translate(read, model, machine));
        let translation = translated.map_err(|reason| Error::invalid(format!("{}: {reason}", path.display())))?;
        Ok(translation.noted(model))
    }

    fn from_toml(text: &str, path: &Path) -> Result<Self> {
        let in_file = |reason: String| Error::invalid(format!("{}: {}", path.display(), reason.trim_end()));
        let config: Self = toml::from_str(text).map_err(|error| in_file(in_words(&error)))?;
        config.check().map_err(in_file)?;
        Ok(config)
    }

    /// Reads a configuration that is brought along, as a JSON object: the keys of `config.toml`, or Triton's.
    ///
    /// # Errors
    /// What is wrong, beginning with the key where that is known.
    pub(super) fn from_json(text: &str, name: &str, machine: Machine) -> Result<Self, String> {
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
            .map_err(|error| format!("it is not a model's configuration as JSON: {}", in_words(&error)))?;
        // Both have a `max_batch_size`, which means the same, and an `output`, which does not.
        let is_tritons = keys.iter().any(|(key, value)| match key.as_str() {
            "max_batch_size" => false,
            "output" => !value.is_string(),
            key => triton::has_field(key),
        });
        if is_tritons {
            let config = translate(triton::parse_json(text)?, name, machine)?.noted(name);
            return Ok(Self { is_brought: true, ..config });
        }
        let config: Self = serde_json::from_value(serde_json::Value::Object(keys))
            .map_err(|error| format!("it is not a model's configuration as JSON: {}", in_words(&error)))?;
        config.check()?;
        Ok(Self { is_brought: true, ..config })
    }

    /// Where the keys or fields stand that an error is about: the file in `folder`, or the parameter of the load call.
    pub(super) fn place(&self, folder: &Path) -> String {
        match (self.is_brought, &self.triton) {
            (true, _) => "config".to_owned(),
            (false, Some(_)) => folder.join(TRITON_CONFIG_FILE).display().to_string(),
            (false, None) => folder.join(CONFIG_FILE).display().to_string(),
        }
    }

    /// The graph in the version's folder `version`.
    pub fn graph(&self, version: &Path) -> PathBuf {
        let path = version.join(self.filename());
        // As in Triton, a folder in the file's place holds a graph and the weights beside it.
        if path.is_dir() { path.join(MODEL_FILE) } else { path }
    }

    /// The name of the graph's file in a version's folder.
    pub(super) fn filename(&self) -> &str {
        self.filename.as_deref().unwrap_or(MODEL_FILE)
    }

    /// Whether no rows of different requests may be put together, as Triton understands a `max_batch_size` of 0 beside inputs or outputs
    /// that are named. Without these, Triton looks into the graph whether it can be batched, and so do we.
    pub(super) fn is_unbatched(&self) -> bool {
        let triton = self.triton.as_ref();
        triton.is_some_and(|read| read.max_batch_size == 0 && !(read.input.is_empty() && read.output.is_empty()))
    }

    /// Whether any number is left to measuring.
    pub fn has_auto(&self) -> bool {
        let InstancesConfig { count, intra_op_threads } = self.instances;
        [self.max_batch_size, count, intra_op_threads].contains(&Some(Tunable::Auto))
    }

    /// What the types cannot say.
    pub(super) fn check(&self) -> Result<(), String> {
        for (key, value, lowest, highest) in [
            ("max_batch_size", self.max_batch_size.and_then(Tunable::number), 1, MAX_BATCH_SIZE),
            ("batching.queue_size", Some(self.batching.queue_size), 0, MAX_QUEUE_SIZE),
            ("instances.count", self.instances.count.and_then(Tunable::number), 1, MAX_INSTANCES),
            ("instances.intra_op_threads", self.instances.intra_op_threads.and_then(Tunable::number), 1, MAX_THREADS),
        ] {
            if value.is_some_and(|value| !(lowest..=highest).contains(&value)) {
                return Err(format!("{key}: must be from {lowest} to {highest}"));
            }
        }
        if self.batching.default_priority == 0 {
            return Err("batching.default_priority: must be at least 1, the most urgent".to_owned());
        }
        if !is_plain_name(self.filename()) {
            return Err("filename: is not the name of a file".to_owned());
        }
        for (key, path) in
            [("labels", self.labels.as_ref()), ("golden.picture", self.golden.as_ref().map(|golden| &golden.picture))]
        {
            path.map_or(Ok(()), |path| beside::check(path)).map_err(|reason| format!("{key}: {reason}"))?;
        }
        if self.golden.as_ref().is_some_and(|golden| !(0.0..=1.0).contains(&golden.min_score)) {
            return Err("golden.min_score: is a probability, from 0 to 1".to_owned());
        }
        if self.max_batch_size == Some(Tunable::Auto)
            && self.batching.buckets.as_ref().is_some_and(|buckets| !buckets.is_empty())
        {
            return Err("batching.buckets: go up to max_batch_size, which must then be a number".to_owned());
        }
        if self.tuning.max_batch_latency_ms.is_some_and(|bound| !(bound > 0.0 && bound <= MAX_TUNING_MS as f64)) {
            return Err(format!("tuning.max_batch_latency_ms: must be over 0 and at most {MAX_TUNING_MS}"));
        }
        if !(1..=MAX_TUNING_MS).contains(&self.tuning.budget_ms) {
            return Err(format!("tuning.budget_ms: must be from 1 to {MAX_TUNING_MS}"));
        }
        match &self.versions {
            VersionPolicy::Latest(0) => Err("versions.latest: must be at least 1".to_owned()),
            VersionPolicy::Specific(versions) if versions.is_empty() => {
                Err("versions.specific: names no version".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Translation {
    /// The configuration. What else there is to say goes to the log.
    fn noted(self, model: &str) -> ModelConfig {
        let Self { config, ignored, assumes_recipe } = self;
        if !ignored.is_empty() {
            warn!(model, "of Triton's configuration this has no effect here: {}", ignored.join("; "));
        }
        if assumes_recipe {
            info!(model, "no parameter convoy.preprocess.… is there: torchvision's ImageNet preprocessing is assumed");
        }
        config
    }
}

/// The text of the file at `path`; `None` where there is none.
fn read_file(path: &Path) -> Result<Option<String>> {
    match beside::read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::invalid(format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { cores: 4, offers_cuda: false };

    fn parse(text: &str) -> Result<ModelConfig> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG_FILE), text).unwrap();
        ModelConfig::read(folder.path(), MACHINE)
    }

    #[test]
    fn everything_has_a_default() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ModelConfig::read(folder.path(), MACHINE).unwrap(), ModelConfig::default());
        assert_eq!(parse("").unwrap(), ModelConfig::default());
    }

    #[test]
    fn providers_and_versions_read_as_documented() {
        let config = parse(
            "versions = { specific = [3, 1, 3] }\n\
             [[providers]]\nname = \"cuda\"\ndevice_ids = [1]\narena_extend_strategy = \"same_as_requested\"\n\
             [[providers]]\nname = \"cpu\"\n",
        )
        .unwrap();
        assert_eq!(config.versions.select(&[1, 2]), [1, 3]);
        assert_eq!(config.providers.iter().map(Provider::as_str).collect::<Vec<_>>(), ["cuda", "cpu"]);
        assert_eq!(config.providers[0].device_ids(), [1]);
        assert_eq!(parse("versions = \"all\"").unwrap().versions.select(&[1, 2]), [1, 2]);
        assert_eq!(parse("versions = { latest = 2 }").unwrap().versions.select(&[1, 2, 5]), [2, 5]);
        assert_eq!(VersionPolicy::Latest(3).select(&[4]), [4]);
    }

    #[test]
    fn what_is_auto_is_left_open_and_numbers_stand() {
        let config = parse("max_batch_size = \"auto\"\n[instances]\ncount = 3").unwrap();
        assert_eq!(config.max_batch_size, Some(Tunable::Auto));
        assert_eq!(config.instances.count, Some(Tunable::Number(3)));
        assert_eq!(config.instances.intra_op_threads, None);
        assert!(config.has_auto() && !ModelConfig::default().has_auto());
        let written = toml::to_string(&config).unwrap();
        assert_eq!(parse(&written).unwrap(), config);
        assert!(parse("max_batch_size = \"four\"").unwrap_err().message().contains("expected a number or \"auto\""));
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        for (text, key) in [
            ("max_batchsize = 4", "max_batchsize"),
            ("[batching]\nqueue = 4", "queue"),
            ("[preprocess]\nreseize = 3", "reseize"),
            ("max_batch_size = 0", "max_batch_size"),
            ("max_batch_size = \"four\"", "max_batch_size"),
            ("[[providers]]\nname = \"cuda\"\ndevice = 1", "device"),
            ("[[providers]]\nname = \"tpu\"", "tpu"),
            ("[[providers]]\nname = \"cpu\"\nthreads = 2", "threads"),
            ("versions = { latest = 0 }", "versions.latest"),
            ("versions = { specific = [] }", "versions.specific"),
            ("[batching]\ndefault_priority = 0", "batching.default_priority"),
            ("[instances]\ncount = 0", "instances.count"),
            ("max_batch_size = 4097", "max_batch_size"),
            ("[batching]\nqueue_size = 9223372036854775807", "batching.queue_size"),
            ("[instances]\ncount = 100000", "instances.count"),
            ("[instances]\nintra_op_threads = 100000", "instances.intra_op_threads"),
            ("[instances]\ncount = \"many\"", "count"),
            ("[instances]\nintra_op_threads = -1", "intra_op_threads"),
            ("max_batch_size = \"auto\"\n[batching]\nbuckets = [2]", "batching.buckets"),
            ("[tuning]\nmax_batch_latency_ms = 0", "tuning.max_batch_latency_ms"),
            ("[tuning]\nmax_batch_latency_ms = nan", "tuning.max_batch_latency_ms"),
            ("[tuning]\nbudget_ms = 0", "tuning.budget_ms"),
            ("labels = \"/etc/passwd\"", "labels"),
            ("labels = \"../other/labels.txt\"", "labels"),
            ("[golden]\npicture = \"/dev/zero\"\nclass = 1", "golden.picture"),
            ("[golden]\npicture = \"a.png\"", "class"),
            ("[golden]\npicture = \"a.png\"\nclass = -1", "class"),
            ("[golden]\npicture = \"a.png\"\nclass = 1\nmin_score = 2.0", "golden.min_score"),
        ] {
            let message = parse(text).unwrap_err().message().to_owned();
            assert!(message.contains("config.toml"), "{message}");
            assert!(message.contains(key), "{key} in: {message}");
        }
    }
}
