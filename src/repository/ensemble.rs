//! Ensembles: several models of the repository that answer as one, with the average of their scores.
//!
//! An ensemble has no graph. Its `config.toml` names its members, which serve their own requests besides; what it is and whether it
//! can answer follows from them, so it is put together anew for each request out of the members that are ready then. That pins
//! their versions for as long as the request lives, and follows a member that is loaded again.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::config::{BatchingConfig, ModelConfig};
use super::graph_model::GraphModel;
use super::interface::{ClassOutput, Interface};
use super::layout::CONFIG_FILE;
use super::model::{Kind, Model};
use super::{beside, labels, layout};
use crate::error::{Error, Result};
use crate::postprocess::Scores;
use crate::scheduler::statistics::{Recorder, Statistics};
use crate::serde_words::in_words;
use crate::telemetry::{Metrics, ModelMetrics, Outcome, Trace};
use crate::tensor::{DataType, TensorSpec};

/// An ensemble, put together out of members that are ready.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Member>,
    loaded: SystemTime,
    requests: Arc<Requests>,
}

/// A member of an ensemble.
#[derive(Debug, Clone)]
pub struct Member {
    /// The model's name.
    pub name: String,
    /// What runs it.
    pub graph: Arc<GraphModel>,
    /// Its share of the average, over the sum of all members' weights.
    pub weight: f64,
}

/// An ensemble's own counts of requests, which outlive each putting together.
#[derive(Debug)]
pub(super) struct Requests {
    recorder: Recorder,
    metrics: ModelMetrics,
}

/// An ensemble as its folder says it.
#[derive(Debug)]
pub(super) struct Definition {
    name: String,
    version: u64,
    path: PathBuf,
    config: EnsembleConfig,
    /// From the ensemble's own file, else empty.
    labels: Vec<Arc<str>>,
    loaded: SystemTime,
    requests: Arc<Requests>,
}

/// The `config.toml` of an ensemble.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnsembleConfig {
    /// The models, by name, or with a version and a weight.
    members: Vec<MemberConfig>,
    /// What is averaged: `"probabilities"` or `"logits"`. Default: probabilities.
    #[serde(default = "probabilities")]
    average: Scores,
    /// A text file with one class label a line. Default: `labels.txt` where there is one, else the labels of the first member
    /// that has some.
    labels: Option<PathBuf>,
    /// The defaults of requests.
    #[serde(default)]
    batching: EnsembleBatching,
}

fn probabilities() -> Scores {
    Scores::Probabilities
}

/// One of `members`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a member is a model's name, or a table of name, version and weight")]
enum MemberConfig {
    Name(String),
    Table(MemberTable),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberTable {
    name: String,
    /// Default: the highest that is ready.
    version: Option<u64>,
    /// Default: 1.
    #[serde(default = "one")]
    weight: f64,
}

fn one() -> f64 {
    1.0
}

/// The weights that a member can have. Their sums and products are far from where floating-point numbers end.
const WEIGHTS: RangeInclusive<f64> = 1e-6..=1e6;

/// The `[batching]` table of an ensemble: the queues are the members'.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EnsembleBatching {
    default_timeout_ms: u64,
    default_priority: Option<u32>,
}

impl EnsembleConfig {
    /// Reads `path`; `None` where it is no ensemble's.
    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = Self::text(path) else { return Ok(None) };
        let in_file = |reason: String| Error::invalid(format!("{}: {}", path.display(), reason.trim_end()));
        let config: Self = toml::from_str(&text).map_err(|error| in_file(in_words(&error)))?;
        config.check().map_err(in_file)?;
        Ok(Some(config))
    }

    /// Reads a configuration that is brought along; `None` where it is no ensemble's.
    fn from_json(text: &str) -> Result<Option<Self>, String> {
        // Whatever is wrong with another, a graph's configuration says.
        let is_ensemble = |keys: &serde_json::Value| keys.get("members").is_some();
        let Some(keys) = serde_json::from_str(text).ok().filter(is_ensemble) else { return Ok(None) };
        let config: Self = serde_json::from_value(keys)
            .map_err(|error| format!("it is not an ensemble's configuration as JSON: {}", in_words(&error)))?;
        config.check()?;
        Ok(Some(config))
    }

    /// The text of `path` where it is an ensemble's. Whatever else is wrong with the file, a graph's configuration says.
    fn text(path: &Path) -> Option<String> {
        let text = beside::read_text(path).ok()?;
        text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("members")).then_some(text)
    }

    /// What the types cannot say.
    fn check(&self) -> Result<(), String> {
        if self.members.is_empty() {
            return Err("members: names no model".to_owned());
        }
        if self.members.iter().any(|member| !WEIGHTS.contains(&member.weight())) {
            return Err(format!("members: a weight must be from {} to {}", WEIGHTS.start(), WEIGHTS.end()));
        }
        let labels = self.labels.as_ref().map_or(Ok(()), |path| beside::check(path));
        labels.map_err(|reason| format!("labels: {reason}"))?;
        if self.batching.default_priority == Some(0) {
            return Err("batching.default_priority: must be at least 1, the most urgent".to_owned());
        }
        Ok(())
    }
}

