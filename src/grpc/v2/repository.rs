//! The repository extension: the index, loading and unloading.

use std::collections::BTreeMap;

use super::{describe, pb};
use crate::error::{Error, Result};
use crate::grpc::proto::inference::model_repository_parameter::ParameterChoice;
use crate::inference::Inference;
use crate::repository::{Overrides, unloads_members};

/// Every model and version with its state.
pub(super) async fn index(
    inference: &Inference,
    request: pb::RepositoryIndexRequest,
) -> Result<pb::RepositoryIndexResponse> {
    let models = inference.full_index(request.ready).await?.into_iter().map(describe::index_entry).collect();
    Ok(pb::RepositoryIndexResponse { models })
}

/// Loads a model, or loads it again.
pub(super) async fn load(
    inference: &Inference,
    request: pb::RepositoryModelLoadRequest,
) -> Result<pb::RepositoryModelLoadResponse> {
    let model_name = named(request.model_name, request.repository_name);
    inference.load_model(&model_name, read_overrides(request.parameters)?).await?;
    Ok(pb::RepositoryModelLoadResponse { model_name, is_loaded: true })
}

/// Unloads a model, and an ensemble's members where `unload_dependents` says so.
pub(super) async fn unload(
    inference: &Inference,
    request: pb::RepositoryModelUnloadRequest,
) -> Result<pb::RepositoryModelUnloadResponse> {
    let and_members = unloads_members(request.parameters.into_iter().map(|(name, parameter)| {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Some(value),
            _ => None,
        };
        (name, value)
    }))?;
    let model_name = named(request.model_name, request.repository_name);
    inference.unload_model(&model_name, and_members).await?;
    Ok(pb::RepositoryModelUnloadResponse { model_name, is_unloaded: true })
}

/// The model that a request to load or unload names: KServe's clients have the name under the number at which Triton's have
/// the repository's, of which there is only one here.
fn named(model_name: String, repository_name: String) -> String {
    if model_name.is_empty() { repository_name } else { model_name }
}

/// The overrides among a load's parameters: `config`, the model's configuration as text, and `file:<version>/<name>` as bytes.
fn read_overrides(parameters: BTreeMap<String, pb::ModelRepositoryParameter>) -> Result<Overrides> {
    let mut overrides = Overrides::default();
    for (name, parameter) in parameters {
        let choice = parameter.parameter_choice;
        let text = || match &choice {
            Some(ParameterChoice::StringParam(text)) => Ok(text.clone()),
            _ => Err(Error::invalid(format!("the parameter {name} of a load must be a string"))),
        };
        let file = || match &choice {
            Some(ParameterChoice::BytesParam(file)) => Ok(file.clone()),
            _ => Err(Error::invalid(format!("the parameter {name} of a load must be bytes"))),
        };
        overrides.set(&name, text, file)?;
    }
    Ok(overrides)
}
