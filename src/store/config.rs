//! The `[model_store]` table.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::path::FilePath;
use crate::error::{Error, Result};

/// How [`StoreConfig::path`] says the root: a variable of the environment cannot be empty and say something.
const ROOT: &str = ".";

/// How models come out of an archive, an image or a bucket. It says nothing to a model repository that is a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The folder in which what was fetched is kept; where absent, one of this user's.
    pub cache: Option<PathBuf>,
    /// In the mode `poll`: how often the store is looked at. In every mode: how long what lies in it must have rested before it
    /// is taken, where no list of checksums says that it is whole. In milliseconds.
    pub poll_interval_ms: u64,
    /// The most bytes that all models of the store may take, unpacked.
    pub max_bytes: u64,
    /// The folder of models in an archive or image; `.`, or nothing, for its root.
    pub path: Option<String>,
    /// The URL of an S3-compatible server; where absent, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, else Amazon's own.
    pub endpoint: Option<String>,
    /// The bucket's region; where absent, `AWS_REGION` or `AWS_DEFAULT_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the URL's path, not in the host's name.
    pub path_style: bool,
    /// Whether requests are sent without credentials, to a public bucket.
    pub anonymous: bool,
    /// Whether an `ETag` that looks like an MD5 must be that of the bytes.
    pub check_etag: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache: None,
            poll_interval_ms: 30_000,
            max_bytes: 32 << 30,
            path: None,
            endpoint: None,
            region: None,
            path_style: true,
            anonymous: false,
            check_etag: true,
        }
    }
}

impl StoreConfig {
    /// [`StoreConfig::poll_interval_ms`] as a duration.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }

    /// The folder of models in an archive or image, empty for its root.
    pub(super) fn folder(&self) -> Option<String> {
        self.path.clone().map(|path| if path == ROOT { String::new() } else { path })
    }

    /// Checks what no single value can show.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [("poll_interval_ms", self.poll_interval_ms), ("max_bytes", self.max_bytes)] {
            if value == 0 {
                return Err(Error::invalid(format!("model_store.{key} must be at least 1")));
            }
        }
        if let Some(path) = self.folder().filter(|path| !path.is_empty()) {
            FilePath::parse(&path).map_err(|error| error.map_message(|said| format!("model_store.path: {said}")))?;
        }
        if let Some(endpoint) = &self.endpoint
            && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
        {
            return Err(Error::invalid(format!(
                "model_store.endpoint is `{endpoint}`, which is no URL: it begins with http:// or https://"
            )));
        }
        Ok(())
    }
}
