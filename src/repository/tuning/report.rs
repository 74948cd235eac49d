//! Tuning a model that does not serve: what `convoy tune` does.

use serde::Serialize;

use super::measure::Sessions;
use super::sweep::sweep;
use super::{Subject, Sweep, Tuning, goal, space};
use crate::engine::Graph;
use crate::error::{Error, Result};
use crate::preprocess::Preprocessor;
use crate::repository::config::{ModelConfig, Tunable};
use crate::repository::ensemble::Definition;
use crate::repository::overrides::is_plain_name;
use crate::repository::{Machine, Repository, instances, interface, layout};

/// What [`Repository::tune`] does beyond choosing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TuneOptions {
    /// Measure even if the cache has a choice.
    pub is_fresh: bool,
    /// Measure every setup, to tell how good the choice is.
    pub is_full: bool,
}

/// How a model was tuned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TuningReport {
    /// The model's name.
    pub model_name: String,
    /// The version whose graph was measured.
    pub model_version: u64,
    /// The execution provider: `"cpu"`, `"cuda"` or `"tensorrt"`.
    pub provider: &'static str,
    /// The cores that this process may use.
    pub cores: usize,
    /// The choice.
    #[serde(flatten)]
    pub tuning: Tuning,
    /// How it stands among all setups, where that was asked for.
    pub full_sweep: Option<Sweep>,
}

impl Repository {
    /// The names of the models that can be tuned: all but the ensembles.
    ///
    /// # Errors
    /// `NotFound` when the repository cannot be read.
    pub fn tunable(&self) -> Result<Vec<String>> {
        let models = layout::models(&self.root)?.into_iter();
        Ok(models.filter(|(_, folder)| !Definition::is_in(folder)).map(|(name, _)| name).collect())
    }

    /// Chooses how the model called `name` is best run, the highest of the versions that its policy picks, and caches that. The
    /// numbers in its configuration stand; what this does not name, or calls `"auto"`, is chosen. Nothing is loaded. Blocks.
    ///
    /// # Errors
    /// `NotFound` where there is no such model, `InvalidArgument` for an ensemble and where nothing is left to choose, and why
    /// the model cannot be run.
    pub fn tune(&self, name: &str, options: TuneOptions) -> Result<TuningReport> {
        let folder = self.root.join(name);
        if !is_plain_name(name) || !folder.is_dir() {
            return Err(Error::not_found(format!("there is no model {name} in {}", self.root.display())));
        }
        if Definition::is_in(&folder) {
            return Err(Error::invalid(format!("{name} is an ensemble: tune its members")));
        }
        let config = left_open(ModelConfig::read(&folder, Machine::of(&self.runtime))?);
        let no_version = || Error::not_found(format!("{}: there is no version folder", folder.display()));
        let version = config.versions.select(&layout::versions(&folder)?).pop().ok_or_else(no_version)?;
        let path = config.graph(&folder.join(version.to_string()));
        if !path.is_file() {
            return Err(Error::not_found(format!("{}: there is no such file", path.display())));
        }
        let (mut graph, first) = Graph::load(&self.runtime, &path, &instances::graph_options(&config))?;
        let provider = graph.provider().as_str();
        let input = first.input().clone();
        // The sessions that are measured are made one by one.
        drop(first);
        let fixed_batch = instances::fixed_batch(interface::check_input(&input)?, &config);
        let preprocessor = Preprocessor::new(&config.preprocess, &input.shape[1..], input.data_type)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let mut subject = Subject {
            runtime: &self.runtime,
            graph: &mut graph,
            path: &path,
            fixed_batch,
            row_shape: preprocessor.row_shape(),
            data_type: input.data_type,
        };
        let (_, tuning) = self.tuner.tune(&mut subject, &config, options.is_fresh)?;
        let nothing = || Error::invalid(format!("{name}: its configuration and its graph leave nothing to choose"));
        let tuning = tuning.ok_or_else(nothing)?;
        let full_sweep = if options.is_full {
            let all = space(&subject, &config).map_err(Error::invalid)?.all();
            let mut sessions = Sessions::new(subject.graph, subject.row_shape, &self.tuner.is_stopped);
            Some(sweep(&mut sessions, &all, tuning.choice, &goal(&config))?)
        } else {
            None
        };
        let cores = instances::cores();
        Ok(TuningReport { model_name: name.to_owned(), model_version: version, provider, cores, tuning, full_sweep })
    }
}

/// The configuration with `"auto"` where it names nothing.
fn left_open(mut config: ModelConfig) -> ModelConfig {
    // Buckets go up to a largest batch, which must be known.
    if config.batching.buckets.as_ref().is_none_or(Vec::is_empty) {
        config.max_batch_size.get_or_insert(Tunable::Auto);
    }
    config.instances.count.get_or_insert(Tunable::Auto);
    config.instances.intra_op_threads.get_or_insert(Tunable::Auto);
    config
}