impl MemberConfig {
    fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Table(MemberTable { name, .. }) => name,
        }
    }

    fn version(&self) -> Option<u64> {
        match self {
            Self::Name(_) => None,
            Self::Table(table) => table.version,
        }
    }

    fn weight(&self) -> f64 {
        match self {
            Self::Name(_) => one(),
            Self::Table(table) => table.weight,
        }
    }
}

impl Definition {
    /// Reads the ensemble in `folder`; `None` where there is none. Its version is that of the highest version folder, which it does
    /// not need, else 1.
    ///
    /// # Errors
    /// `InvalidArgument` with a message that names the file and the key.
    pub(super) fn read(metrics: &Metrics, folder: &Path, name: &str) -> Result<Option<Self>> {
        let path = folder.join(CONFIG_FILE);
        let config = EnsembleConfig::read(&path)?;
        config.map(|config| Self::new(metrics, folder, name, path, config)).transpose()
    }

    /// Reads the ensemble that a load call brings along as JSON; `None` where that is none. Its labels are in `folder`.
    ///
    /// # Errors
    /// `InvalidArgument` with a message that names the key.
    pub(super) fn from_json(metrics: &Metrics, folder: &Path, name: &str, text: &str) -> Result<Option<Self>> {
        let config = EnsembleConfig::from_json(text).map_err(|reason| Error::invalid(format!("config: {reason}")))?;
        config.map(|config| Self::new(metrics, folder, name, "config".into(), config)).transpose()
    }

    /// `path` names in errors what `config` was read from.
    fn new(metrics: &Metrics, folder: &Path, name: &str, path: PathBuf, config: EnsembleConfig) -> Result<Self> {
        let version = layout::versions(folder)?.last().copied().unwrap_or(1);
        let labels = labels::read(folder, config.labels.as_deref(), None)?;
        let requests = Arc::new(Requests { recorder: Recorder::default(), metrics: metrics.model(name, version) });
        let loaded = SystemTime::now();
        Ok(Self { name: name.to_owned(), version, path, config, labels, loaded, requests })
    }

