//! The OpenAPI document against the routes. That it is one at all, and that answers are what it says, is tested with OpenAPI's own
//! validator in `tests/clients/openapi.py`.

use std::collections::BTreeSet;
use std::path::Path;

use convoy::server::Server;
use serde_json::Value;

use crate::client::{Answer, get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};

async fn server(change: impl FnOnce(&mut convoy::config::ServerConfig)) -> (Server, Repository) {
    let repository = Repository::new().with("filters", &graphs::convolutional(8, 3), PLAIN_RECIPE, "");
    let mut config = config(&repository);
    change(&mut config);
    (start(config).await, repository)
}

/// The method and path of every operation.
async fn operations(server: &Server) -> BTreeSet<(String, String)> {
    let document = get(server, "/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    });
    operations.collect()
}

/// A path that the template stands for.
fn filled(path: &str) -> String {
    path.replace("{model}", "filters").replace("{version}", "1").replace("{file}", "app.js")
}

fn is_routed(answer: &Answer, path: &str) -> bool {
    if answer.status == 405 {
        return false;
    }
    let message = serde_json::from_slice::<Value>(&answer.body).ok();
    let message = message.as_ref().and_then(|body| body["error"].as_str()).unwrap_or_default();
    !(message.starts_with("there is nothing") && message.contains(path))
}

#[tokio::test]
async fn every_operation_has_a_route() {
    let routes = |config: &mut convoy::config::ServerConfig| {
        config.http.health_route = Some("/healthy".to_owned());
        config.http.predict_route = Some("/predict-here".to_owned());
    };
    let (server, _repository) = server(routes).await;
    let operations = operations(&server).await;
    assert!(operations.len() > 40, "{operations:?}");
    for path in ["/healthy", "/predict-here", "/openapi.json", "/metrics"] {
        assert!(operations.iter().any(|(_, other)| other == path), "{path} is not in the document");
    }
    for (method, path) in &operations {
        let path = filled(path);
        let answer = send(&server, method, &path, &[], "").await;
        assert!(is_routed(&answer, &path), "{method} {path} has no route: {answer:?}");
    }
    let nothing = get(&server, "/v1/nothing").await;
    assert!(!is_routed(&nothing, "/v1/nothing"), "{nothing:?}");
}

/// The other direction, for methods: what a path takes is what `Allow` says where it is asked with another method.
#[tokio::test]
async fn every_method_of_a_path_is_an_operation() {
    let (server, _repository) = server(|_| ()).await;
    let operations = operations(&server).await;
    for path in operations.iter().map(|(_, path)| path).collect::<BTreeSet<_>>() {
        let answer = send(&server, "DELETE", &filled(path), &[], "").await;
        assert_eq!(answer.status, 405, "{path}: {answer:?}");
        let allow = answer.headers["allow"].to_str().unwrap();
        let allowed: BTreeSet<_> = allow.split(',').map(str::trim).filter(|&method| method != "HEAD").collect();
        // To the router, a verb behind a colon is part of the name.
        let route = path.split(':').next().unwrap();
        let same_route = |other: &str| other.split(':').next() == Some(route);
        let documented: BTreeSet<_> =
            operations.iter().filter(|(_, other)| same_route(other)).map(|(method, _)| method.as_str()).collect();
        assert_eq!(allowed, documented, "{path}");
    }
}

/// The other direction, for paths: a route can only be made together with its operation, since nothing else adds one.
#[test]
fn every_route_is_made_with_an_operation() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut folders = vec![folder.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let adds = [".route(", ".nest(", ".route_service(", ".nest_service("];
            let count = adds.iter().map(|call| text.matches(call).count()).sum::<usize>();
            seen += count;
            let expected = if path.ends_with("routes.rs") { count } else { 0 };
            assert_eq!(count, expected, "{} adds a route that the OpenAPI document does not have", path.display());
        }
    }
    assert!(seen > 0, "routes.rs adds routes");
}

#[tokio::test]
async fn keys_are_asked_for_where_the_document_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    std::fs::write(&keys, format!("[[keys]]\nsha256 = \"{}\"\nright = \"infer\"\n", "0".repeat(64))).unwrap();
    let (server, _repository) = server(|config| config.auth.keys_file = Some(keys.clone())).await;
    let document = get(&server, "/openapi.json").await.json();
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let needs_key = !operation["security"].is_null();
            let answer = send(&server, &method.to_uppercase(), &filled(path), &[], "").await;
            assert_eq!(answer.status == 401, needs_key, "{method} {path}: {answer:?}");
            assert_eq!(operation["responses"]["401"].is_null(), !needs_key, "{method} {path}");
        }
    }
}

/// What a query must have is said to be needed there, and nothing else is.
#[tokio::test]
async fn what_a_query_must_have_is_required() {
    let (server, _repository) = server(|_| ()).await;
    let document = get(&server, "/openapi.json").await.json();
    for (operation, needed) in [("explain", &[][..]), ("features", &["layer"]), ("exciting", &["layer", "unit"])] {
        let path = format!("/v1/models/{{model}}/{operation}");
        let parameters = document["paths"][&path]["post"]["parameters"].as_array().unwrap();
        let query: Vec<_> = parameters.iter().filter(|parameter| parameter["in"] == "query").collect();
        let required: Vec<_> = query.iter().filter(|it| it["required"] == true).map(|it| &it["name"]).collect();
        assert_eq!(required, needed, "{operation}");
        let answer = send(&server, "POST", &filled(&path), &[], png([9; 3])).await;
        assert_eq!(answer.status == 400, !needed.is_empty(), "{operation}: {answer:?}");
        if let Some(method) = query.iter().find(|parameter| parameter["name"] == "method") {
            let methods = method["schema"]["enum"].as_array().unwrap();
            assert!(methods.contains(&"guided".into()), "{methods:?}");
            assert_eq!(methods.contains(&"cam".into()), operation == "explain", "{methods:?}");
        }
    }
    server.shutdown().await;
}
