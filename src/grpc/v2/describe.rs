//! Metadata, configuration and the repository index.

use super::super::proto::inference as pb;
use super::super::proto::inference::model_config::SchedulingChoice;
use super::super::proto::inference::model_metadata_response::TensorMetadata;
use super::super::proto::inference::model_version_policy::{All, Latest, PolicyChoice, Specific};
use super::super::proto::inference::repository_index_response::ModelIndex;
use crate::inference::EXTENSIONS;
use crate::repository::config::{BatchingConfig, VersionPolicy};
use crate::repository::{Description, IndexEntry, Model, TensorDescription};
use crate::tensor::{DataType, TensorSpec};

/// The server's metadata.
pub(super) fn server() -> pb::ServerMetadataResponse {
    pb::ServerMetadataResponse {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.iter().map(|&extension| extension.to_owned()).collect(),
    }
}

/// A model's metadata; `versions` are those that are ready.
pub(super) fn model(model: &Model, versions: &[u64]) -> pb::ModelMetadataResponse {
    pb::ModelMetadataResponse {
        name: model.name().to_owned(),
        versions: versions.iter().map(u64::to_string).collect(),
        platform: model.platform().to_owned(),
        inputs: vec![tensor(model.input())],
        outputs: model.outputs().iter().map(tensor).collect(),
    }
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata { name: spec.name.clone(), datatype: spec.data_type.as_str().to_owned(), shape: spec.shape.clone() }
}

/// One row of the repository index.
pub(super) fn index_entry(entry: IndexEntry) -> ModelIndex {
    ModelIndex {
        name: entry.name,
        version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
        state: entry.state.as_str().to_owned(),
        reason: entry.reason,
    }
}

/// A model's configuration.
pub(super) fn config(model: &Description<'_>) -> pb::ModelConfig {
    let output = |output: &TensorDescription| pb::ModelOutput {
        name: output.name.to_owned(),
        data_type: data_type(output.data_type).into(),
        dims: output.dims.to_vec(),
        label_filename: model.label_filename.to_owned(),
    };
    let kind = if model.is_on_gpu { pb::model_instance_group::Kind::Gpu } else { pb::model_instance_group::Kind::Cpu };
    let group = pb::ModelInstanceGroup {
        name: model.name.to_owned(),
        count: saturated(model.instance_count),
        kind: kind.into(),
    };
    pb::ModelConfig {
        name: model.name.to_owned(),
        platform: model.platform.to_owned(),
        version_policy: Some(version_policy(model.versions)),
        max_batch_size: saturated(model.max_batch_size),
        input: vec![pb::ModelInput {
            name: model.input.name.to_owned(),
            data_type: data_type(model.input.data_type).into(),
            format: pb::model_input::Format::None.into(),
            dims: model.input.dims.to_vec(),
        }],
        output: model.outputs.iter().map(output).collect(),
        instance_group: (model.instance_count > 0).then_some(group).into_iter().collect(),
        default_model_filename: model.filename.to_owned(),
        scheduling_choice: model.batching.map(dynamic_batching),
        backend: model.backend.to_owned(),
        model_transaction_policy: Some(pb::ModelTransactionPolicy { decoupled: false }),
    }
}

fn version_policy(policy: &VersionPolicy) -> pb::ModelVersionPolicy {
    let choice = match policy {
        VersionPolicy::Latest(count) => PolicyChoice::Latest(Latest { num_versions: saturated(*count) }),
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Specific(versions) => {
            PolicyChoice::Specific(Specific { versions: versions.iter().map(|&version| saturated(version)).collect() })
        }
    };
    pb::ModelVersionPolicy { policy_choice: Some(choice) }
}

fn dynamic_batching(batching: &BatchingConfig) -> SchedulingChoice {
    SchedulingChoice::DynamicBatching(pb::ModelDynamicBatching {
        max_queue_delay_microseconds: batching.max_queue_delay_us,
        default_priority_level: batching.default_priority.into(),
        default_queue_policy: Some(pb::ModelQueuePolicy {
            timeout_action: pb::model_queue_policy::TimeoutAction::Reject.into(),
            default_timeout_microseconds: batching.default_timeout_ms.saturating_mul(1000),
            allow_timeout_override: true,
            max_queue_size: saturated(batching.queue_size),
        }),
    })
}

fn data_type(data_type: DataType) -> pb::DataType {
    match data_type {
        DataType::Bool => pb::DataType::TypeBool,
        DataType::Uint8 => pb::DataType::TypeUint8,
        DataType::Uint16 => pb::DataType::TypeUint16,
        DataType::Uint32 => pb::DataType::TypeUint32,
        DataType::Uint64 => pb::DataType::TypeUint64,
        DataType::Int8 => pb::DataType::TypeInt8,
        DataType::Int16 => pb::DataType::TypeInt16,
        DataType::Int32 => pb::DataType::TypeInt32,
        DataType::Int64 => pb::DataType::TypeInt64,
        DataType::Fp16 => pb::DataType::TypeFp16,
        DataType::Fp32 => pb::DataType::TypeFp32,
        DataType::Fp64 => pb::DataType::TypeFp64,
        DataType::Bytes => pb::DataType::TypeString,
    }
}

/// A number in a narrower type of the wire, whose largest stands for anything above.
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
