//! An ensemble while its members come and go.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use convoy::server::Server;
use serde_json::json;

use crate::server::{Repository, png, start};
use crate::{
    control, explicit, explicit_all, http, load, metric, put, saying, short_states, states, unload, until, watchdog,
};

const PAIR: &str = "average = 'logits'\nmembers = ['a', 'b']\n";

fn pair() -> Repository {
    let repository = Repository::new().with("a", &saying(1.0), "", "").with("b", &saying(3.0), "", "");
    std::fs::create_dir(repository.path().join("pair")).unwrap();
    std::fs::write(repository.path().join("pair/config.toml"), PAIR).unwrap();
    repository
}

/// What the ensemble says of a black picture: the mean of its members' biases, beside what the recipe adds; else the status.
async fn ask(server: &Server) -> Result<f64, u16> {
    let picture = STANDARD.encode(png([0; 3]));
    let request = json!({"inputs": [{"name": "input", "datatype": "BYTES", "shape": [1], "data": [picture]}]});
    let answer = http::send(server, "POST", "/v2/models/pair/infer", &[], request.to_string()).await;
    if answer.status != 200 {
        return Err(answer.status.as_u16());
    }
    Ok(answer.json()["outputs"][0]["data"][0].as_f64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_its_members() {
    let repository = pair();
    let server = start(explicit_all(&repository)).await;
    let before = ask(&server).await.unwrap();
    put(&repository.path().join("b"), "1", &saying(7.0));
    assert_eq!(load(&server, "b").await.0, 200);
    let after = ask(&server).await.unwrap();
    assert!((after - before - 2.0).abs() < 1e-5, "{before} {after}");

    let ready = "convoy_model_state{model=\"pair\",state=\"READY\",version=\"1\"}";
    assert_eq!(metric(&server, ready).await, Some(1.0));
    // Draining ends although the ensemble that used it is still there.
    assert_eq!(unload(&server, "a").await.0, 200);
    assert_eq!(ask(&server).await, Err(503));
    let (_, state, reason) = states(&server, "pair").await.remove(0);
    assert!(state == "UNAVAILABLE" && reason.contains("the model a is unavailable: unloaded"), "{state}: {reason}");
    assert_eq!(metric(&server, ready).await, Some(0.0));
    assert_eq!(http::get(&server, "/v2/models/pair/ready").await.status, 503);

    assert_eq!(load(&server, "a").await.0, 200);
    assert_eq!(
        (short_states(&server, "pair").await, metric(&server, ready).await),
        (vec!["1 READY".into()], Some(1.0))
    );
    assert_eq!(ask(&server).await, Ok(after));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_was_loaded_when_it_or_a_member_was_last() {
    let repository = pair();
    let server = start(explicit_all(&repository)).await;
    let loaded = async || {
        let answer = http::send(&server, "POST", "/v1/models/pair/classify", &[], png([0; 3])).await.json();
        let listed = http::get(&server, "/v1/models/pair").await.json();
        assert_eq!(answer["model_loaded_ms"], listed["loaded_ms"]["1"]);
        answer["model_loaded_ms"].as_u64().unwrap()
    };
    let mut before = loaded().await;
    assert_eq!(loaded().await, before);
    for model in ["a", "b", "pair"] {
        assert_eq!(load(&server, model).await.0, 200);
        let now = loaded().await;
        assert!(now > before, "{model}: {before}, {now}");
        before = now;
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_it_loads_the_members_that_are_not() {
    let repository = pair();
    let server = start(explicit(&repository)).await;
    assert_eq!(load(&server, "a").await.0, 200);
    assert_eq!(load(&server, "pair").await.0, 200);
    assert!(ask(&server).await.is_ok());
    let loads = |model: &str| format!("convoy_model_loads_total{{model=\"{model}\",outcome=\"success\"}}");
    assert_eq!((metric(&server, &loads("a")).await, metric(&server, &loads("b")).await), (Some(1.0), Some(1.0)));

    assert_eq!(unload(&server, "pair").await.0, 200);
    assert_eq!((ask(&server).await, short_states(&server, "b").await), (Err(503), vec!["1 READY".into()]));

    assert_eq!(load(&server, "pair").await.0, 200);
    let with_members = json!({"parameters": {"unload_dependents": true}});
    assert_eq!(control(&server, "pair", "unload", &with_members).await.0, 200);
    for model in ["a", "b", "pair"] {
        assert_eq!(short_states(&server, model).await, ["1 UNAVAILABLE"], "{model}");
    }
    let wrong = json!({"parameters": {"unload_dependents": "yes"}});
    assert_eq!(control(&server, "pair", "unload", &wrong).await.0, 400);

    // A member that another ensemble has, too, is left to it; the call may bring the ensemble's configuration along.
    std::fs::create_dir(repository.path().join("other")).unwrap();
    let members = json!({"parameters": {"config": json!({"average": "logits", "members": ["b"]}).to_string()}});
    assert_eq!(control(&server, "other", "load", &members).await, (200, String::new()));
    assert_eq!(load(&server, "pair").await.0, 200);
    assert_eq!(control(&server, "pair", "unload", &with_members).await.0, 200);
    for (model, state) in [("a", "1 UNAVAILABLE"), ("b", "1 READY"), ("other", "1 READY")] {
        assert_eq!(short_states(&server, model).await, [state], "{model}");
    }
    let nobody = json!({"parameters": {"config": json!({"members": []}).to_string()}});
    let (status, error) = control(&server, "other", "load", &nobody).await;
    assert!(status == 400 && error.contains("config: members: names no model"), "{status} {error}");

    std::fs::write(repository.path().join("pair/config.toml"), "members = ['a', 'nowhere']").unwrap();
    let (status, error) = load(&server, "pair").await;
    assert!(status == 404 && error.contains("nowhere"), "{status} {error}");
}

/// Holds a request back for an hour, unless there are two.
const HELD: &str = "max_batch_size = 2\n[instances]\ncount = 1\n[batching]\nmax_queue_delay_us = 3600000000\n";

#[tokio::test(flavor = "multi_thread")]
async fn its_requests_are_answered_before_a_member_or_it_goes() {
    let _watchdog = watchdog();
    let repository = pair();
    std::fs::write(repository.path().join("b/config.toml"), HELD).unwrap();
    let server = Arc::new(start(explicit_all(&repository)).await);
    let send = || {
        let server = Arc::clone(&server);
        tokio::spawn(async move { ask(&server).await })
    };
    let queued = async || {
        let depth = || metric(&server, "convoy_queue_depth{model=\"b\",version=\"1\"}");
        until(depth, |depth| *depth == Some(1.0)).await;
    };
    let request = send();
    queued().await;
    assert_eq!(unload(&server, "b").await.0, 200);
    assert!(request.await.unwrap().is_ok());
    assert_eq!(load(&server, "b").await.0, 200);

    // The member goes on serving, so it goes on holding the request back until there is another.
    let request = send();
    queued().await;
    let unloading = tokio::spawn({
        let server = Arc::clone(&server);
        async move { unload(&server, "pair").await.0 }
    });
    until(|| short_states(&server, "pair"), |states| states == &["1 UNLOADING"]).await;
    assert!(!unloading.is_finished());
    assert_eq!(crate::ask(&server, "b").await, Ok(3.0));
    assert!(request.await.unwrap().is_ok());
    assert_eq!(unloading.await.unwrap(), 200);
    assert_eq!(short_states(&server, "pair").await, ["1 UNAVAILABLE"]);
}
