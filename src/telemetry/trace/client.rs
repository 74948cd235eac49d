//! Who asked, as a request's span has it.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use opentelemetry::KeyValue;

/// The header by which proxies say for whom they ask: each appends the address of whoever asked it.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The header by which a proxy that ends TLS says that the client spoke it.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// How many proxies stand between clients and this server, and so how many of the last addresses in `X-Forwarded-For` were written by
/// somebody who is believed. What stands before them is whatever the client sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub usize);

impl TrustedProxies {
    /// Client and peer of a request that came with `headers` over a connection of `peer`'s. They differ behind proxies.
    pub(super) fn attributes(self, headers: &HeaderMap, peer: SocketAddr) -> [KeyValue; 3] {
        // To who listens on `[::]`, clients over IPv4 have addresses such as `::ffff:192.0.2.1`, which nobody would look for.
        let peer_address = peer.ip().to_canonical();
        let client = self.forwarded_for(headers).map_or(peer_address, |address| address.to_canonical());
        [
            KeyValue::new("client.address", client.to_string()),
            KeyValue::new("network.peer.address", peer_address.to_string()),
            KeyValue::new("network.peer.port", i64::from(peer.port())),
        ]
    }

    /// Whom the outermost proxy that is believed was asked by. Where a request came past some of them, all that there is was written by
    /// the others.
    fn forwarded_for(self, headers: &HeaderMap) -> Option<IpAddr> {
        // Some proxies append to the header that they find, others a header of their own behind it.
        elements(headers, FORWARDED_FOR).take(self.0).last().and_then(address)
    }

    /// The scheme that the nearest proxy says the client spoke, where a proxy is believed and says one.
    pub(super) fn scheme(self, headers: &HeaderMap) -> Option<&'static str> {
        let said = elements(headers, FORWARDED_PROTO).take(self.0).next()?;
        ["http", "https"].into_iter().find(|scheme| said.eq_ignore_ascii_case(scheme))
    }
}

/// The elements of a header that is a list, the last one first.
fn elements<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    // What is no text is one element that says nothing: it must not let others move up to its place.
    let lines = headers.get_all(name).iter().rev().map(HeaderValue::to_str);
    lines.flat_map(|line| line.unwrap_or_default().rsplit(',').map(str::trim))
}

fn address(element: &str) -> Option<IpAddr> {
    // Some proxies add the port.
    element
        .parse()
        .ok()
        .or_else(|| element.parse().ok().map(|address: SocketAddr| address.ip()))
        .or_else(|| element.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, lines: &[&str]) -> HeaderMap {
        let pair = |line: &&str| (name.parse().unwrap(), line.parse().unwrap());
        lines.iter().map(pair).collect()
    }

    #[test]
    fn addresses_of_ipv4_are_written_as_such() {
        let peer = "[::ffff:192.0.2.1]:80".parse().unwrap();
        let said = |trusted, headers: &HeaderMap| {
            TrustedProxies(trusted).attributes(headers, peer).map(|pair| pair.value.to_string())
        };
        assert_eq!(said(0, &HeaderMap::new()), ["192.0.2.1", "192.0.2.1", "80"]);
        assert_eq!(said(1, &headers(FORWARDED_FOR, &["::ffff:203.0.113.7"])), ["203.0.113.7", "192.0.2.1", "80"]);
        assert_eq!(said(1, &headers(FORWARDED_FOR, &["2001:db8::1"]))[0], "2001:db8::1");
    }

    #[test]
    fn the_client_is_whom_the_outermost_trusted_proxy_was_asked_by() {
        for (trusted, lines, address) in [
            (0, &["203.0.113.7"][..], None),
            (1, &[], None),
            (1, &["203.0.113.7"], Some("203.0.113.7")),
            // What the client wrote itself stands first.
            (1, &["192.0.2.66, 203.0.113.7"], Some("203.0.113.7")),
            (1, &["192.0.2.66", "203.0.113.7"], Some("203.0.113.7")),
            (2, &["192.0.2.66, 203.0.113.7", "10.0.0.1"], Some("203.0.113.7")),
            (2, &["192.0.2.66,203.0.113.7 , 10.0.0.1"], Some("203.0.113.7")),
            // It came past the outer one.
            (2, &["203.0.113.7"], Some("203.0.113.7")),
            (1, &["203.0.113.7:4711"], Some("203.0.113.7")),
            (1, &["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (1, &["[2001:db8::1]"], Some("2001:db8::1")),
            (1, &["2001:db8::1"], Some("2001:db8::1")),
            // Nobody else is taken in the place of who cannot be read.
            (1, &["192.0.2.66, unknown"], None),
            (1, &["192.0.2.66", ""], None),
        ] {
            let found = TrustedProxies(trusted).forwarded_for(&headers(FORWARDED_FOR, lines));
            assert_eq!(found.map(|address| address.to_string()).as_deref(), address, "{trusted} {lines:?}");
        }
    }

    #[test]
    fn the_scheme_is_what_the_nearest_trusted_proxy_says() {
        for (trusted, lines, scheme) in [
            (0, &["https"][..], None),
            (1, &["https"], Some("https")),
            (1, &["https", "http"], Some("http")),
            (2, &["http, HTTPS"], Some("https")),
            (1, &["gopher"], None),
            (1, &[], None),
        ] {
            assert_eq!(TrustedProxies(trusted).scheme(&headers(FORWARDED_PROTO, lines)), scheme, "{trusted} {lines:?}");
        }
    }
}
