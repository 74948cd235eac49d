//! API keys.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use convoy::grpc::proto::convoy::v1::ClassifyRequest;
use convoy::grpc::proto::inference as pb;
use convoy::server::Server;
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::client::{Grpc, Http};
use crate::server::{Repository, config, start};
use crate::{repository, until};

const INFER: &str = "a-key-for-inference";
const ADMIN: &str = "a-key-for-administration";

/// The entry of a key, as `convoy hash-key` writes it.
fn hashed(key: &str, right: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    let mut child =
        command.args(["hash-key", "--right", right]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{key}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let entry = String::from_utf8(output.stdout).unwrap();
    assert!(!entry.contains(key));
    entry
}

async fn server(keys_file: &Path) -> (Server, Repository) {
    let repository = repository();
    let mut config = config(&repository);
    config.auth.keys_file = Some(keys_file.to_owned());
    config.http.cors_origins = vec!["https://example.org".to_owned()];
    (start(config).await, repository)
}

async fn http(server: &Server) -> Http {
    Http::over(TcpStream::connect(server.http_address()).await.unwrap()).await
}

async fn grpc(server: &Server) -> Grpc {
    Grpc::over(TcpStream::connect(server.grpc_address()).await.unwrap()).await
}

#[tokio::test]
async fn over_http_a_key_allows_what_its_right_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    fs::write(&path, hashed(INFER, "infer") + &hashed(ADMIN, "admin")).unwrap();
    let (server, _repository) = server(&path).await;
    let mut http = http(&server).await;
    let (infer, admin) = (format!("Bearer {INFER}"), format!("Bearer {ADMIN}"));
    // The statuses without a key, with a wrong one, with one for inference and with one for administration.
    for (method, path, statuses) in [
        ("GET", "/v2/health/live", [200, 200, 200, 200]),
        ("GET", "/v2/health/ready", [200, 200, 200, 200]),
        ("GET", "/ping", [200, 200, 200, 200]),
        ("GET", "/v2", [401, 401, 200, 200]),
        ("GET", "/v1/models", [401, 401, 200, 200]),
        ("GET", "/v2/models/means/ready", [401, 401, 200, 200]),
        ("GET", "/v2/models/stats", [401, 401, 200, 200]),
        ("POST", "/v2/repository/index", [401, 401, 200, 200]),
        ("POST", "/v2/models/means/infer", [401, 401, 400, 400]),
        ("POST", "/v1/models/means/classify", [401, 401, 400, 400]),
        ("POST", "/v1/models/means:predict", [401, 401, 400, 400]),
        ("POST", "/v1/models/means:explain", [401, 401, 400, 400]),
        ("POST", "/v1/models/means/explain", [401, 401, 400, 400]),
        ("POST", "/v1/models/means/versions/1/features?layer=pooled", [401, 401, 400, 400]),
        ("POST", "/v1/models/means/exciting?layer=pooled&unit=0", [401, 401, 400, 400]),
        ("GET", "/v1/models/means/filters", [401, 401, 400, 400]),
        ("POST", "/v1/classify", [401, 401, 400, 400]),
        ("POST", "/invocations", [401, 401, 400, 400]),
        ("POST", "/v2/repository/models/means/load", [401, 401, 403, 501]),
        ("POST", "/v2/repository/models/means/unload", [401, 401, 403, 501]),
        ("GET", "/debug", [401, 401, 403, 200]),
        ("GET", "/nowhere", [404, 404, 404, 404]),
    ] {
        for (authorization, status) in
            [None, Some("Bearer wrong"), Some(&*infer), Some(&*admin)].into_iter().zip(statuses)
        {
            let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
            let (answered, headers) = http.send(method, path, &headers).await.unwrap();
            assert_eq!(answered, status, "{method} {path} {authorization:?}");
            assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{path}");
            assert!(headers.contains_key("x-request-id"));
        }
    }
    // Prometheus and the load balancer's checks have no key.
    let mut metrics = Http::over(TcpStream::connect(server.metrics_address()).await.unwrap()).await;
    for path in ["/metrics", "/v2/health/ready"] {
        assert_eq!(metrics.send("GET", path, &[]).await.unwrap().0, 200, "{path}");
    }
    // A browser asks first, without a key, whether it may send one.
    let preflight = [
        ("origin", "https://example.org"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let (status, headers) = http.send("OPTIONS", "/v1/classify", &preflight).await.unwrap();
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    assert!(status == 200 && allowed.contains("authorization"), "{status} {allowed}");
}

#[tokio::test]
async fn over_grpc_a_key_allows_what_its_right_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    fs::write(&path, hashed(INFER, "infer") + &hashed(ADMIN, "admin")).unwrap();
    let (server, _repository) = server(&path).await;
    let mut grpc = grpc(&server).await;
    let (infer, admin) = (format!("Bearer {INFER}"), format!("Bearer {ADMIN}"));
    let none = Code::Unauthenticated;
    // As for HTTP. An empty message is one of every type.
    for (path, codes) in [
        ("/grpc.health.v1.Health/Check", [Code::Ok; 4]),
        ("/inference.GRPCInferenceService/ServerLive", [Code::Ok; 4]),
        ("/inference.GRPCInferenceService/ServerReady", [Code::Ok; 4]),
        ("/inference.GRPCInferenceService/ServerMetadata", [none, none, Code::Ok, Code::Ok]),
        ("/inference.GRPCInferenceService/ModelInfer", [none, none, Code::InvalidArgument, Code::InvalidArgument]),
        ("/inference.GRPCInferenceService/ModelStreamInfer", [none, none, Code::Ok, Code::Ok]),
        ("/inference.GRPCInferenceService/RepositoryIndex", [none, none, Code::Ok, Code::Ok]),
        (
            "/inference.GRPCInferenceService/RepositoryModelLoad",
            [none, none, Code::PermissionDenied, Code::Unimplemented],
        ),
        (
            "/inference.GRPCInferenceService/RepositoryModelUnload",
            [none, none, Code::PermissionDenied, Code::Unimplemented],
        ),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            [none, none, Code::InvalidArgument, Code::InvalidArgument],
        ),
        ("/nowhere.Service/Call", [none, none, Code::Unimplemented, Code::Unimplemented]),
    ] {
        for (authorization, code) in [None, Some("Bearer wrong"), Some(&*infer), Some(&*admin)].into_iter().zip(codes) {
            let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
            let status = if path.contains("health") {
                grpc.call(path, &headers, &HealthCheckRequest::default()).await
            } else {
                grpc.call(path, &headers, &pb::ServerLiveRequest {}).await
            };
            assert_eq!(status.code(), code, "{path} {authorization:?}: {}", status.message());
        }
    }
    // The first field of both requests is the model.
    let picture = ClassifyRequest { model_name: "means".into(), ..Default::default() };
    for path in ["/convoy.v1.ImageClassifier/Classify", "/convoy.v1.ImageClassifier/Explain"] {
        assert_eq!(grpc.call(path, &[], &picture).await.code(), none);
        assert_eq!(grpc.call(path, &[("authorization", &infer)], &picture).await.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn keys_come_and_go_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    fs::write(&path, hashed(INFER, "infer")).unwrap();
    let (server, _repository) = server(&path).await;
    let mut http = http(&server).await;
    let (infer, admin) = (format!("Bearer {INFER}"), format!("Bearer {ADMIN}"));
    assert_eq!(http.send("GET", "/v2", &[("authorization", &infer)]).await.unwrap().0, 200);
    assert_eq!(http.send("GET", "/v2", &[("authorization", &admin)]).await.unwrap().0, 401);

    fs::write(&path, hashed(ADMIN, "admin")).unwrap();
    until(async || http.send("GET", "/v2", &[("authorization", &admin)]).await.unwrap().0 == 200).await;
    assert_eq!(http.send("GET", "/v2", &[("authorization", &infer)]).await.unwrap().0, 401);
}

#[test]
fn only_keys_that_are_hard_to_guess_are_hashed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    let mut child =
        command.arg("hash-key").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"short\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("at least 16"));
}
