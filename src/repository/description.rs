//! How a loaded model is served, as Triton's model configuration, which clients of either protocol read.

use super::Model;
use super::config::{BatchingConfig, VersionPolicy};
use super::layout::LABELS_FILE;
use crate::tensor::TensorSpec;
use crate::triton;
use crate::triton::proto::model_config::SchedulingChoice;
use crate::triton::proto::model_instance_group::Kind;
use crate::triton::proto::model_queue_policy::TimeoutAction;
use crate::triton::proto::model_version_policy::{All, Latest, PolicyChoice, Specific};
use crate::triton::proto::{
    DataType, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput, ModelQueuePolicy, ModelResponseCache,
    ModelTransactionPolicy, ModelVersionPolicy,
};

/// The platform of a graph, as metadata and configuration name it.
const PLATFORM: &str = "onnxruntime_onnx";
/// The platform of an ensemble.
const ENSEMBLE_PLATFORM: &str = "ensemble";
/// The backend of a graph, as the configuration names it.
const BACKEND: &str = "onnxruntime";

impl Model {
    /// The platform that metadata names.
    pub fn platform(&self) -> &'static str {
        if self.is_ensemble() { ENSEMBLE_PLATFORM } else { PLATFORM }
    }

    /// The model's configuration as clients see it: what was read from Triton's, where it was read from there, and over it what
    /// is really served. An ensemble has no instances and no queue of its own.
    pub fn describe(&self) -> triton::ModelConfig {
        let graph = self.graph();
        let batched = graph.filter(|graph| !graph.has_fixed_batch() && !self.config().is_unbatched());
        let read = self.config().triton.as_deref();
        let input = read.and_then(|read| read.input.first()).cloned().unwrap_or_default();
        let describe_output = |spec: &TensorSpec| {
            let named = read.and_then(|read| read.output.iter().find(|output| output.name == spec.name)).cloned();
            let output = named
                .unwrap_or_else(|| ModelOutput { label_filename: self.label_filename(), ..ModelOutput::default() });
            ModelOutput {
                name: spec.name.clone(),
                data_type: DataType::from(spec.data_type).into(),
                dims: dims(spec, batched.is_some()),
                ..output
            }
        };
        let mut described = triton::ModelConfig {
            name: self.name().to_owned(),
            platform: self.platform().to_owned(),
            version_policy: Some(version_policy(&self.config().versions)),
            max_batch_size: batched.map_or(0, |graph| saturated(graph.max_batch_size())),
            input: vec![ModelInput {
                name: self.input().name.clone(),
                data_type: DataType::from(self.input().data_type).into(),
                dims: dims(self.input(), batched.is_some()),
                ..input
            }],
            output: self.outputs().iter().map(describe_output).collect(),
            // Nothing is batched where the graph, or its configuration, does not let it.
            scheduling_choice: batched.map(|_| dynamic_batching(&self.config().batching, read)),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
            ..read.cloned().unwrap_or_default()
        };
        if let Some(graph) = graph {
            BACKEND.clone_into(&mut described.backend);
            described.response_cache = Some(ModelResponseCache { enable: graph.cache().is_some() });
            self.config().filename().clone_into(&mut described.default_model_filename);
            let provider = self.config().providers.iter().find(|provider| provider.as_str() == graph.provider());
            let gpus = provider.filter(|provider| provider.is_gpu()).map(|provider| provider.device_ids().to_vec());
            let devices = gpus.as_ref().map_or(1, Vec::len);
            described.instance_group = vec![ModelInstanceGroup {
                name: self.name().to_owned(),
                kind: if gpus.is_some() { Kind::Gpu } else { Kind::Cpu }.into(),
                count: saturated(graph.scheduler().instance_count() / devices),
                gpus: gpus.unwrap_or_default(),
                ..ModelInstanceGroup::default()
            }];
        }
        described
    }

    fn label_filename(&self) -> String {
        match &self.config().labels {
            _ if self.labels().is_empty() => String::new(),
            Some(path) => path.to_string_lossy().into_owned(),
            None => LABELS_FILE.to_owned(),
        }
    }
}

/// The dimensions without the batch, unless that is fixed or not to be batched; `-1` where the graph leaves one open.
fn dims(spec: &TensorSpec, is_batched: bool) -> Vec<i64> {
    if is_batched { spec.shape.get(1..).unwrap_or_default().to_vec() } else { spec.shape.clone() }
}

fn version_policy(policy: &VersionPolicy) -> ModelVersionPolicy {
    let choice = match policy {
        VersionPolicy::Latest(count) => PolicyChoice::Latest(Latest { num_versions: saturated(*count) }),
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Specific(versions) => {
            PolicyChoice::Specific(Specific { versions: versions.iter().map(|&version| saturated(version)).collect() })
        }
    };
    ModelVersionPolicy { policy_choice: Some(choice) }
}

fn dynamic_batching(batching: &BatchingConfig, read: Option<&triton::ModelConfig>) -> SchedulingChoice {
    let read = match read.and_then(|read| read.scheduling_choice.as_ref()) {
        Some(SchedulingChoice::DynamicBatching(read)) => read.clone(),
        _ => ModelDynamicBatching::default(),
    };
    SchedulingChoice::DynamicBatching(ModelDynamicBatching {
        max_queue_delay_microseconds: batching.max_queue_delay_us,
        default_priority_level: batching.default_priority.into(),
        default_queue_policy: Some(ModelQueuePolicy {
            timeout_action: TimeoutAction::Reject.into(),
            default_timeout_microseconds: batching.default_timeout_ms.saturating_mul(1000),
            allow_timeout_override: true,
            max_queue_size: saturated(batching.queue_size),
        }),
        ..read
    })
}

/// A number in a narrower type of the message, whose largest stands for anything above.
fn saturated<N, W: TryFrom<N> + Bounded>(number: N) -> W {
    W::try_from(number).unwrap_or(W::MAX)
}

trait Bounded {
    const MAX: Self;
}

impl Bounded for i32 {
    const MAX: Self = i32::MAX;
}

impl Bounded for u32 {
    const MAX: Self = u32::MAX;
}

impl Bounded for i64 {
    const MAX: Self = i64::MAX;
}
