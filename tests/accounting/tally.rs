//! What a client counts of what it saw, by the lines of the metrics page.

use std::collections::BTreeMap;

use tonic::Code;

/// Counts by the names and labels that the metrics page has for them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally(pub(crate) BTreeMap<String, u64>);

impl Tally {
    pub(crate) fn add(&mut self, line: impl Into<String>, count: u64) {
        *self.0.entry(line.into()).or_default() += count;
    }

    /// Counts a request that a model took, which had `rows` rows, of which `pictures` were pictures.
    pub(crate) fn request(&mut self, model: &str, protocol: &str, outcome: &str, rows: usize, pictures: usize) {
        let labels = format!("model=\"{model}\",outcome=\"{outcome}\",protocol=\"{protocol}\",version=\"1\"");
        self.add(format!("convoy_requests_total{{{labels}}}"), 1);
        let labels = format!("model=\"{model}\",version=\"1\"");
        let reason = match outcome {
            "success" => {
                self.add(format!("nv_inference_request_success{{{labels}}}"), 1);
                let of_protocol = format!("model=\"{model}\",protocol=\"{protocol}\",version=\"1\"");
                self.add(format!("convoy_request_seconds_count{{{of_protocol}}}"), 1);
                self.add(format!("nv_inference_count{{{labels}}}"), rows as u64);
                self.add(format!("convoy_decode_seconds_count{{{labels}}}"), pictures as u64);
                return;
            }
            "rejected" => "REJECTED",
            "canceled" => "CANCELED",
            "invalid" => "OTHER",
            other => panic!("{other}"),
        };
        let labels = format!("model=\"{model}\",reason=\"{reason}\",version=\"1\"");
        self.add(format!("nv_inference_request_failure{{{labels}}}"), 1);
    }

    pub(crate) fn http(&mut self, route: &str, status: u16) {
        let labels = format!("method=\"POST\",route=\"{route}\"");
        self.add(format!("convoy_http_requests_total{{{labels},status=\"{status}\"}}"), 1);
        self.add(format!("convoy_http_request_duration_seconds_count{{{labels}}}"), 1);
    }

    pub(crate) fn grpc(&mut self, service: &str, method: &str, code: Code) {
        let status = match code {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::NotFound => "NOT_FOUND",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            other => panic!("{other:?}"),
        };
        let labels = format!("method=\"{method}\",service=\"{service}\"");
        self.add(format!("convoy_grpc_requests_total{{{labels},status=\"{status}\"}}"), 1);
        self.add(format!("convoy_grpc_request_duration_seconds_count{{{labels}}}"), 1);
    }

    pub(crate) fn refused(&mut self, model: &str, reason: &str) {
        self.add(format!("convoy_refusals_total{{model=\"{model}\",reason=\"{reason}\",version=\"1\"}}"), 1);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (line, count) in other.0 {
            self.add(line, count);
        }
    }
}

/// How a model counts what a client saw as `status`; `None` where no model took the request.
pub(crate) fn outcome_of(status: u16) -> Option<&'static str> {
    match status {
        200 => Some("success"),
        400 | 413 | 415 => Some("invalid"),
        404 => None,
        429 | 503 | 504 => Some("rejected"),
        other => panic!("{other}"),
    }
}

pub(crate) fn outcome_of_code(code: Code) -> Option<&'static str> {
    match code {
        Code::Ok => Some("success"),
        Code::InvalidArgument => Some("invalid"),
        Code::NotFound => None,
        Code::ResourceExhausted | Code::DeadlineExceeded => Some("rejected"),
        other => panic!("{other:?}"),
    }
}
