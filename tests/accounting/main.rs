//! Ten thousand requests of every kind, counted by the client: the metrics, the statistics and the client agree to the unit, and
//! every gauge is back at 0.
//!
//! The client counts what it saw, so nothing depends on how fast the server is: a request that could be late is counted by the
//! answer it got. What a client does not see, since it left, is arranged so that it must be so: it leaves while its request is held
//! back for an hour. Only of those that leave at any moment is nothing known but that the server's own counts agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod books;
mod client;
mod tally;

#[path = "../support/graphs.rs"]
#[expect(dead_code, reason = "one graph is enough")]
mod graphs;
#[path = "../support/grpc.rs"]
#[expect(dead_code, reason = "not every form of a request is needed here")]
mod grpc;
#[path = "../support/http.rs"]
#[expect(dead_code, reason = "connections are kept")]
mod http;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "no model is broken here")]
mod server;

use std::sync::Arc;

use books::{assert_agree, counted, model_statistics, page, sum};
use client::{CLASSIFY, Client, INFER, INFERENCE, tensor_json, tensor_message};
use convoy::server::Server;
use fastrand::Rng;
use futures_util::stream;
use server::{PLAIN_RECIPE, Repository, config, png, start, within_a_minute};
use tally::Tally;
use tonic::Code;

/// How many clients there are at a time, and how many requests each sends.
const CLIENTS: u64 = 16;
const REQUESTS: usize = 640;

fn repository() -> Repository {
    let graph = graphs::channel_means(2, None);
    let uncached = format!("{PLAIN_RECIPE}[response_cache]\nenabled = false\n[instances]\ncount = 2\n[batching]\n");
    let hour = "max_queue_delay_us = 3600000000\n";
    let one = uncached.replace("count = 2", "count = 1");
    let repository = Repository::new()
        .with("m", &graph, &format!("{uncached}queue_size = 100000\n"), "")
        .with("fast", &graph, &uncached, "")
        .with("kept", &graph, PLAIN_RECIPE, "")
        .with("slow", &graph, &format!("max_batch_size = 512\n{one}{hour}"), "")
        .with("full", &graph, &format!("max_batch_size = 2\n{one}{hour}queue_size = 0\n"), "");
    std::fs::create_dir(repository.path().join("both")).unwrap();
    std::fs::write(repository.path().join("both/config.toml"), "members = ['kept', 'fast']").unwrap();
    repository
}

async fn in_flight(server: &Server, model: &str, count: u64) {
    within_a_minute(async {
        while sum(&page(server).await, "convoy_in_flight", &[&format!("model=\"{model}\"")]) != count {}
    })
    .await;
}

/// Sends requests that are held back for an hour, over both protocols, and leaves when they are.
async fn leave_while_held_back(server: &Arc<Server>) -> Tally {
    const EACH: u64 = 25;
    let mut tally = Tally::default();
    let mut tasks = Vec::new();
    for _ in 0..EACH {
        let http = Arc::clone(server);
        tasks.push(tokio::spawn(async move {
            http::send(&http, "POST", "/v2/models/slow/infer", &[], tensor_json(1, 0)).await;
        }));
        tally.http(INFER, 499);
        tally.request("slow", "http", "canceled", 0, 0);
        let mut client = grpc::client(server).await;
        tasks.push(tokio::spawn(async move {
            client.model_infer(tensor_message("slow", 1, 0)).await.unwrap();
        }));
        tally.grpc(INFERENCE, "ModelInfer", Code::Cancelled);
        tally.request("slow", "grpc", "canceled", 0, 0);
        let mut client = grpc::client(server).await;
        tasks.push(tokio::spawn(async move {
            let answers = client.model_stream_infer(stream::iter([tensor_message("slow", 1, 0)])).await;
            answers.unwrap().into_inner().message().await.unwrap();
        }));
        tally.grpc(INFERENCE, "ModelStreamInfer", Code::Cancelled);
        tally.request("slow", "grpc", "canceled", 0, 0);
    }
    in_flight(server, "slow", 3 * EACH).await;
    for task in tasks {
        task.abort();
        assert!(task.await.is_err(), "it was held back");
    }
    tally
}

/// Sends requests to models of which the client's count is not compared, and leaves some of them at any moment.
async fn leave_at_any_moment(server: &Arc<Server>, random: &mut Rng) {
    for _ in 0..200 {
        let server = Arc::clone(server);
        let picture = png([random.u8(..4), 0, 0]);
        let model = ["fast", "kept", "both"][random.usize(..3)];
        let request = tokio::spawn(async move {
            if model == "fast" {
                let request = grpc::raw("fast", "BYTES", &[1], grpc::byte_strings(&[picture]));
                drop(grpc::client(&server).await.model_infer(request).await);
            } else {
                http::send(&server, "POST", &CLASSIFY.replace("{model}", model), &[], picture).await;
            }
        });
        for _ in 0..random.usize(..40) {
            tokio::task::yield_now().await;
        }
        if random.bool() {
            request.abort();
        }
        drop(request.await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_statistics_and_the_client_agree_after_ten_thousand_requests() {
    let repository = repository();
    let mut config = config(&repository);
    config.response_cache.max_bytes = 1 << 20;
    let server = Arc::new(start(config).await);

    // Takes one of the two places of `full` for as long as it waits for a second row, which never gets a place.
    let holder = Arc::clone(&server);
    let holder = tokio::spawn(async move {
        http::send(&holder, "POST", "/v2/models/full/infer", &[], tensor_json(1, 0)).await;
    });
    in_flight(&server, "full", 1).await;

    let clients = (0..CLIENTS).map(|seed| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let mut client = Client::new(&server, seed).await;
            let mut sent = 0;
            while sent < REQUESTS {
                sent += client.any().await;
            }
            (sent, client.tally)
        })
    });
    let (mut sent, mut tally) = (0, Tally::default());
    for client in clients.collect::<Vec<_>>() {
        let (count, counted) = client.await.unwrap();
        sent += count;
        tally.merge(counted);
    }
    assert!(sent >= 10_000, "{sent}");
    holder.abort();
    assert!(holder.await.is_err(), "it was held back");
    tally.http(INFER, 499);
    tally.request("full", "http", "canceled", 0, 0);
    tally.merge(leave_while_held_back(&server).await);
    tally.0.retain(|_, count| *count > 0);

    // A call is counted when its connection has taken the answer, and one that was left when the server learns of it.
    let settled = async { while counted(&page(&server).await) != tally {} };
    if tokio::time::timeout(std::time::Duration::from_secs(20), settled).await.is_err() {
        assert_eq!(counted(&page(&server).await), tally);
    }

    leave_at_any_moment(&server, &mut Rng::with_seed(7)).await;
    for gauge in ["convoy_in_flight", "convoy_queue_depth", "convoy_queue_bytes", "nv_inference_pending_request_count"]
    {
        within_a_minute(async { while sum(&page(&server).await, gauge, &[]) != 0 {} }).await;
    }
    for statistics in model_statistics(&server).await {
        assert_agree(&page(&server).await, &statistics);
    }
}
