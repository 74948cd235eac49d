//! `convoy bench` against a server with TLS and keys.

use std::process::Output;

use crate::authority::Authority;
use crate::repository;
use crate::server::{config, start};

async fn bench(arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.args(["bench", "--format", "json", "--warmup-s", "0", "--requests", "5", "--concurrency", "2"]);
    command.args(["--tensor", "binary", "--model", "means"]).args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_are_measured_encrypted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (folder, repository) = (tempfile::tempdir().unwrap(), repository());
    let mut config = config(&repository);
    let (certificate, key) = authority.issue("localhost").write(folder.path());
    (config.tls.certificate, config.tls.key) = (Some(certificate), Some(key));
    let server = start(config).await;
    let known = authority.write(folder.path());
    let other = tempfile::tempdir().unwrap();
    let unknown = stranger.write(other.path());

    let urls = [
        format!("https://localhost:{}", server.http_address().port()),
        format!("grpcs://localhost:{}", server.grpc_address().port()),
    ];
    for url in &urls {
        let output = bench(&["--url", url, "--ca", known.to_str().unwrap()]).await;
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["measurements"][0]["images"], 5, "{url}");
        // A server that somebody else vouches for, or nobody.
        for (arguments, said) in [
            (&["--url", url, "--ca", unknown.to_str().unwrap()][..], "no encrypted connection"),
            (&["--url", url], "--ca must name"),
            (&["--url", url, "--ca", "nothing.pem"], "nothing.pem"),
            (&["--url", &url.replacen("s:", ":", 1), "--ca", known.to_str().unwrap()], "not encrypted"),
        ] {
            let output = bench(arguments).await;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && stderr.contains(said), "{arguments:?}: {stderr}");
        }
    }
}
