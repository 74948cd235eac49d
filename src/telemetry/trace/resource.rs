//! What every span says of the process that it comes from.

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;

/// The service's name, version, instance and host, and what `OTEL_RESOURCE_ATTRIBUTES` says beside or instead of the last two.
pub(super) fn resource(service_name: &str) -> Resource {
    let resource = Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let own = [("service.instance.id", instance()), ("host.name", host())];
    let missing = own.into_iter().filter(|(key, _)| resource.get(&Key::from_static_str(key)).is_none());
    let missing: Vec<_> = missing.map(|(key, value)| KeyValue::new(key, value)).collect();
    let known = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty().with_attributes(known.chain(missing)).build()
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
}
