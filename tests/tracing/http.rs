//! Requests over HTTP.

use convoy::telemetry::SampleRatio;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::client::{Connection, get, send};
use crate::collector::Collector;
use crate::server::png;
use crate::{CALLER, TRACE, assert_child, attribute, hex, links, one, repository, traced, traceparent};

const CLASSIFY: &str = "/v1/models/means/classify";
const SPAN: &str = "POST /v1/models/{model}/classify";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_in_its_callers_trace_with_its_parts_below() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |config| {
        config.trusted_proxies = 2;
        config.tracing.service_name = "cats".to_owned();
        config.tracing.headers = vec!["x-key=secret".to_owned()];
    })
    .await;
    let parent = traceparent(true);
    let headers = [
        ("traceparent", &*parent),
        ("tracestate", "vendor=opaque"),
        ("x-request-id", "id-1"),
        // As a client that lies and two proxies that do not.
        ("x-forwarded-for", "192.0.2.66, 203.0.113.7"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
    ];
    let answer = send(&server, "POST", CLASSIFY, &headers, png([255, 0, 0])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.headers["traceresponse"].to_str().unwrap().to_owned();
    // What waits to be sent is sent when the server ends.
    server.shutdown().await;

    let spans = collector.spans();
    let request = one(&spans, SPAN);
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&request.span_id)));
    assert_eq!(request.trace_state, "vendor=opaque");
    assert_eq!(request.kind, SpanKind::Server as i32);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/models/{model}/classify"),
        ("url.path", CLASSIFY),
        ("http.response.status_code", "200"),
        ("url.scheme", "https"),
        ("client.address", "203.0.113.7"),
        ("network.peer.address", "127.0.0.1"),
        ("convoy.request.id", "id-1"),
        ("convoy.model.name", "means"),
        ("convoy.model.version", "1"),
    ] {
        assert_eq!(attribute(request, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(attribute(request, "error.type"), None);

    let (decode, queue, compute) = (one(&spans, "decode"), one(&spans, "queue"), one(&spans, "compute"));
    for part in [decode, queue, compute] {
        assert_child(part, request);
        assert_eq!(part.trace_state, "vendor=opaque", "{}", part.name);
    }
    assert!(decode.end_time_unix_nano <= queue.start_time_unix_nano);
    assert!(queue.end_time_unix_nano <= compute.start_time_unix_nano);
    // A batch is nobody's own: it has a trace of its own.
    let batch = one(&spans, "batch");
    assert_ne!(hex(&batch.trace_id), TRACE);
    assert!(batch.parent_span_id.is_empty());
    assert!(links(batch, request) && links(compute, batch), "{spans:#?}");
    assert!(batch.start_time_unix_nano <= compute.start_time_unix_nano);
    assert!(batch.end_time_unix_nano >= compute.end_time_unix_nano);
    assert_eq!(attribute(batch, "convoy.batch.size").as_deref(), Some("1"));
    assert_eq!(attribute(batch, "convoy.model.name").as_deref(), Some("means"));
    assert_eq!(spans.len(), 5, "{spans:#?}");

    assert_eq!(collector.resource("service.name").as_deref(), Some("cats"));
    assert_eq!(collector.resource("service.instance.id").map(|id| id.len()), Some(36));
    assert!(collector.resource("host.name").is_some_and(|host| !host.is_empty()));
    assert_eq!(collector.header("x-key").as_deref(), Some("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_who_asks_unless_proxies_are_said_to_stand_in_front() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |_| {}).await;
    let headers = [("x-forwarded-for", "192.0.2.66"), ("x-forwarded-proto", "https")];
    let answer = send(&server, "POST", CLASSIFY, &headers, png([255, 0, 0])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    server.shutdown().await;
    let spans = collector.spans();
    let request = one(&spans, SPAN);
    assert_eq!(attribute(request, "client.address").as_deref(), Some("127.0.0.1"));
    assert_eq!(attribute(request, "url.scheme").as_deref(), Some("http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_tracestate_is_on_every_span_of_its_request_and_on_no_others() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |_| {}).await;
    let parent = traceparent(true);
    let state = "vendor=opaque,other=1";
    for headers in [&[("traceparent", &*parent), ("tracestate", state)][..], &[("traceparent", &*parent)], &[]] {
        assert_eq!(send(&server, "POST", CLASSIFY, headers, png([255, 0, 0])).await.status, 200);
    }
    server.shutdown().await;
    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|span| span.name == SPAN).collect();
    let with_state: Vec<_> = requests.iter().filter(|span| span.trace_state == state).collect();
    assert_eq!((requests.len(), with_state.len()), (3, 1), "{spans:#?}");
    for span in &spans {
        let is_of_it = span.span_id == with_state[0].span_id || span.parent_span_id == with_state[0].span_id;
        assert_eq!(span.trace_state, if is_of_it { state } else { "" }, "{}", span.name);
    }
    assert_eq!(spans.iter().filter(|span| span.trace_state == state).count(), 4, "the request, decode, queue, compute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_links_every_request_that_it_ran() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |_| {}).await;
    let ask = || send(&server, "POST", "/v1/models/paired/classify", &[], png([0, 255, 0]));
    let (one_answer, other) = tokio::join!(ask(), ask());
    assert_eq!((one_answer.status.as_u16(), other.status.as_u16()), (200, 200));
    server.shutdown().await;

    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|span| span.name == SPAN).collect();
    assert_eq!(requests.len(), 2);
    assert_ne!(requests[0].trace_id, requests[1].trace_id);
    let batch = one(&spans, "batch");
    assert_eq!(attribute(batch, "convoy.batch.size").as_deref(), Some("2"));
    assert_eq!(batch.links.len(), 2);
    for request in requests {
        assert!(links(batch, request));
        for part in ["decode", "queue", "compute"] {
            let found: Vec<_> =
                spans.iter().filter(|span| span.name == part && span.trace_id == request.trace_id).collect();
            assert_eq!(found.len(), 1, "{part}");
            assert_child(found[0], request);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_traced_is_decided_by_the_caller_or_by_the_ratio() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |config| config.tracing.sample_ratio = SampleRatio::NONE).await;
    let picture = png([0, 0, 255]);
    let ask = async |parent: Option<&str>| {
        let headers: Vec<_> = parent.map(|parent| ("traceparent", parent)).into_iter().collect();
        let answer = send(&server, "POST", CLASSIFY, &headers, picture.clone()).await;
        assert_eq!(answer.status, 200);
        answer.headers["traceresponse"].to_str().unwrap().to_owned()
    };
    let undecided = ask(None).await;
    assert!(undecided.ends_with("-00"), "{undecided}");
    // Nonsense begins a new trace rather than failing the request.
    let nonsense = ask(Some("00-nonsense-01")).await;
    assert!(nonsense.ends_with("-00"), "{nonsense}");
    let against = ask(Some(&traceparent(false))).await;
    assert!(against.starts_with(&format!("00-{TRACE}-")) && against.ends_with("-00"), "{against}");
    let in_favour = ask(Some(&traceparent(true))).await;
    assert!(in_favour.starts_with(&format!("00-{TRACE}-")) && in_favour.ends_with("-01"), "{in_favour}");
    server.shutdown().await;
    let spans = collector.spans();
    assert_eq!(hex(&one(&spans, SPAN).span_id), in_favour.split('-').nth(2).unwrap());
    assert_eq!(spans.len(), 5, "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_one_where_the_server_is_to_blame() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |_| {}).await;
    let body = |value: f32| {
        let data = [value; 12];
        format!(r#"{{"inputs":[{{"name":"input","shape":[1,3,2,2],"datatype":"FP32","data":{data:?}}}]}}"#)
    };
    let infer = async |model: &str, body| send(&server, "POST", &format!("/v2/models/{model}/infer"), &[], body).await;
    assert_eq!(infer("table", body(99.0)).await.status, 500);
    assert_eq!(infer("nothing", body(1.0)).await.status, 404);
    assert_eq!(send(&server, "POST", CLASSIFY, &[], "no picture").await.status, 415);
    server.shutdown().await;

    let spans = collector.spans();
    let of_status = |status: &str| {
        let has_status = |span: &&_| attribute(span, "http.response.status_code").as_deref() == Some(status);
        let found: Vec<_> = spans.iter().filter(has_status).collect();
        assert_eq!(found.len(), 1, "{status}");
        (attribute(found[0], "error.type"), found[0].status.as_ref().map_or(0, |status| status.code))
    };
    let error = StatusCode::Error as i32;
    assert_eq!(of_status("500"), (Some("500".to_owned()), error));
    assert_eq!(of_status("404"), (None, 0));
    assert_eq!(of_status("415"), (None, 0));
    // The run itself failed, and the batch with it.
    for name in ["compute", "batch"] {
        let span = one(&spans, name);
        assert_eq!(span.status.as_ref().unwrap().code, error, "{span:#?}");
    }
    assert_eq!(attribute(one(&spans, "decode"), "error.type").as_deref(), Some("unsupported_media"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_span() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |_| {}).await;
    let mut connection = Connection::open(&server).await;
    let request = hyper::Request::post("/v1/models/paired/classify")
        .header("host", "localhost")
        .body(http_body_util::Full::new(png([1, 2, 3]).into()))
        .unwrap();
    // It waits for a second row, which does not come.
    let left = tokio::time::timeout(std::time::Duration::from_millis(300), connection.0.send_request(request)).await;
    assert!(left.is_err());
    drop(connection);
    crate::server::within_a_minute(async {
        loop {
            let metrics = String::from_utf8(get(&server, "/metrics").await.body.to_vec()).unwrap();
            if metrics.lines().any(|line| line.starts_with("convoy_http_requests_total") && line.contains("\"499\"")) {
                break;
            }
        }
    })
    .await;
    server.shutdown().await;
    let spans = collector.spans();
    assert_eq!(attribute(one(&spans, SPAN), "error.type").as_deref(), Some("499"));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_not_traced_and_nothing_is_where_tracing_is_off() {
    let (collector, address) = Collector::over_grpc().await;
    let repository = repository();
    let server = traced(&repository, address, |config| config.http.health_route = Some("/probe".to_owned())).await;
    for path in ["/v2/health/live", "/v2/health/ready", "/ping", "/metrics", "/probe"] {
        let answer = send(&server, "GET", path, &[("traceparent", &traceparent(true))], "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.headers.contains_key("traceresponse"), "{path}");
    }
    server.shutdown().await;
    assert!(collector.spans().is_empty());

    let server = crate::server::start(crate::server::config(&repository)).await;
    let answer = send(&server, "POST", CLASSIFY, &[("traceparent", &traceparent(true))], png([9, 9, 9])).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("traceresponse"));
    let metrics = String::from_utf8(get(&server, "/metrics").await.body.to_vec()).unwrap();
    assert!(!metrics.contains("convoy_trace_spans_total"));
}
