//! What the server counts: its metrics page and its statistics.

use std::collections::BTreeMap;

use convoy::server::Server;
use serde_json::Value;

use crate::http;
use crate::tally::Tally;

/// Everything on the metrics page that is not 0.
pub(crate) async fn page(server: &Server) -> BTreeMap<String, u64> {
    let answer = http::send_to(server.metrics_address(), "GET", "/metrics", &[], "").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    // Counts are whole; times are not, and not looked at.
    lines
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .filter(|(_, value)| *value > 0)
        .collect()
}

/// The sum over all lines of a family that have all of `labels`.
pub(crate) fn sum(page: &BTreeMap<String, u64>, family: &str, labels: &[&str]) -> u64 {
    let of_family = page.iter().filter(|(line, _)| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{')));
    of_family.filter(|(line, _)| labels.iter().all(|label| line.contains(label))).map(|(_, count)| count).sum()
}

/// What a model's statistics say agrees with its metrics.
pub(crate) fn assert_agree(page: &BTreeMap<String, u64>, statistics: &Value) {
    let name = statistics["name"].as_str().unwrap();
    let model = &*format!("model=\"{name}\"");
    let metric = |family: &str| sum(page, family, &[model]);
    let count = |what: &str| statistics["inference_stats"][what]["count"].as_u64().unwrap();
    let success = sum(page, "convoy_requests_total", &[model, "outcome=\"success\""]);
    assert_eq!(count("success"), success, "{name}");
    assert_eq!(metric("nv_inference_request_success"), success, "{name}");
    assert_eq!(metric("convoy_request_seconds_count"), success, "{name}");
    assert_eq!(count("fail"), metric("convoy_requests_total") - success, "{name}");
    assert_eq!(metric("nv_inference_request_failure"), count("fail"), "{name}");

    let rows = statistics["inference_count"].as_u64().unwrap();
    let batches = statistics["batch_stats"].as_array().unwrap().iter().map(|batch| {
        let counts =
            ["compute_input", "compute_infer", "compute_output"].map(|part| batch[part]["count"].as_u64().unwrap());
        assert_eq!(counts, [counts[0]; 3], "{name}");
        [batch["batch_size"].as_u64().unwrap() * counts[0], counts[0]]
    });
    let [in_batches, runs] = batches.fold([0; 2], |sums, batch| [sums[0] + batch[0], sums[1] + batch[1]]);
    for (what, found) in [
        ("batches", in_batches),
        ("queue", count("queue")),
        ("compute_input", count("compute_input")),
        ("compute_infer", count("compute_infer")),
        ("compute_output", count("compute_output")),
        ("nv_inference_count", metric("nv_inference_count")),
        ("convoy_batch_size_sum", metric("convoy_batch_size_sum")),
        ("convoy_queue_seconds_count", metric("convoy_queue_seconds_count")),
    ] {
        assert_eq!(found, rows, "{name}: {what}");
    }
    for (what, found) in [
        ("execution_count", statistics["execution_count"].as_u64().unwrap()),
        ("nv_inference_exec_count", metric("nv_inference_exec_count")),
        ("convoy_batch_size_count", metric("convoy_batch_size_count")),
        ("convoy_compute_seconds_count", metric("convoy_compute_seconds_count")),
    ] {
        assert_eq!(found, runs, "{name}: {what}");
    }
    for (statistic, [own, triton]) in [
        ("cache_hit", ["convoy_response_cache_hits_total", "nv_cache_num_hits_per_model"]),
        ("cache_miss", ["convoy_response_cache_misses_total", "nv_cache_num_misses_per_model"]),
    ] {
        assert_eq!([metric(own), metric(triton)], [count(statistic); 2], "{name}: {statistic}");
    }
}

/// Families whose every line the client has counted for itself, but for `models` whose clients left at any moment, or whose answers
/// are kept.
const COUNTED: [&str; 11] = [
    "convoy_requests_total",
    "convoy_request_seconds_count",
    "convoy_decode_seconds_count",
    "convoy_refusals_total",
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "convoy_http_requests_total",
    "convoy_http_request_duration_seconds_count",
    "convoy_grpc_requests_total",
    "convoy_grpc_request_duration_seconds_count",
];

pub(crate) fn counted(page: &BTreeMap<String, u64>) -> Tally {
    let is_counted = |line: &str| {
        let family = line.split('{').next().unwrap();
        COUNTED.contains(&family)
            && !["kept", "fast", "both"].iter().any(|model| line.contains(&format!("model=\"{model}\"")))
    };
    let route_of_stats = |line: &str| line.contains("/stats");
    let lines = page.iter().filter(|(line, _)| is_counted(line) && !route_of_stats(line));
    Tally(lines.map(|(line, count)| (line.clone(), *count)).collect())
}

pub(crate) async fn model_statistics(server: &Server) -> Vec<Value> {
    http::get(server, "/v2/models/stats").await.json()["model_stats"].as_array().unwrap().clone()
}
