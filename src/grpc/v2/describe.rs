//! Metadata and the repository index.

use super::super::proto::inference as pb;
use super::super::proto::inference::model_metadata_response::TensorMetadata;
use super::super::proto::inference::repository_index_response::ModelIndex;
use crate::inference::EXTENSIONS;
use crate::repository::{IndexEntry, Model};
use crate::tensor::TensorSpec;

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
