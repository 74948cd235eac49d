//! Objects of an S3-compatible server.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use md5::{Digest as _, Md5};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, GetOptions, ObjectStore, RetryConfig};
use tokio::runtime::Runtime;

use super::cache::Cache;
use super::config::StoreConfig;
use super::listing::{Listing, Object, Unit};
use super::path::FilePath;
use super::tree::File;
use super::words::Words;
use crate::error::{Error, Result};
use crate::net;
use crate::sha256;

/// More than any model repository has.
const MAX_OBJECTS: usize = 100_000;
/// How many objects are fetched at the same time.
const PARALLEL: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may say nothing within an answer. How long an object takes is the network's affair.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A store that is away must show soon; whoever follows it asks again anyway.
const RETRIES: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);

/// The objects of a bucket below a prefix.
#[derive(Debug)]
pub(super) struct Bucket {
    client: AmazonS3,
    prefix: String,
    words: Words,
    max_bytes: u64,
    check_etag: bool,
    /// Of its own, so that what is fetched keeps no thread from serving. Always there but while this is dropped.
    runtime: Option<Runtime>,
}

impl Bucket {
    /// Takes credentials, region and endpoint from the configuration and the environment. Asks nobody yet.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be.
    pub(super) fn new(bucket: &str, prefix: &str, config: &StoreConfig) -> Result<Self> {
        net::prepare_clients();
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = config.endpoint.clone();
        let endpoint = endpoint.or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout(READ_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT);
        let backoff = BackoffConfig { init_backoff: Duration::from_millis(200), ..BackoffConfig::default() };
        let variables = std::env::vars_os();
        let variables =
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut builder = from_variables(variables)
            .with_bucket_name(bucket)
            .with_client_options(client)
            .with_retry(RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT })
            .with_virtual_hosted_style_request(!config.path_style);
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &endpoint {
            // Whoever writes http:// wants it.
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if config.anonymous {
            builder = builder.with_skip_signature(true);
        }
        let words = Words { bucket: bucket.to_owned(), endpoint: endpoint.unwrap_or_else(|| "Amazon S3".to_owned()) };
        let client = builder.build().map_err(|error| words.of(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Error::internal("the model store cannot be started").with_source(error))?;
        Ok(Self {
            client,
            prefix: prefix.to_owned(),
            words,
            max_bytes: config.max_bytes,
            check_etag: config.check_etag,
            runtime: Some(runtime),
        })
    }

    /// What there is, by model; with `model`, of that alone. Blocks.
    ///
    /// # Errors
    /// `Unavailable` where the server does not answer; else what it says; `PayloadTooLarge` for too many objects or bytes.
    pub(super) fn list(&self, model: Option<&str>) -> Result<Listing> {
        self.block_on(async {
            let prefix = Key::parse(format!("{}{}", self.prefix, model.unwrap_or_default()));
            let prefix = prefix.map_err(|error| self.words.of(&error.into()))?;
            let mut objects = self.client.list(Some(&prefix));
            let (mut listing, mut count, mut bytes) = (Listing::new(), 0, 0_u64);
            while let Some(object) = objects.try_next().await.map_err(|error| self.words.of(&error))? {
                count += 1;
                bytes = bytes.saturating_add(object.size);
                if count > MAX_OBJECTS || bytes > self.max_bytes {
                    return Err(Error::too_large(format!(
                        "there are more than {MAX_OBJECTS} objects or {} bytes in the store (model_store.max_bytes)",
                        self.max_bytes
                    )));
                }
                let key = object.location.as_ref();
                let Some(path) = key.strip_prefix(&self.prefix) else { continue };
                let path = FilePath::parse(path)?;
                let Some((model, path)) = path.split_first() else { continue };
                if model.starts_with('.') || path.is_hidden() {
                    continue;
                }
                let modified = object.last_modified;
                let version = object.e_tag.clone().unwrap_or_else(|| modified.timestamp_micros().to_string());
                let object =
                    Object { bytes: object.size, version, e_tag: object.e_tag, modified: Some(modified.into()) };
                listing.entry(model.to_owned()).or_default().0.insert(path, object);
            }
            listing.values_mut().for_each(drop_folder_markers);
            Ok(listing)
        })
    }

    /// Fetches objects of `model` into the cache, and puts what came among `files`, be it that others did not come. Blocks.
    ///
    /// # Errors
    /// `Unavailable` where the server does not answer or an object has changed, `InvalidArgument` where the bytes are not what
    /// the server says of them; else what it says.
    pub(super) fn fetch<'a>(
        &self,
        model: &str,
        objects: impl Iterator<Item = (&'a FilePath, &'a Object)>,
        cache: &Cache,
        files: &mut BTreeMap<FilePath, File>,
    ) -> Result<()> {
        self.block_on(async {
            let fetches = objects.map(|(path, object)| async move {
                let key = format!("{}{model}/{path}", self.prefix);
                self.fetch_one(&key, object, cache).await.map(|file| (path.clone(), file))
            });
            let mut answers = futures_util::stream::iter(fetches).buffer_unordered(PARALLEL);
            let mut result = Ok(());
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok((path, file)) => drop(files.insert(path, file)),
                    Err(error) => result = result.and(Err(error)),
                }
            }
            result
        })
    }

    async fn fetch_one(&self, key: &str, object: &Object, cache: &Cache) -> Result<File> {
        let location = Key::parse(key).map_err(|error| self.words.of(&error.into()))?;
        let changed = || Error::unavailable(format!("{key} has changed while it was fetched"));
        let options = GetOptions { if_match: object.e_tag.clone(), ..GetOptions::default() };
        let answer = self.client.get_opts(&location, options).await.map_err(|error| match error {
            object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. } => changed(),
            error => self.words.of(&error),
        })?;
        if answer.meta.size != object.bytes || (object.e_tag.is_some() && answer.meta.e_tag != object.e_tag) {
            return Err(changed());
        }
        let mut writer = cache.writer()?;
        let mut md5 = Md5::new();
        let mut bytes = answer.into_stream();
        while let Some(bytes) = bytes.try_next().await.map_err(|error| self.words.of(&error))? {
            if writer.bytes() + bytes.len() as u64 > object.bytes {
                return Err(Error::invalid(format!("{key} has more bytes than the store lists")));
            }
            md5.update(&bytes);
            writer.put(&bytes)?;
        }
        if writer.bytes() != object.bytes {
            return Err(Error::invalid(format!(
                "{key} has {} bytes where the store lists {}",
                writer.bytes(),
                object.bytes
            )));
        }
        let md5 = sha256::hex(&md5.finalize());
        if let Some(said) = object.e_tag.as_deref().and_then(md5_of).filter(|said| self.check_etag && *said != md5) {
            return Err(Error::invalid(format!(
                "{key} is damaged: its MD5 is {md5} where its ETag is {said}. (Where the bucket encrypts with keys of KMS or of \
                 the customer, an ETag is no MD5: set model_store.check_etag to false, and put SHA256SUMS beside the files)"
            )));
        }
        writer.finish()
    }

    fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => Err(Error::unavailable("the server is shutting down")),
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // To drop it would wait, which whoever drops this may not be allowed to.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What those of `variables` say that Amazon's own clients read. As everywhere, one that is empty says nothing.
fn from_variables(variables: impl Iterator<Item = (String, String)>) -> AmazonS3Builder {
    let set = variables.filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty());
    set.fold(AmazonS3Builder::new(), |builder, (name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => builder.with_config(key, value),
        // One of the many that are not about storage.
        Err(_) => builder,
    })
}

/// The MD5 that an `ETag` is where the object was uploaded in one piece.
fn md5_of(e_tag: &str) -> Option<&str> {
    let text = e_tag.trim_matches('"');
    (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

/// Consoles make empty objects that stand for folders.
fn drop_folder_markers(unit: &mut Unit) {
    let folders: std::collections::BTreeSet<String> =
        unit.0.keys().flat_map(|path| path.folders().map(str::to_owned).collect::<Vec<_>>()).collect();
    unit.0.retain(|path, object| object.bytes > 0 || !folders.contains(path.as_str()));
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey as Key;

    use super::*;

    #[test]
    fn variables_that_are_empty_say_nothing() {
        let variables = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SESSION_TOKEN", ""), ("AWS_PAGER", "less"), ("HOME", "/")];
        let builder = from_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter());
        assert_eq!(builder.get_config_value(&Key::AccessKeyId).as_deref(), Some("key"));
        assert_eq!(builder.get_config_value(&Key::Token), None);
    }
}
