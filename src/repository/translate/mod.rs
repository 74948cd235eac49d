//! From Triton's model configuration to convoy's.
//!
//! Pure: no file, no graph, no log. Every field of the message ends in one of three ways. It is translated; it is named among what
//! is [ignored](Translation::ignored), because leaving it out changes how fast a model answers and not what; or it is an error.
//! `docs/migrating-from-triton.md` has the table.

mod batching;
mod devices;
mod parameters;
mod tensors;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use self::devices::needs_gpu;
pub(super) use self::tensors::check;
use super::config::{ModelCacheConfig, ModelConfig, Tunable, VersionPolicy};
use super::overrides::is_plain_name;
use crate::engine::{GraphOptimization, Runtime};
use crate::triton;
use crate::triton::proto::model_config::SchedulingChoice;
use crate::triton::proto::model_optimization_policy::ModelPriority;
use crate::triton::proto::model_version_policy::PolicyChoice;
use crate::triton::proto::{ModelOptimizationPolicy, ModelVersionPolicy};

/// What a configuration may be translated differently for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// How many threads run at the same time.
    pub cores: usize,
    /// Whether ONNX Runtime has the CUDA provider.
    pub offers_cuda: bool,
}

impl Machine {
    /// This machine, with the library that `runtime` is.
    pub fn of(runtime: &Runtime) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cores, offers_cuda: runtime.offers_cuda() }
    }
}

/// What has become of a configuration.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) config: ModelConfig,
    /// The fields without effect here, each with a word why.
    pub(super) ignored: Vec<String>,
    /// Whether nothing is said of how a picture becomes the input tensor.
    pub(super) assumes_recipe: bool,
}

/// Translates the configuration of the model called `name`.
///
/// # Errors
/// What cannot be served so, beginning with the field.
pub(super) fn translate(read: triton::ModelConfig, name: &str, machine: Machine) -> Result<Translation, String> {
    check_identity(&read, name)?;
    refuse_what_changes_answers(&read)?;
    let mut ignored = hints(&read);
    let max_batch_size = max_batch_size(&read)?;
    let mut config = ModelConfig {
        max_batch_size: max_batch_size.map(Tunable::Number),
        versions: versions(read.version_policy.as_ref())?,
        filename: filename(&read.default_model_filename)?,
        graph_optimization: graph_optimization(read.optimization.as_ref(), &mut ignored),
        response_cache: ModelCacheConfig { enabled: read.response_cache.is_some_and(|cache| cache.enable) },
        ..ModelConfig::default()
    };
    if let Some(SchedulingChoice::DynamicBatching(read)) = &read.scheduling_choice {
        batching::translate(read, max_batch_size, &mut config.batching, &mut ignored)?;
    }
    devices::translate(&read, machine, &mut config, &mut ignored)?;
    tensors::translate(&read, &mut config, &mut ignored)?;
    let mut config = parameters::lay_over(config, &read.parameters)?;
    config.check()?;
    let assumes_recipe = !read.parameters.keys().any(|key| key.starts_with(parameters::RECIPE));
    config.triton = Some(Arc::new(read));
    Ok(Translation { config, ignored, assumes_recipe })
}

fn check_identity(read: &triton::ModelConfig, name: &str) -> Result<(), String> {
    if !read.name.is_empty() && read.name != name {
        return Err(format!("name: is {}, but the model's folder is called {name}", read.name));
    }
    if read.platform == "ensemble" {
        return Err("platform: an ensemble of Triton's is not served; convoy has ensembles of its own".to_owned());
    }
    for (field, value, served) in
        [("platform", &read.platform, "onnxruntime_onnx"), ("backend", &read.backend, "onnxruntime")]
    {
        if !value.is_empty() && value != served {
            return Err(format!("{field}: {value} is not served here, only {served}"));
        }
    }
    Ok(())
}

