//! Loading and unloading by API, over both protocols, and what shows of it.

use convoy::grpc::proto::inference as pb;
use convoy::repository::ModelControlMode;
use serde_json::json;
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::server::{Repository, config, start, within_a_minute};
use crate::{
    ask, control, explicit, explicit_all, grpc, http, load, loads, metric, put, saying, short_states, states, unload,
};

fn two_models() -> Repository {
    Repository::new().with("a", &saying(1.0), "", "").with("b", &saying(2.0), "", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_loaded_until_a_client_says_so() {
    let repository = two_models();
    let server = start(explicit(&repository)).await;
    assert_eq!(http::get(&server, "/v2/health/ready").await.status, 200);
    assert_eq!(states(&server, "a").await, [(None, "UNAVAILABLE".into(), "not loaded".into())]);
    assert_eq!(ask(&server, "a").await, Err(404));

    assert_eq!(load(&server, "a").await, (200, String::new()));
    assert_eq!(ask(&server, "a").await, Ok(1.0));
    assert_eq!(short_states(&server, "a").await, ["1 READY"]);
    assert_eq!(short_states(&server, "b").await, ["UNAVAILABLE"]);
    // The only one that is loaded is the default.
    assert_eq!(http::send(&server, "POST", "/v1/classify", &[], crate::server::png([9; 3])).await.status, 200);

    assert_eq!(unload(&server, "a").await, (200, String::new()));
    assert_eq!(ask(&server, "a").await, Err(503));
    let refused = http::send(&server, "POST", "/v1/models/a/classify", &[], crate::server::png([9; 3])).await;
    assert!(refused.status == 503 && !refused.headers.contains_key("retry-after"), "{refused:?}");
    assert_eq!(states(&server, "a").await, [(Some("1".into()), "UNAVAILABLE".into(), "unloaded".into())]);
    assert_eq!(http::get(&server, "/v2/models/a/ready").await.status, 503);
    assert_eq!(http::get(&server, "/v2/health/ready").await.status, 200);
    let state = |state| format!("convoy_model_state{{model=\"a\",state=\"{state}\",version=\"1\"}}");
    // Not as what fails, for which there is an alert.
    assert_eq!(metric(&server, &state("UNLOADED")).await, Some(1.0));
    assert_eq!(metric(&server, &state("UNAVAILABLE")).await, Some(0.0));
    assert_eq!(metric(&server, &state("READY")).await, Some(0.0));
    assert_eq!(metric(&server, "convoy_instances{model=\"a\",version=\"1\"}").await, Some(0.0));
    assert_eq!(metric(&server, "convoy_model_provider{model=\"a\",provider=\"cpu\",version=\"1\"}").await, None);

    assert_eq!(load(&server, "a").await.0, 200);
    assert_eq!(ask(&server, "a").await, Ok(1.0));
    assert_eq!((loads(&server, "a", "success").await, loads(&server, "a", "failed").await), (2, 0));
    assert_eq!(metric(&server, "convoy_model_provider{model=\"a\",provider=\"cpu\",version=\"1\"}").await, Some(1.0));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_readiness_follows_what_is_to_be_served() {
    let repository = two_models().with_broken("c");
    let mut config = explicit_all(&repository);
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    let ready = async || {
        let http = http::get(&server, "/v2/health/ready").await.status.as_u16();
        let mut client = HealthClient::new(grpc::channel(&server).await);
        let answer = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        (http, answer.status())
    };
    assert_eq!(ready().await, (503, ServingStatus::NotServing));
    // What was unloaded on purpose is not to be served.
    assert_eq!(unload(&server, "c").await.0, 200);
    assert_eq!(ready().await, (200, ServingStatus::Serving));
    // What has never served takes nothing from a server that was ready.
    assert_ne!(load(&server, "c").await.0, 200);
    assert_eq!(short_states(&server, "c").await, ["1 UNAVAILABLE"]);
    assert_eq!(ready().await, (200, ServingStatus::Serving));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_at_the_start() {
    let repository = two_models();
    let mut config = explicit(&repository);
    config.model_control.load = vec!["b".into(), "nowhere".into()];
    config.model_control.strict_readiness = true;
    let server = start(config).await;
    assert_eq!((ask(&server, "a").await, ask(&server, "b").await), (Err(404), Ok(2.0)));
    // What is named and is not there is missed.
    let (_, state, reason) = states(&server, "nowhere").await.remove(0);
    assert!(state == "UNAVAILABLE" && reason.contains("there is no model nowhere"), "{state}: {reason}");
    assert_eq!(http::get(&server, "/v2/health/ready").await.status, 503);
    assert_eq!(unload(&server, "nowhere").await.0, 200);
    assert_eq!(http::get(&server, "/v2/health/ready").await.status, 200);
    let server = start(explicit_all(&repository)).await;
    assert_eq!((ask(&server, "a").await, ask(&server, "b").await), (Ok(1.0), Ok(2.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_says_why() {
    let repository = two_models();
    let server = start(explicit(&repository)).await;
    for name in ["nowhere", "..", "%2e%2e%2fa", ".a", "a%2f1"] {
        let (status, error) = load(&server, name).await;
        assert!(status == 404, "{name}: {status} {error}");
    }
    // What could not be loaded and has no folder is forgotten when it is unloaded.
    let junk = json!({"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}});
    assert_eq!(control(&server, "junk", "load", &junk).await.0, 400);
    assert_eq!(short_states(&server, "junk").await, ["1 UNAVAILABLE"]);
    assert_eq!(unload(&server, "junk").await.0, 200);
    assert_eq!(states(&server, "junk").await, []);
    // As Triton has it: what is not loaded is unloaded with success.
    assert_eq!(unload(&server, "nowhere").await.0, 200);
    assert_eq!(unload(&server, "a").await.0, 200);
    assert_eq!(states(&server, "nowhere").await, []);
    for (verb, body) in [
        ("load", json!({"parameters": {"files": "x"}})),
        ("load", json!({"parameters": {"config": 3}})),
        ("load", json!({"parameters": {"config": "{}", "file:1/model.onnx": "not base64!"}})),
        ("unload", json!({"parameters": {"dependents": true}})),
        ("load", json!("text")),
    ] {
        let (status, error) = control(&server, "a", verb, &body).await;
        assert!(status == 400 && error.contains(' '), "{body}: {status} {error}");
    }
    assert_eq!(control(&server, "a", "unload", &json!({"parameters": {"unload_dependents": true}})).await.0, 200);

    for (mode, said) in [(ModelControlMode::None, "when it starts"), (ModelControlMode::Poll, "follows")] {
        let mut config = config(&repository);
        config.model_control.mode = mode;
        let server = start(config).await;
        for verb in ["load", "unload"] {
            let (status, error) = control(&server, "a", verb, &json!(null)).await;
            assert!(status == 501 && error.contains(said), "{status} {error}");
        }
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_grpc_it_is_the_same() {
    let repository = two_models();
    let server = start(explicit(&repository)).await;
    let mut client = grpc::client(&server).await;
    let load = |name: &str| pb::RepositoryModelLoadRequest { model_name: name.into(), ..Default::default() };
    let unload = |name: &str| pb::RepositoryModelUnloadRequest { model_name: name.into(), ..Default::default() };

    let mut health = HealthClient::new(grpc::channel(&server).await);
    let mut watched = health.watch(HealthCheckRequest { service: "a".into() }).await.unwrap().into_inner();
    let mut next = async || within_a_minute(watched.message()).await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::ServiceUnknown);

    let answer = client.repository_model_load(load("a")).await.unwrap().into_inner();
    assert_eq!((answer.model_name.as_str(), answer.is_loaded), ("a", true));
    assert_eq!(ask(&server, "a").await, Ok(1.0));
    // It may or may not be seen loading.
    let mut status = next().await;
    if status == ServingStatus::NotServing {
        status = next().await;
    }
    assert_eq!(status, ServingStatus::Serving);

    let index = client.repository_index(pb::RepositoryIndexRequest::default()).await.unwrap().into_inner().models;
    let index: Vec<_> = index.iter().map(|row| (&*row.name, &*row.version, &*row.state)).collect();
    assert_eq!(index, [("a", "1", "READY"), ("b", "", "UNAVAILABLE")]);

    // A load again is never seen as an interruption.
    put(repository.path(), "a/1", &saying(3.0));
    client.repository_model_load(load("a")).await.unwrap();
    assert_eq!(ask(&server, "a").await, Ok(3.0));
    let answer = client.repository_model_unload(unload("a")).await.unwrap().into_inner();
    assert_eq!((answer.model_name.as_str(), answer.is_unloaded), ("a", true));
    assert_eq!(next().await, ServingStatus::NotServing);
    assert_eq!(ask(&server, "a").await, Err(503));

    let error = client.repository_model_load(load("nowhere")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    let mut wrong = load("a");
    wrong.parameters.insert("config".into(), pb::ModelRepositoryParameter::default());
    assert_eq!(client.repository_model_load(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_policy_holds_when_a_model_is_loaded_again() {
    let repository = Repository::new().with("m", &saying(1.0), "versions = { latest = 2 }", "");
    let server = start(explicit_all(&repository)).await;
    put(repository.path(), "m/2", &saying(2.0));
    put(repository.path(), "m/3", &saying(3.0));
    assert_eq!(load(&server, "m").await.0, 200);
    assert_eq!(ask(&server, "m").await, Ok(3.0));
    // The first version is gone as soon as nothing uses it.
    crate::until(|| short_states(&server, "m"), |states| states.len() == 2).await;
    assert_eq!(short_states(&server, "m").await, ["2 READY", "3 READY"]);
    assert_eq!(metric(&server, "convoy_model_state{model=\"m\",state=\"READY\",version=\"1\"}").await, None);

    std::fs::write(repository.path().join("m/config.toml"), "versions = { specific = [1, 3] }").unwrap();
    assert_eq!(load(&server, "m").await.0, 200);
    crate::until(|| short_states(&server, "m"), |states| states.len() == 2).await;
    assert_eq!(short_states(&server, "m").await, ["1 READY", "3 READY"]);
    assert_eq!(ask(&server, "m/versions/1").await, Ok(1.0));
    assert_eq!(ask(&server, "m/versions/2").await, Err(404));

    // As Triton has it, a version that is not there is left out.
    std::fs::write(repository.path().join("m/config.toml"), "versions = { specific = [1, 3, 9] }").unwrap();
    assert_eq!(load(&server, "m").await, (200, String::new()));
    assert_eq!(short_states(&server, "m").await, ["1 READY", "3 READY"]);

    // All or nothing: a version that cannot be loaded, or none that could be, leaves everything as it was.
    put(repository.path(), "m/9", &saying(9.0));
    std::fs::remove_file(repository.path().join("m/9/model.onnx")).unwrap();
    std::fs::write(repository.path().join("m/config.toml"), "versions = { specific = [2, 9] }").unwrap();
    let (status, error) = load(&server, "m").await;
    assert!(status == 404 && error.contains("m/9/model.onnx"), "{status} {error}");
    assert_eq!(short_states(&server, "m").await, ["1 READY", "2 UNAVAILABLE", "3 READY", "9 UNAVAILABLE"]);
    assert_eq!((ask(&server, "m/versions/1").await, ask(&server, "m").await), (Ok(1.0), Ok(3.0)));
}
