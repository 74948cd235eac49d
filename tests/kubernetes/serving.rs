//! The real server, started as the manifests say.

use std::future::Future;
use std::path::Path;

use serde_json::{Value, json};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::client::send_to;
use crate::graphs;
use crate::manifests::{Objects, list, read_yaml, render, render_with, text};
use crate::pod::Pod;
use crate::server::{PLAIN_RECIPE, Repository, png, within_a_minute};

/// The model that the overlays ask for by name.
const MODEL: &str = "efficientnet-lite0";

fn block_on<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(within_a_minute(test))
}

fn repository() -> Repository {
    Repository::new().with(MODEL, &graphs::channel_means(8, None), PLAIN_RECIPE, "red\ngreen\nblue\n")
}

/// The pod of the overlay for CPUs.
fn deploy(repository: &Repository) -> Pod {
    let objects = Objects::of(&render("overlays/cpu"));
    let config = ("/etc/convoy/convoy.toml".to_owned(), objects.file("config", "convoy.toml").to_owned());
    Pod::start(objects.container(), ("/models", repository.path()), &[config])
}

/// The class that the server gives a red picture under KServe's V1 protocol, by its name.
async fn first_class(pod: &Pod, port: impl Into<Value>, model: &str) -> String {
    use base64::Engine;
    let picture = base64::engine::general_purpose::STANDARD.encode(png([250, 10, 20]));
    let body = json!({ "instances": [{ "b64": picture }] }).to_string();
    let json = [("content-type", "application/json")];
    let answer = send_to(pod.address(&port.into()), "POST", &format!("/v1/models/{model}:predict"), &json, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    text(&answer.json()["predictions"][0]["classes"][0]["label"]).to_owned()
}

pub(crate) fn the_deployment_serves_and_ends() {
    let repository = repository();
    let pod = deploy(&repository);
    block_on(async {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            pod.until(probe).await;
        }
        assert_eq!(first_class(&pod, "http", MODEL).await, "red");

        // What Prometheus and the autoscaler ask for is there, under these names.
        let production = Objects::of(&render("overlays/production"));
        let endpoint = &production.get("ServiceMonitor", "convoy")["spec"]["endpoints"][0];
        let metrics = pod.get(endpoint["port"].clone(), text(&endpoint["path"])).await;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let scaled_by = &production.get("HorizontalPodAutoscaler", "convoy")["spec"]["metrics"];
        let adapter = read_yaml("components/autoscaling/prometheus-adapter.yaml");
        for metric in list(scaled_by) {
            let name = text(&metric["pods"]["metric"]["name"]);
            let rule = list(&adapter["rules"]["custom"]).iter().find(|rule| rule["name"]["as"] == name);
            let rule = rule.unwrap_or_else(|| panic!("the adapter offers no {name}"));
            let (series, labels) = text(&rule["seriesQuery"]).split_once('{').unwrap();
            assert!(metrics.contains(&format!("\n{series}{{model=\"{MODEL}\"")), "{series} in {metrics}");
            // The labels that the query asks for are those that are said to be resources.
            for (label, resource) in rule["resources"]["overrides"].as_object().unwrap() {
                assert!(labels.contains(&format!("{label}!=\"\"")), "{labels}");
                assert_eq!(resource["resource"], label.as_str());
            }
        }

        // Every service that the route names is one that the server has.
        let route = production.get("GRPCRoute", "convoy");
        let services = pod.services(&json!("grpc")).await;
        for matched in list(&route["spec"]["rules"][0]["matches"]) {
            let service = text(&matched["method"]["service"]);
            assert!(services.iter().any(|other| other == service), "{service} in {services:?}");
        }
        let ingress = Objects::of(&render_with("ingress"));
        for path in list(&ingress.get("Ingress", "convoy-grpc")["spec"]["rules"][0]["http"]["paths"]) {
            let service = text(&path["path"]).trim_start_matches('/');
            assert!(services.iter().any(|other| other == service), "{service} in {services:?}");
        }
        assert_eq!(pod.health(&json!("grpc"), MODEL).await, Some(ServingStatus::Serving));
    });
    assert!(pod.terminate().success());
}

pub(crate) fn a_model_that_cannot_be_loaded_stops_a_rollout() {
    // Bound, or it would be gone before the server has read it.
    let repository = Repository::new().with_broken(MODEL);
    let pod = deploy(&repository);
    block_on(async {
        // The server is ready, as it has done what it could. The model is not, and that is what is asked for at the start.
        pod.until("readinessProbe").await;
        assert!(!pod.probe("startupProbe").await);
        assert!(pod.probe("livenessProbe").await);
    });
}

/// The container of one of KServe's runtimes, as KServe makes it for an `InferenceService` of this name.
fn runtime(name: &str, service: &str) -> Value {
    let objects = Objects::of(&render("kserve"));
    let container = &objects.get("ClusterServingRuntime", name)["spec"]["containers"][0];
    serde_json::from_str(&container.to_string().replace("{{.Name}}", service)).unwrap()
}

fn kserve(runtime: &Value, models: &Path, model: &str) {
    let pod = Pod::start(runtime, ("/mnt/models", models), &[]);
    block_on(async {
        pod.until("readinessProbe").await;
        assert!(pod.probe("livenessProbe").await);
        // What clients of each protocol in protocolVersions ask first.
        assert_eq!(first_class(&pod, 8080, model).await, "red");
        assert_eq!(pod.get(8080, &format!("/v1/models/{model}")).await.json()["ready"], true);
        assert_eq!(pod.get(8080, &format!("/v2/models/{model}")).await.json()["name"], model);
        assert_eq!(pod.health(&json!(9000), model).await, Some(ServingStatus::Serving));
        assert_eq!(pod.get(8002, "/metrics").await.status, 200);
    });
}

pub(crate) fn kserve_serves_a_model_in_either_layout() {
    let runtime = runtime("convoy", "cats");
    // What a storage URI of a model's folder leaves in /mnt/models.
    kserve(&runtime, &repository().path().join(MODEL), "cats");
    // What a storage URI of a folder without versions leaves there.
    let flat = tempfile::tempdir().unwrap();
    graphs::write(flat.path(), &graphs::channel_means(8, None));
    std::fs::rename(flat.path().join("model.onnx"), flat.path().join("cats-2026.onnx")).unwrap();
    std::fs::write(flat.path().join("labels.txt"), "red\ngreen\nblue\n").unwrap();
    kserve(&runtime, flat.path(), "cats");
}

pub(crate) fn kserve_serves_a_repository() {
    kserve(&runtime("convoy-repository", "classifiers"), repository().path(), MODEL);
}
