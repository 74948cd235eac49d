//! `/debug`.

use std::time::Duration;

use convoy::server::Server;
use serde_json::Value;

use crate::client::{Connection, get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start, within_a_minute};

/// A model whose batches wait for a second row, an ensemble, and one that is broken.
async fn server() -> (Server, Repository) {
    let held =
        "max_batch_size = 2\n[instances]\ncount = 1\n[batching]\nqueue_size = 4\nmax_queue_delay_us = 600000000\n";
    let repository = Repository::new()
        .with("means", &graphs::channel_means(2, None), &format!("max_batch_size = 2\n{PLAIN_RECIPE}"), "")
        .with("held", &graphs::channel_means(2, None), held, "")
        .with_broken("broken");
    let ensemble = repository.path().join("both");
    std::fs::create_dir(&ensemble).unwrap();
    std::fs::write(ensemble.join("config.toml"), "members = ['means', 'held']").unwrap();
    let mut config = config(&repository);
    config.response_cache.max_bytes = 1 << 20;
    config.tracing.headers = vec!["authorization=Bearer hunter2".to_owned()];
    config.shutdown.timeout_ms = 100;
    (start(config).await, repository)
}

async fn model(server: &Server, name: &str) -> Value {
    let answer = get(server, "/debug").await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["cache-control"].to_str().unwrap()),
        (200, "no-store"),
        "{answer:?}"
    );
    answer.json()["models"].as_array().unwrap().iter().find(|model| model["name"] == name).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_the_server_is_and_no_secret() {
    let (server, _repository) = server().await;
    let answer = get(&server, "/debug").await;
    let debug = answer.json();
    assert_eq!(debug["build"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(debug["build"]["rustc"].as_str().unwrap().starts_with("rustc 1."), "{debug}");
    assert!(debug["build"]["onnxruntime"].as_str().unwrap().contains("git-commit-id="), "{debug}");
    assert!(std::path::Path::new(debug["build"]["onnxruntime_library"].as_str().unwrap()).is_file());
    assert_eq!(debug["ready"], true);
    assert_eq!(debug["response_cache"]["limit"], 1 << 20);
    assert_eq!(debug["config"]["http"]["address"], "127.0.0.1:0");
    assert_eq!(debug["config"]["tracing"]["headers"], "(not shown)");

    let page = send(&server, "GET", "/debug", &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], "").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    for said in ["<td>means</td>", "<td>ensemble of means, held</td>", "UNAVAILABLE", "<td>1 of 1</td>", "(not shown)"]
    {
        // An idle instance is not busy.
        assert_eq!(html.contains(said), said != "<td>1 of 1</td>", "{said} in {html}");
    }
    for body in [answer.body, page.body] {
        assert!(!String::from_utf8(body.to_vec()).unwrap().contains("hunter2"));
    }
    let metrics = String::from_utf8(get(&server, "/metrics").await.body.to_vec()).unwrap();
    let info = metrics.lines().find(|line| line.starts_with("convoy_build_info{")).unwrap();
    assert!(info.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))) && info.ends_with(" 1"), "{info}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_numbers_are_those_of_this_moment() {
    let (server, _repository) = server().await;
    let idle = model(&server, "held").await;
    assert_eq!(idle["state"], "READY");
    let graph = &idle["graph"];
    assert_eq!((&graph["provider"], &graph["max_batch_size"]), (&"cpu".into(), &2.into()));
    assert_eq!((&graph["instances"]["count"], &graph["instances"]["busy"]), (&1.into(), &0.into()));
    // Four places in the queue and two with the instance.
    assert_eq!(graph["queue"]["admitted_rows"], serde_json::json!({"used": 0, "limit": 6}));
    // Warm-up has measured every size.
    let sizes: Vec<_> = graph["batch_times"].as_array().unwrap().iter().map(|time| time["size"].clone()).collect();
    assert_eq!(sizes, [1, 2], "{graph}");

    let mut connection = Connection::open(&server).await;
    let request = hyper::Request::post("/v1/models/held/classify").header("host", "localhost");
    let request = request.body(http_body_util::Full::new(png([1, 2, 3]).into())).unwrap();
    let waiting = tokio::spawn(async move { connection.0.send_request(request).await.map(drop) });
    let held = within_a_minute(async {
        loop {
            let held = model(&server, "held").await;
            if held["graph"]["queue"]["rows"] == 1 {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(held["graph"]["queue"]["admitted_rows"]["used"], 1);
    assert!(held["graph"]["queue"]["bytes"]["used"].as_u64().unwrap() > 0);
    assert_eq!(held["requests"], serde_json::json!({"succeeded": 0, "failed": 0}));
    // The one that waits, and the one that asks.
    assert!(get(&server, "/debug").await.json()["connections"]["http"].as_u64().unwrap() >= 2);

    assert_eq!(send(&server, "POST", "/v1/models/means/classify", &[], png([9, 9, 9])).await.status, 200);
    assert_eq!(model(&server, "means").await["requests"]["succeeded"], 1);
    assert_eq!(model(&server, "both").await["members"], serde_json::json!(["means", "held"]));
    let broken = model(&server, "broken").await;
    assert_eq!(broken["state"], "UNAVAILABLE");
    assert!(broken["reason"].as_str().unwrap().contains("model.onnx") && broken["graph"].is_null(), "{broken}");
    waiting.abort();
}