fn refuse_what_changes_answers(read: &triton::ModelConfig) -> Result<(), String> {
    let agents = read.model_repository_agents.as_ref().is_some_and(|agents| !agents.agents.is_empty());
    let libraries = read.model_operations.as_ref().is_some_and(|operations| !operations.op_library_filename.is_empty());
    for (field, is_there, reason) in [
        (
            "sequence_batching",
            matches!(read.scheduling_choice, Some(SchedulingChoice::SequenceBatching(_))),
            "a picture has no sequence, and requests are not kept together",
        ),
        (
            "ensemble_scheduling",
            matches!(read.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_))),
            "convoy has ensembles of its own: `members` in config.toml",
        ),
        (
            "model_transaction_policy.decoupled",
            read.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled),
            "a request has one answer",
        ),
        ("batch_input", !read.batch_input.is_empty(), "a picture is all that a model is given"),
        ("batch_output", !read.batch_output.is_empty(), "outputs are not scattered by the inputs' shapes"),
        ("model_operations.op_library_filename", libraries, "libraries of operators are not loaded"),
        ("model_repository_agents", agents, "none is run, and what they would check or change is not known"),
    ] {
        if is_there {
            return Err(format!("{field}: is not supported: {reason}"));
        }
    }
    Ok(())
}

/// What is there and without effect. That leaves answers as they are.
fn hints(read: &triton::ModelConfig) -> Vec<String> {
    let default = ModelOptimizationPolicy::default();
    let optimization = read.optimization.as_ref().unwrap_or(&default);
    [
        ("optimization.cuda", optimization.cuda.is_some(), ""),
        ("optimization.priority", optimization.priority() != ModelPriority::PriorityDefault, ""),
        ("optimization.input_pinned_memory", optimization.input_pinned_memory.is_some(), ""),
        ("optimization.output_pinned_memory", optimization.output_pinned_memory.is_some(), ""),
        ("optimization.gather_kernel_buffer_threshold", optimization.gather_kernel_buffer_threshold != 0, ""),
        ("optimization.eager_batching", optimization.eager_batching, ""),
        ("model_warmup", !read.model_warmup.is_empty(), "zeros are run in every size of batch in any case"),
        ("cc_model_filenames", !read.cc_model_filenames.is_empty(), "every device runs the same file"),
        ("metric_tags", !read.metric_tags.is_empty(), ""),
        ("model_metrics", read.model_metrics.is_some(), ""),
        ("runtime", !read.runtime.is_empty(), ""),
    ]
    .into_iter()
    .filter(|(_, is_there, _)| *is_there)
    .map(|(field, _, reason)| if reason.is_empty() { field.to_owned() } else { format!("{field} ({reason})") })
    .collect()
}

/// Where the message says 0, the graph decides; see [`ModelConfig::is_unbatched`].
fn max_batch_size(read: &triton::ModelConfig) -> Result<Option<usize>, String> {
    let size = usize::try_from(read.max_batch_size).map_err(|_| "max_batch_size: must not be negative".to_owned())?;
    Ok((size > 0).then_some(size))
}

fn versions(read: Option<&ModelVersionPolicy>) -> Result<VersionPolicy, String> {
    match read.and_then(|read| read.policy_choice.as_ref()) {
        None => Ok(VersionPolicy::default()),
        Some(PolicyChoice::All(_)) => Ok(VersionPolicy::All),
        Some(PolicyChoice::Latest(latest)) => Ok(VersionPolicy::Latest(latest.num_versions as usize)),
        Some(PolicyChoice::Specific(specific)) => {
            let versions = specific.versions.iter().map(|&version| u64::try_from(version)).collect::<Result<_, _>>();
            let versions = versions.map_err(|_| "version_policy.specific: a version is not negative".to_owned())?;
            Ok(VersionPolicy::Specific(versions))
        }
    }
}

fn filename(read: &str) -> Result<Option<String>, String> {
    if !read.is_empty() && !is_plain_name(read) {
        return Err(format!("default_model_filename: `{read}` is not the name of a file"));
    }
    Ok(Some(read.to_owned()).filter(|name| !name.is_empty()))
}

/// The levels have Triton's own numbers, which are not ONNX Runtime's.
fn graph_optimization(read: Option<&ModelOptimizationPolicy>, ignored: &mut Vec<String>) -> GraphOptimization {
    match read.and_then(|read| read.graph.as_ref()).map_or(0, |graph| graph.level) {
        -1 => GraphOptimization::Basic,
        0 => GraphOptimization::All,
        1 => GraphOptimization::Extended,
        2 => GraphOptimization::None,
        other => {
            ignored.push(format!("optimization.graph.level (there is no level {other})"));
            GraphOptimization::All
        }
    }
}
