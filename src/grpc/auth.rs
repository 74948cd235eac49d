//! What right a call needs.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};

use crate::auth::{Keys, Right};
use crate::error::Result;

/// The health protocol's calls.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Calls that tell a load balancer what it must know, and nobody anything else.
pub(super) const PROBES: &[&str] =
    &["/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"];
/// Calls that change the server for everybody.
const ADMINISTRATION: &[&str] = &[
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/inference.GRPCInferenceService/RepositoryModelUnload",
    "/inference.GRPCInferenceService/TraceSetting",
    "/inference.GRPCInferenceService/LogSettings",
];

/// Checks the key of a call of `path`.
///
/// # Errors
/// As [`Keys::check`].
pub(super) fn check(keys: &Keys, path: &str, headers: &HeaderMap) -> Result<()> {
    needed(path).map_or(Ok(()), |right| keys.check(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes), right))
}

/// `None` for what is open to all. A call that is not known here needs what most do.
fn needed(path: &str) -> Option<Right> {
    if path.starts_with(HEALTH) || PROBES.contains(&path) {
        return None;
    }
    Some(if ADMINISTRATION.contains(&path) { Right::Admin } else { Right::Infer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::DESCRIPTORS;
    use prost::Message;

    #[test]
    fn the_calls_that_are_named_exist() {
        let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
        let paths: Vec<String> = files
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
            .flat_map(|(package, service)| {
                service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
            })
            .collect();
        for path in PROBES.iter().chain(ADMINISTRATION) {
            assert!(paths.iter().any(|known| known == path), "{path} in {paths:?}");
        }
    }
}