    /// Whether the model in `folder` is an ensemble.
    pub(super) fn is_in(folder: &Path) -> bool {
        EnsembleConfig::text(&folder.join(CONFIG_FILE)).is_some()
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether a request holds the ensemble, in whichever form it was put together.
    pub(super) fn is_held(&self) -> bool {
        Arc::strong_count(&self.requests) > 1
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &str> {
        self.config.members.iter().map(MemberConfig::name)
    }

    /// Puts the ensemble together out of the members that `find` gives by name and version; `None` for one that is an ensemble.
    ///
    /// # Errors
    /// `Unavailable` when one is missing, is an ensemble itself, or has other classes than the first; the message names it.
    pub(super) fn assemble(&self, find: impl Fn(&str, Option<u64>) -> Result<Option<Arc<Model>>>) -> Result<Model> {
        let in_config = |reason: String| Error::unavailable(format!("{}: members: {reason}", self.path.display()));
        let models = self.config.members.iter().map(|member| {
            let model = find(member.name(), member.version())?;
            let graph = model.as_ref().and_then(|model| model.graph().cloned());
            model.zip(graph).ok_or_else(|| {
                Error::unavailable(format!("{} is an ensemble itself, which cannot be a member", member.name()))
            })
        });
        let models = models.collect::<Result<Vec<_>>>().map_err(|error| in_config(error.message().to_owned()))?;
        let mut members: Vec<Member> = Vec::with_capacity(models.len());
        let mut class_count = None;
        for ((model, graph), config) in models.iter().zip(&self.config.members) {
            let name = model.name();
            match (model.class_count(), class_count) {
                (None, _) => {
                    return Err(in_config(format!("the graph of {name} does not say how many classes it has")));
                }
                (Some(found), Some(expected)) if found != expected => {
                    let first = models[0].0.name();
                    return Err(in_config(format!("{name} has {found} classes, but {first} has {expected}")));
                }
                (found, _) => class_count = found,
            }
            // A model that is named twice is run once. It would take places beside its own, and might never get as many.
            match members.iter_mut().find(|member| Arc::ptr_eq(&member.graph, graph)) {
                Some(member) => member.weight += config.weight(),
                None => {
                    members.push(Member { name: name.to_owned(), graph: Arc::clone(graph), weight: config.weight() });
                }
            }
        }
        let theirs = models.iter().map(|(model, _)| model.labels()).find(|labels| !labels.is_empty());
        let labels = if self.labels.is_empty() { theirs.unwrap_or_default() } else { &self.labels };
        if !labels.is_empty() && Some(labels.len()) != class_count {
            let count = class_count.unwrap_or_default();
            let message = format!("labels: has {} lines, but the members have {count} classes", labels.len());
            return Err(Error::unavailable(format!("{}: {message}", self.path.display())));
        }
        let loaded = members.iter().map(|member| member.graph.loaded).fold(self.loaded, SystemTime::max);
        Ok(Model {
            name: self.name.clone(),
            version: self.version,
            config: self.model_config(),
            labels: labels.to_vec(),
            kind: Kind::Ensemble(Ensemble { members, loaded, requests: Arc::clone(&self.requests) }),
            wire: None,
            interface: self.interface(class_count),
        })
    }

    /// Pictures in, `[N, classes]` out. The output is called what it holds.
    fn interface(&self, class_count: Option<usize>) -> Arc<Interface> {
        let name = match self.config.average {
            Scores::Probabilities => "probabilities",
            Scores::Logits => "logits",
        };
        let shape = vec![-1, class_count.map_or(-1, |count| count as i64)];
        Arc::new(Interface {
            input: TensorSpec { name: "input".to_owned(), data_type: DataType::Bytes, shape: vec![-1] },
            outputs: vec![TensorSpec { name: name.to_owned(), data_type: DataType::Fp32, shape }],
            class_output: ClassOutput { index: 0, scores: self.config.average },
            branches: Vec::new(),
            class_count,
        })
    }

    /// What of a model's configuration an ensemble has.
    fn model_config(&self) -> ModelConfig {
        let defaults = BatchingConfig::default();
        let EnsembleBatching { default_timeout_ms, default_priority } = self.config.batching;
        let default_priority = default_priority.unwrap_or(defaults.default_priority);
        ModelConfig {
            labels: self.config.labels.clone(),
            batching: BatchingConfig { default_timeout_ms, default_priority, ..defaults },
            ..ModelConfig::default()
        }
    }
}

impl Ensemble {
    /// The members, in the configuration's order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// When it, or one of its members, was loaded last.
    pub(super) fn loaded(&self) -> SystemTime {
        self.loaded
    }

    /// The counts of requests.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }
}

impl Requests {
    pub(super) fn record(&self, protocol: &str, outcome: Outcome, took: Duration, trace: &Trace) {
        self.metrics.record_request(protocol, outcome, took, trace);
        self.recorder.record_request(outcome == Outcome::Success, took);
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.recorder.snapshot()
    }

    pub(super) fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<EnsembleConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG_FILE);
        std::fs::write(&path, text).unwrap();
        EnsembleConfig::read(&path)
    }

    #[test]
    fn members_are_names_or_tables() {
        let config = read("members = ['a', 'b']").unwrap().unwrap();
        assert_eq!(
            config.members.iter().map(|it| (it.name(), it.weight())).collect::<Vec<_>>(),
            [("a", 1.0), ("b", 1.0)]
        );
        assert_eq!(config.average, Scores::Probabilities);
        let config = read("average = 'logits'\n[[members]]\nname = 'a'\nversion = 3\nweight = 2.5\n").unwrap().unwrap();
        assert_eq!((config.members[0].version(), config.members[0].weight()), (Some(3), 2.5));
        assert_eq!(config.average, Scores::Logits);
        assert_eq!(read("max_batch_size = 4").unwrap(), None);
        assert_eq!(read("members = [").unwrap(), None, "a graph's configuration says what is wrong with it");
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        let members = "members = ['a']\n";
        for (text, key) in [
            ("members = []", "members"),
            ("members = 'a'", "members"),
            ("members = [1]", "members"),
            ("members = [{ name = 'a', weight = 0 }]", "weight"),
            ("members = [{ name = 'a', weight = nan }]", "weight"),
            ("members = [{ name = 'a', weight = -1 }]", "weight"),
            ("members = [{ name = 'a', weight = 1e308 }, { name = 'b', weight = 1e308 }]", "weight"),
            ("members = [{ name = 'a', weight = 5e-324 }]", "weight"),
            ("members = [{ version = 1 }]", "members"),
            (&format!("{members}average = 'medians'"), "average"),
            (&format!("{members}versions = 'all'"), "versions"),
            (&format!("{members}providers = [{{ name = 'cpu' }}]"), "providers"),
            (&format!("{members}max_batch_size = 3"), "max_batch_size"),
            (&format!("{members}[instances]\ncount = 1"), "instances"),
            (&format!("{members}[preprocess]\ncrop = 3"), "preprocess"),
            (&format!("{members}[batching]\nqueue_size = 3"), "queue_size"),
            (&format!("{members}[batching]\ndefault_priority = 0"), "batching.default_priority"),
        ] {
            let message = read(text).unwrap_err().message().to_owned();
            assert!(message.contains("config.toml") && message.contains(key), "{key} in: {message}");
        }
    }
}
