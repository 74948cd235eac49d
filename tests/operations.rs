//! What operators get beside the server: alert rules and a dashboard ask for what the server has, every alert is in the runbook,
//! and Prometheus takes its files, by `promtool` on the `PATH` (Debian's `prometheus` has it). Where that is not, its tests are
//! ignored, and say so; with `CONVOY_PROMTOOL=required` in the environment that is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/http.rs"]
#[expect(dead_code, reason = "a client that asks for little")]
mod client;
#[path = "support/graphs.rs"]
#[expect(dead_code, reason = "one graph is enough")]
mod graphs;
#[path = "operations/queries.rs"]
mod queries;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "a server that does little")]
mod server;
#[path = "operations/update.rs"]
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use convoy::config::ServerConfig;
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use self::queries::{Query, alerts, grouping, of_dashboard, selectors};
use self::server::{PLAIN_RECIPE, Repository, config, png, start};

/// What begins so is the server's.
const OWN: &[&str] = &["convoy_", "nv_", "process_"];
/// What Prometheus adds to every series of a target.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(path)
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(file("grafana/dashboards/convoy.json")).unwrap()).unwrap()
}

/// A harness of its own, because whether promtool is there is known when it is to run.
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let promtool = Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has_promtool = promtool.is_ok_and(|status| status.success());
    if !has_promtool {
        eprintln!("Prometheus' rules are NOT tested: promtool cannot be run");
        if std::env::var_os("CONVOY_PROMTOOL").is_some() && !arguments.list {
            return ExitCode::FAILURE;
        }
    }
    let promtool = |name, arguments: &'static [&'static str]| {
        test(name, || run_promtool(arguments)).with_ignored_flag(!has_promtool)
    };
    let trials = vec![
        test("queries_ask_only_for_metrics_and_labels_that_the_server_has", queries_ask_for_what_there_is),
        test("every_alert_is_in_the_runbook_and_nothing_else", every_alert_is_in_the_runbook),
        test("the_dashboard_stands_on_its_own", the_dashboard_stands_on_its_own),
        test("what_can_be_set_is_documented", what_can_be_set_is_documented),
        test("places_and_times_fit", places_and_times_fit),
        test("a_rolling_update_replaces_all_and_never_lacks_one", update::replaces_all_and_never_lacks_one),
        test("a_rolling_update_refuses_what_cannot_be_done", update::refuses_what_cannot_be_done),
        test("a_rolling_update_removes_the_new_ones_when_they_fail", update::removes_the_new_ones_when_they_fail),
        test("a_rolling_update_refuses_replicas_of_other_settings", update::refuses_replicas_of_other_settings),
        test("a_rolling_update_ends_a_batch_that_is_interrupted", update::ends_a_batch_that_is_interrupted),
        test("a_rolling_update_cleans_up_where_nobody_listens", update::cleans_up_where_nobody_listens),
        test("a_rolling_update_passes_options_on_to_compose", update::passes_options_on_to_compose),
        promtool("the_configuration_is_well_formed", &["check", "config", "prometheus.yml"]),
        promtool("the_alerts_fire_when_they_should", &["test", "rules", "alerts_test.yml"]),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn test(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn run_promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(file("prometheus")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The labels of every series that a server has which has answered over both protocols, by metric.
fn live_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async {
        let repository = Repository::new().with("means", &graphs::channel_means(2, None), PLAIN_RECIPE, "");
        // With a model store and traces, so that it has their metrics, too. Nobody listens where the traces go.
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("models.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
        tar.append_dir_all(".", repository.path()).unwrap();
        tar.finish().unwrap();
        let mut config = config(&repository);
        config.model_repository = archive;
        config.model_store.cache = Some(folder.path().join("cache"));
        config.model_store.poll_interval_ms = 1;
        config.tracing.endpoint = Some("http://127.0.0.1:1".to_owned());
        let server = start(config).await;
        let answer = client::send(&server, "POST", "/v1/classify", &[], png([9; 3])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let channel =
            Endpoint::from_shared(format!("http://{}", server.grpc_address())).unwrap().connect().await.unwrap();
        let mut health = HealthClient::new(channel);
        health.check(HealthCheckRequest::default()).await.unwrap();
        let metrics = client::send_to(server.metrics_address(), "GET", "/metrics", &[], "").await;
        String::from_utf8(metrics.body.to_vec()).unwrap()
    });
    let mut metrics = BTreeMap::<_, BTreeSet<_>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let of_line = selectors(line, &[name]);
        metrics.entry(name.to_owned()).or_default().extend(of_line[0].labels.iter().cloned());
    }
    metrics
}

fn queries_ask_for_what_there_is() {
    queries::check_itself();
    let metrics = live_metrics();
    let alerts = alerts(&file("prometheus/alerts.yml"));
    let of_alerts = alerts.into_iter().map(|alert| Query { place: alert.name, text: alert.expression });
    let queries: Vec<_> = of_alerts.chain(of_dashboard(&dashboard())).collect();
    assert!(queries.len() > 40, "{}", queries.len());
    let mut asked = BTreeSet::new();
    for Query { place, text } in &queries {
        let mut known: BTreeSet<_> = TARGET_LABELS.into_iter().map(str::to_owned).collect();
        let is_own = !text.contains("haproxy_");
        for selector in selectors(text, OWN) {
            let labels = metrics
                .get(&selector.metric)
                .unwrap_or_else(|| panic!("{place} asks for {}, which the server does not have", selector.metric));
            known.extend(labels.iter().cloned());
            for label in &selector.labels {
                assert!(known.contains(label), "{place}: {} has no label {label}", selector.metric);
            }
            asked.insert(selector.metric);
        }
        for label in grouping(text) {
            assert!(!is_own || known.contains(&label), "{place} groups by {label}, which is no label there");
        }
    }
    // What every operator looks for first is there.
    for metric in [
        "convoy_requests_total",
        "convoy_request_seconds_bucket",
        "convoy_queue_depth",
        "convoy_batch_size_sum",
        "convoy_refusals_total",
        "convoy_model_provider",
        "process_resident_memory_bytes",
        "convoy_model_store_up",
        "convoy_trace_spans_total",
    ] {
        assert!(asked.contains(metric), "nobody asks for {metric}");
    }
}

fn every_alert_is_in_the_runbook() {
    let page = std::fs::read_to_string(file("../docs/runbook.md")).unwrap();
    let headings: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|heading| heading.starts_with("Convoy"))
        .collect();
    let alerts = alerts(&file("prometheus/alerts.yml"));
    let names: BTreeSet<_> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names, headings);
    assert_eq!(names.len(), alerts.len(), "two alerts have one name");
    for alert in &alerts {
        assert_eq!(alert.runbook_url, format!("docs/runbook.md#{}", alert.name.to_lowercase()));
    }
}

