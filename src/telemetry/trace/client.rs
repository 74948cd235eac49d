//! Who asked, as a request's span has it.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use opentelemetry::KeyValue;

/// The header by which proxies say for whom they ask: the client first, then each proxy but the last.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Client and peer of a request that came with `headers` over a connection of `peer`'s. They differ behind a load balancer. Anybody can
/// claim to be one, so the client's address is fit to be shown and for nothing else.
pub(super) fn attributes(headers: &HeaderMap, peer: SocketAddr) -> [KeyValue; 3] {
    [
        KeyValue::new("client.address", forwarded_for(headers).unwrap_or_else(|| peer.ip()).to_string()),
        KeyValue::new("network.peer.address", peer.ip().to_string()),
        KeyValue::new("network.peer.port", i64::from(peer.port())),
    ]
}

fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let first = headers.get(FORWARDED_FOR)?.to_str().ok()?.split(',').next()?.trim();
    // Some proxies add the port.
    first
        .parse()
        .ok()
        .or_else(|| first.parse().ok().map(|address: SocketAddr| address.ip()))
        .or_else(|| first.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_the_clients() {
        let found = |value: &str| {
            let headers = HeaderMap::from_iter([(FORWARDED_FOR.parse().unwrap(), value.parse().unwrap())]);
            forwarded_for(&headers).map(|address| address.to_string())
        };
        for (value, address) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("2001:db8::1 , 10.0.0.1", Some("2001:db8::1")),
            ("203.0.113.7:4711, 10.0.0.1", Some("203.0.113.7")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("unknown, 10.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(found(value).as_deref(), address, "{value}");
        }
        assert_eq!(forwarded_for(&HeaderMap::new()), None);
    }
}
