//! A server in this process, on free ports, over a repository in a temporary folder.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use convoy::config::ServerConfig;
use convoy::onnx::ModelProto;
use convoy::server::Server;

use crate::graphs;

/// The recipe under which a picture's channel means are its colour over 255.
pub(crate) const PLAIN_RECIPE: &str = "[preprocess]\nscale = 0.00392156862745098\n";

/// A model repository in a temporary folder.
pub(crate) struct Repository(tempfile::TempDir);

impl Repository {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds version 1 of a model, with a `config.toml` and `labels.txt` where they are not empty.
    pub(crate) fn with(self, name: &str, model: &ModelProto, config: &str, labels: &str) -> Self {
        graphs::write(&self.folder(&format!("{name}/1")), model);
        for (file, text) in [("config.toml", config), ("labels.txt", labels)] {
            if !text.is_empty() {
                std::fs::write(self.path().join(name).join(file), text).unwrap();
            }
        }
        self
    }

    /// Adds a model whose file is not one.
    pub(crate) fn with_broken(self, name: &str) -> Self {
        std::fs::write(self.folder(&format!("{name}/1")).join("model.onnx"), "not a graph").unwrap();
        self
    }

    fn folder(&self, path: &str) -> PathBuf {
        let folder = self.path().join(path);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// The configuration of a server on free ports, which ends without a grace.
pub(crate) fn config(repository: &Repository) -> ServerConfig {
    let mut config = ServerConfig { model_repository: repository.path().to_owned(), ..ServerConfig::default() };
    config.http.address = "127.0.0.1:0".parse().unwrap();
    config.grpc.address = "127.0.0.1:0".parse().unwrap();
    config.metrics.address = "127.0.0.1:0".parse().unwrap();
    config.shutdown.grace_ms = 0;
    config
}

/// Starts a server and loads its models.
pub(crate) async fn start(config: ServerConfig) -> Server {
    let server = Server::start(config).await.unwrap();
    server.load().await.unwrap();
    server
}

/// Waits for what must come, but not for ever.
pub(crate) async fn within_a_minute<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("it has not come within a minute")
}

/// A PNG of one colour.
pub(crate) fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(8, 8, image::Rgb(colour)).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}
