//! Many at once on one model: everything ends, and ends in one of the ways that are meant.

use std::sync::Arc;

use convoy::server::Server;
use futures_util::future::join_all;
use http_body_util::Full;
use serde_json::json;

use crate::server::{Repository, start, within_a_minute};
use crate::{
    ask, explicit, explicit_all, http, load, loads, metric, saying, short_states, states, unload, until, watchdog,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_on_one_model() {
    let _watchdog = watchdog();
    let repository = Repository::new().with("m", &saying(1.0), "", "").with("n", &saying(2.0), "", "");
    let server = Arc::new(start(explicit_all(&repository)).await);
    let calls = (0..200).map(|index| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            match index % 4 {
                0 => assert_eq!(load(&server, "m").await, (200, String::new())),
                1 => assert_eq!(unload(&server, "m").await, (200, String::new())),
                2 => match ask(&server, "m").await {
                    Ok(said) => assert!((said - 1.0).abs() < 1e-6),
                    Err(status) => assert_eq!(status, 503),
                },
                // The other model is not touched by any of it.
                _ => assert_eq!(ask(&server, "n").await, Ok(2.0)),
            }
        })
    });
    for call in within_a_minute(join_all(calls)).await {
        call.unwrap();
    }
    assert_eq!(load(&server, "m").await.0, 200);
    assert_eq!(ask(&server, "m").await, Ok(1.0));
    assert_eq!(short_states(&server, "m").await, ["1 READY"]);
    assert_eq!(loads(&server, "m", "failed").await, 0);
    assert_eq!(metric(&server, "convoy_in_flight{model=\"m\",version=\"1\"}").await, Some(0.0));
    Arc::into_inner(server).unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_load_at_the_same_time() {
    let _watchdog = watchdog();
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(explicit(&repository)).await;
    for result in join_all((0..10).map(|_| load(&server, "m"))).await {
        assert_eq!(result, (200, String::new()));
    }
    // Those that waited behind the one that had begun shared the next.
    let count = loads(&server, "m", "success").await;
    assert!((1..=10).contains(&count), "{count}");
    assert_eq!(ask(&server, "m").await, Ok(1.0));
}

/// Sends `count` requests that wait in the queue of the model `held`, and completes when they do.
async fn queued(server: &Arc<Server>, count: usize) -> Vec<tokio::task::JoinHandle<Result<f32, u16>>> {
    let requests = (0..count).map(|_| {
        let server = Arc::clone(server);
        tokio::spawn(async move { ask(&server, "held").await })
    });
    let requests = requests.collect();
    let depth = || metric(server, "convoy_queue_depth{model=\"held\",version=\"1\"}");
    until(depth, |depth| *depth == Some(count as f64)).await;
    requests
}

/// A model that holds requests back for an hour until there are nine.
const HELD: &str = "max_batch_size = 9\n[instances]\ncount = 1\n[batching]\nmax_queue_delay_us = 3600000000\n";

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_answered_when_their_model_goes() {
    let _watchdog = watchdog();
    let repository = Repository::new().with("held", &saying(1.0), HELD, "");
    let server = Arc::new(start(explicit_all(&repository)).await);
    let requests = queued(&server, 5).await;
    assert_eq!(within_a_minute(unload(&server, "held")).await, (200, String::new()));
    for request in requests {
        assert_eq!(request.await.unwrap(), Ok(1.0));
    }
    assert_eq!(states(&server, "held").await[0].2, "unloaded");
    assert_eq!(ask(&server, "held").await, Err(503));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_answered_by_the_model_that_took_them() {
    let _watchdog = watchdog();
    let repository = Repository::new().with("held", &saying(1.0), HELD, "");
    let server = Arc::new(start(explicit_all(&repository)).await);
    let requests = queued(&server, 5).await;
    crate::put(repository.path(), "held/1", &saying(2.0));
    assert_eq!(within_a_minute(load(&server, "held")).await, (200, String::new()));
    for request in requests {
        assert_eq!(request.await.unwrap(), Ok(1.0));
    }
    let requests = queued(&server, 8).await;
    assert_eq!(ask(&server, "held").await, Ok(2.0));
    for request in requests {
        assert_eq!(request.await.unwrap(), Ok(2.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_while_it_loads() {
    let _watchdog = watchdog();
    let mut repository = Repository::new();
    for index in 0..12 {
        repository = repository.with(&format!("m{index}"), &saying(1.0), "", "");
    }
    let server = start(explicit(&repository)).await;
    let address = server.http_address();
    let calls: Vec<_> = (0..60)
        .map(|index| {
            let path = format!("/v2/repository/models/m{}/load", index % 12);
            tokio::spawn(async move {
                let mut connection = http::Connection::open_at(address).await;
                let request = hyper::Request::post(path).header("host", "test");
                // An error says that the server had gone before it took the call.
                let answer = connection.0.send_request(request.body(Full::default()).unwrap()).await;
                answer.ok().map(|answer| answer.status().as_u16())
            })
        })
        .collect();
    let index = || http::send(&server, "POST", "/v2/repository/index", &[], "");
    until(index, |index| index.json().to_string().contains("ING")).await;
    within_a_minute(server.shutdown()).await;
    for call in calls {
        let status = within_a_minute(call).await.unwrap();
        assert!(matches!(status, None | Some(200 | 503)), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_undo_its_load() {
    let _watchdog = watchdog();
    let repository = Repository::new().with("m", &saying(1.0), "", "");
    let server = start(explicit(&repository)).await;
    let mut connection = http::Connection::open(&server).await;
    let request = hyper::Request::post("/v2/repository/models/m/load").header("host", "test");
    let request = request.body(Full::new(json!({}).to_string().into())).unwrap();
    tokio::select! {
        biased;
        _ = connection.send(request) => {}
        () = tokio::task::yield_now() => {}
    }
    drop(connection);
    // Either the server never saw the call, or it did all of it.
    let settled =
        until(|| short_states(&server, "m"), |states| !states.iter().any(|state| state.contains("LOADING"))).await;
    assert!(settled == ["1 READY"] || settled == ["UNAVAILABLE"], "{settled:?}");
    assert_eq!(load(&server, "m").await.0, 200);
}
