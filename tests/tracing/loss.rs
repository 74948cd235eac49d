//! A collector that is not there, or does not answer.

use std::time::Duration;

use convoy::server::Server;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::client::{get, send};
use crate::server::{png, within_a_minute};
use crate::{repository, traced};

async fn metric(server: &Server, outcome: &str) -> u64 {
    let page = String::from_utf8(get(server, "/metrics").await.body.to_vec()).unwrap();
    let name = format!("convoy_trace_spans_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_no_request() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let repository = repository();
    let server = traced(&repository, nobody, |_| {}).await;
    for _ in 0..2 {
        let answer = send(&server, "POST", "/v1/models/means/classify", &[], png([255, 0, 0])).await;
        assert_eq!(answer.status, 200);
    }
    // Five spans each. The exporter tries after some seconds.
    within_a_minute(async {
        while metric(&server, "failed").await < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(metric(&server, "exported").await, 0);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_does_not_hold_up_the_end() {
    // It accepts, in the kernel, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository = repository();
    let server = traced(&repository, silent.local_addr().unwrap(), |_| {}).await;
    let answer = send(&server, "POST", "/v1/models/means/classify", &[], png([255, 0, 0])).await;
    assert_eq!(answer.status, 200);
    let began = Instant::now();
    within_a_minute(server.shutdown()).await;
    // The exporter's own patience is longer than this.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_find_no_room_are_dropped_and_counted() {
    // An export that hangs lets the queue fill up: 2048 spans, and 512 that are being sent.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository = repository();
    let server = traced(&repository, silent.local_addr().unwrap(), |_| {}).await;
    let mut connection = crate::client::Connection::open(&server).await;
    within_a_minute(async {
        for asked in 1.. {
            connection.0.ready().await.unwrap();
            let request = hyper::Request::get("/v1/models").header("host", "localhost");
            let answer = connection.send(request.body(http_body_util::Full::default()).unwrap()).await;
            assert_eq!(answer.status, 200);
            if asked % 100 == 0 && metric(&server, "dropped").await > 0 {
                break;
            }
        }
    })
    .await;
    within_a_minute(server.shutdown()).await;
}
