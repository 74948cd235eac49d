//! OpenTelemetry's variables that the SDK reads by itself, and what it would leave out of them without a word.

use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

/// The numbers among them, with the least that each may be.
const NUMBERS: [(&str, u64); 6] = [
    ("OTEL_BSP_MAX_QUEUE_SIZE", 1),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1),
    ("OTEL_BSP_SCHEDULE_DELAY", 0),
    ("OTEL_BSP_EXPORT_TIMEOUT", 0),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", 0),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 0),
];

/// What is wrong with the variables: the name of each, and why it is not heeded. As OpenTelemetry has it, that is no error.
pub(super) fn unheeded(variable: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut wrong = Vec::new();
    for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
        let headers = set(name).unwrap_or_default();
        let count = headers.split(',').filter(|header| !header.trim().is_empty() && !is_header(header)).count();
        if count > 0 {
            // They are not repeated: they may hold a secret.
            wrong.push((
                name,
                format!("{count} of its headers is not name=value, percent-encoded, as in authorization=Bearer%20…"),
            ));
        }
    }
    for name in ["OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"] {
        if let Some(other) = set(name).filter(|value| !["gzip", "none"].contains(&value.as_str())) {
            wrong.push((name, format!("`{other}` is not known here: gzip and none are")));
        }
    }
    for (name, least) in NUMBERS {
        if let Some(text) = set(name)
            && text.parse().ok().is_none_or(|number: u64| number < least)
        {
            wrong.push((name, format!("`{text}` is not a whole number from {least} up")));
        }
    }
    wrong
}

/// A number above 0 that the variable `name` says.
pub(super) fn count(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok().filter(|&count| count > 0)
}

fn is_header(text: &str) -> bool {
    let Some((name, value)) = text.split_once('=') else { return false };
    let value = percent_decode_str(value.trim()).decode_utf8();
    name.trim().parse::<HeaderName>().is_ok() && value.is_ok_and(|value| value.parse::<HeaderValue>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "na me=secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "name=secret%0A"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "GZIP2"),
            ("OTEL_BSP_SCHEDULE_DELAY", "abc"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ] {
            let wrong = unheeded(|asked| (asked == name).then(|| value.to_owned()));
            assert_eq!(wrong.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [name], "{value}");
            assert!(!wrong[0].1.contains("secret"), "{}", wrong[0].1);
        }
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, a=b=c,"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", ""),
        ] {
            assert_eq!(unheeded(|asked| (asked == name).then(|| value.to_owned())), [], "{name}={value}");
        }
    }
}
