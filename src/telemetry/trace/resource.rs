//! What every span says of the process that it comes from.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

/// The variable that says more of the process, as `name=value,name=value`, each percent-encoded where it must be.
pub(super) const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The service's name, version, instance and host, and what the variable [`ATTRIBUTES`] says beside or instead of the last two.
pub(super) fn resource(service_name: &str) -> Resource {
    let said = std::env::var(ATTRIBUTES).unwrap_or_default();
    let said = attributes(&said).unwrap_or_else(|error| {
        // As OpenTelemetry has it, nothing of it is then heeded.
        tracing::warn!(cause = error.message(), "the variable {ATTRIBUTES} is left out");
        Vec::new()
    });
    of(service_name, said)
}

fn of(service_name: &str, said: Vec<(String, String)>) -> Resource {
    // Of two values of a name, the later holds.
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes([KeyValue::new("service.instance.id", instance()), KeyValue::new("host.name", host())])
        .with_attributes(said.into_iter().map(|(name, value)| KeyValue::new(name, value)))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_service_name(service_name.to_owned())
        .build()
}

/// The names and values in the text of the variable [`ATTRIBUTES`].
///
/// # Errors
/// `InvalidArgument` for what is no such list, or is not UTF-8 when it is decoded.
pub(super) fn attributes(text: &str) -> Result<Vec<(String, String)>> {
    let decoded = |part: &str| {
        let part = percent_decode_str(part.trim()).decode_utf8();
        part.map(std::borrow::Cow::into_owned).map_err(|_| Error::invalid("it is not UTF-8 when it is decoded"))
    };
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((decoded(name)?, decoded(value)?)),
            None => Err(Error::invalid(format!("`{pair}` is not name=value"))),
        })
        .collect()
}

/// A random UUID (version 4): another for each start, so that no two processes share one.
fn instance() -> String {
    let random = fastrand::u128(..) & !(0xf << 76 | 0b11 << 62) | (4 << 76 | 0b10 << 62);
    let digits = format!("{random:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// What the machine, or the container, calls itself.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_an_id_of_its_own() {
        let (one, other) = (instance(), instance());
        assert_ne!(one, other);
        let parts: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(one.as_bytes()[14], b'4', "{one}");
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }

    #[test]
    fn attributes_are_decoded() {
        let pairs = |text| {
            let pairs = attributes(text).map_err(|error| error.message().to_owned());
            pairs.map(|pairs| pairs.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>())
        };
        assert_eq!(pairs("").unwrap(), [""; 0]);
        assert_eq!(pairs("a=1, b = x=y ,").unwrap(), ["a: 1", "b: x=y"]);
        assert_eq!(pairs("team=a%2Cb%3Dc,stra%C3%9Fe=%20").unwrap(), ["team: a,b=c", "stra\u{df}e:  "]);
        assert!(pairs("a=1,b").unwrap_err().contains("`b` is not name=value"));
        assert!(pairs("a=%ff").unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn what_is_said_goes_before_what_is_found() {
        let said = [("host.name", "node-7"), ("service.version", "9"), ("deployment.environment.name", "staging")];
        let resource = of("cats", said.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let value = |name: &'static str| resource.get(&name.into()).map(|value| value.to_string());
        assert_eq!(value("host.name").as_deref(), Some("node-7"));
        assert_eq!(value("deployment.environment.name").as_deref(), Some("staging"));
        assert_eq!(value("service.name").as_deref(), Some("cats"));
        assert_eq!(value("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(value("service.instance.id").map(|id| id.len()), Some(36));
        assert_eq!(value("telemetry.sdk.language").as_deref(), Some("rust"));
    }
}
