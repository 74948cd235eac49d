//! An S3 server in this process, over a folder, that can be made to fail.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use convoy::config::ServerConfig;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use md5::{Digest, Md5};
use s3s::auth::SimpleAuth;
use s3s::dto::{ETag, GetObjectInput, GetObjectOutput, ListObjectsV2Input, ListObjectsV2Output, StreamingBlob};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;

pub(crate) const ACCESS_KEY: &str = "test";
pub(crate) const SECRET_KEY: &str = "secret";
const BUCKET: &str = "models";

/// What the server does wrong, and what it has been asked for.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// It answers 503 to everything.
    pub(crate) is_away: bool,
    /// It denies everything.
    pub(crate) denies: bool,
    /// It lists no object, as if all had been deleted.
    pub(crate) is_emptied: bool,
    /// Objects whose keys end so have one bit turned over on the way.
    pub(crate) corrupts: Option<String>,
    /// The keys of the objects that were fetched.
    pub(crate) fetched: Vec<String>,
}

/// A running server with one bucket. It ends with the test's runtime.
pub(crate) struct Storage {
    pub(crate) address: SocketAddr,
    folder: Arc<TempDir>,
    conduct: Arc<Mutex<Conduct>>,
}

impl Storage {
    /// One that takes whoever comes.
    pub(crate) async fn start() -> Self {
        Self::start_with(false).await
    }

    /// One that asks for the credentials above.
    pub(crate) async fn start_with_keys() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(keys: bool) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let conduct = Arc::new(Mutex::new(Conduct::default()));
        let objects = Objects {
            files: FileSystem::new(folder.path()).unwrap(),
            folder: Arc::clone(&folder),
            conduct: Arc::clone(&conduct),
        };
        let mut service = S3ServiceBuilder::new(objects);
        if keys {
            service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let service = service.build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, folder, conduct }
    }

    /// Writes an object. It is there at once and whole, as objects are.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        fs::write(beside.path(), bytes).unwrap();
        beside.persist(path).unwrap();
    }

    /// Removes the objects below a key.
    pub(crate) fn remove(&self, key: &str) {
        fs::remove_dir_all(self.path(key)).unwrap();
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(key)
    }

    /// Changes what the server does, or looks at what it has done.
    pub(crate) fn conduct<T>(&self, change: impl FnOnce(&mut Conduct) -> T) -> T {
        change(&mut self.conduct.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `config` with this as its store.
    pub(crate) fn serves(&self, mut config: ServerConfig) -> ServerConfig {
        config.model_store.endpoint = Some(format!("http://{}", self.address));
        config.model_store.anonymous = true;
        config
    }
}

/// The objects. What tests ask for goes to the files, by way of the conduct.
struct Objects {
    files: FileSystem,
    folder: Arc<TempDir>,
    conduct: Arc<Mutex<Conduct>>,
}

impl Objects {
    fn behave(&self) -> S3Result<()> {
        let conduct = self.conduct.lock().unwrap_or_else(PoisonError::into_inner);
        if conduct.is_away {
            return Err(s3_error!(ServiceUnavailable));
        }
        if conduct.denies {
            return Err(s3_error!(AccessDenied));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.behave()?;
        let bucket = self.folder.path().join(&request.input.bucket);
        let mut answer = self.files.list_objects_v2(request).await?;
        if self.conduct.lock().unwrap_or_else(PoisonError::into_inner).is_emptied {
            answer.output.contents = None;
            return Ok(answer);
        }
        // The files' server lists no ETags, which Amazon's does.
        for object in answer.output.contents.iter_mut().flatten() {
            let bytes = fs::read(bucket.join(object.key.as_deref().unwrap_or_default())).unwrap_or_default();
            object.e_tag = Some(ETag::Strong(convoy::sha256::hex(&Md5::digest(bytes))));
        }
        Ok(answer)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.behave()?;
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        let mut answer = self.files.get_object(request).await?;
        let corrupts = {
            let mut conduct = self.conduct.lock().unwrap_or_else(PoisonError::into_inner);
            conduct.fetched.push(key.clone());
            conduct.corrupts.as_ref().is_some_and(|ending| key.ends_with(ending.as_str()))
        };
        if corrupts {
            let mut bytes = fs::read(self.folder.path().join(bucket).join(key)).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            let bytes = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(bytes))]);
            answer.output.body = Some(StreamingBlob::wrap(bytes));
        }
        Ok(answer)
    }
}
