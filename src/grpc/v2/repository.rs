//! The repository extension: the index, loading and unloading.

use std::collections::BTreeMap;

use super::{describe, pb};
use crate::error::{Error, Result};
use crate::grpc::proto::inference::model_repository_parameter::ParameterChoice;
use crate::inference::Inference;
use crate::repository::Overrides;

/// The one parameter of a load that is no file.
const CONFIG: &str = "config";
/// What begins the name of a parameter that is a file.
const FILE: &str = "file:";
/// The one parameter of an unload.
const UNLOAD_DEPENDENTS: &str = "unload_dependents";

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
    let mut and_members = false;
    for (name, parameter) in request.parameters {
        and_members = match parameter.parameter_choice {
            _ if name != UNLOAD_DEPENDENTS => {
                let message = format!("unloading takes the parameter `{UNLOAD_DEPENDENTS}`, not `{name}`");
                return Err(Error::invalid(message));
            }
            Some(ParameterChoice::BoolParam(value)) => value,
            _ => return Err(Error::invalid(format!("the parameter {UNLOAD_DEPENDENTS} must be true or false"))),
        };
    }
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
        match (name.strip_prefix(FILE), parameter.parameter_choice) {
            (None, Some(ParameterChoice::StringParam(text))) if name == CONFIG => overrides.config = Some(text),
            (Some(path), Some(ParameterChoice::BytesParam(file))) => overrides.files.push((path.to_owned(), file)),
            (None, _) if name == CONFIG => {
                return Err(Error::invalid("the parameter config of a load must be a string"));
            }
            (Some(_), _) => return Err(Error::invalid(format!("the parameter {name} of a load must be bytes"))),
            (None, _) => {
                return Err(Error::invalid(format!(
                    "loading takes the parameters `config` and `file:…`, not `{name}`"
                )));
            }
        }
    }
    Ok(overrides)
}