/// What stands behind `before`, up to the first character that is in `end`.
fn all_behind<'a>(text: &'a str, before: &'a str, end: &'a [char]) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(move |rest| rest.split(end).next().unwrap())
}

fn what_can_be_set_is_documented() {
    let page = std::fs::read_to_string(file("../docs/deployment.md")).unwrap();
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let documented: BTreeSet<_> = rows.iter().flat_map(|row| all_behind(row, "`", &['`'])).collect();
    let mut variables = BTreeSet::new();
    for path in ["compose.yaml", "alertmanager.yaml", "gpu.yaml"] {
        let text = std::fs::read_to_string(file(path)).unwrap();
        variables.extend(all_behind(&text, "${", &[':', '-', '}']).map(str::to_owned));
        // Those that are handed through have no value.
        let names = text.lines().filter_map(|line| line.trim().strip_suffix(':'));
        variables.extend(names.filter(|name| name.starts_with("CONVOY_")).map(str::to_owned));
    }
    variables.remove("VARIABLE");
    assert!(variables.len() > 25, "{variables:?}");
    for variable in variables {
        assert!(documented.contains(&*variable), "{variable} is not in docs/deployment.md");
    }
}

/// The limits of several files agree with each other and with what the docs say.
fn places_and_times_fit() {
    let haproxy = std::fs::read_to_string(file("haproxy/haproxy.cfg")).unwrap();
    let places: BTreeSet<_> = all_behind(&haproxy, "server-template replica 1-", &[' ']).collect();
    assert_eq!(places.len(), 1, "both backends have as many places: {places:?}");
    let places = places.first().unwrap();
    for (page, words) in [("deployment.md", "HAProxy has {} places"), ("runbook.md", "there are {})")] {
        let text = std::fs::read_to_string(file("../docs").join(page)).unwrap();
        assert!(text.contains(&words.replace("{}", places)), "{page} says nothing of {places} places");
    }
    let seconds = |text: &str, key: &'static str| -> Duration {
        let value = all_behind(text, key, &['s']).next().unwrap_or_else(|| panic!("{key} is nowhere"));
        Duration::from_secs(value.trim().parse().unwrap())
    };
    let compose = std::fs::read_to_string(file("compose.yaml")).unwrap();
    let grace = seconds(&compose, "\n    stop_grace_period: ");
    let longest = ServerConfig::default().shutdown.longest();
    assert!(longest + Duration::from_secs(5) <= grace, "the server may take {longest:?} to end");
    assert!(grace < seconds(&haproxy, "\n    hold obsolete "), "HAProxy forgets a replica that drains");
    let page = std::fs::read_to_string(file("../docs/deployment.md")).unwrap();
    assert!(page.contains(&format!("ends within {} s", longest.as_secs())));
    assert!(page.contains(&format!("TimeoutStopSec={}", grace.as_secs())));
    assert!(page.contains(&format!("--stop-timeout {}", grace.as_secs())));
}

fn the_dashboard_stands_on_its_own() {
    let dashboard = dashboard();
    let source = std::fs::read_to_string(file("grafana/provisioning/datasources/prometheus.yml")).unwrap();
    let uid = source.lines().find_map(|line| line.trim().strip_prefix("uid: ")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id: {panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], uid, "{}", panel["title"]);
        }
    }
    // No two panels cover each other.
    let cell = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    for (index, a) in panels.iter().enumerate() {
        assert!(cell(a, "x") + cell(a, "w") <= 24, "{} is too wide", a["title"]);
        for b in &panels[index + 1..] {
            let apart = |start: &str, size: &str| {
                cell(a, start) + cell(a, size) <= cell(b, start) || cell(b, start) + cell(b, size) <= cell(a, start)
            };
            assert!(apart("x", "w") || apart("y", "h"), "{} and {} overlap", a["title"], b["title"]);
        }
    }
}
