//! Who the client of a request is, if a proxy passed the request on (`--trusted_proxies`).
//!
//! Anybody can send `X-Forwarded-For`, so a proxy's word counts only if the proxy is in one of the
//! networks that the user trusts. Each proxy appends the address that it got the request from. So
//! the list is read from the right, past the trusted proxies, and the first other address is the
//! client's: what stands left of it was written by the client. Pure functions; runs in the front's
//! event loop.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{HeaderMap, HeaderName};

use crate::network::Network;

// Constants, because a name given as text is parsed and allocated for each look-up.
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// What trusted proxies say about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address; port 0 if no proxy names it.
    pub address: SocketAddr,
    /// Whether it used https; `None` if no proxy says so.
    pub is_https: Option<bool>,
}

/// One address of a list, and what stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    /// `None` if it is no address, such as `unknown`.
    address: Option<SocketAddr>,
    is_https: Option<bool>,
}

/// What trusted proxies say about the client of a request; `None` if the peer is no trusted proxy.
///
/// `Forwarded` (RFC 7239) and `X-Forwarded-For` mean the same. A proxy usually writes one of them
/// and passes on the other as the client sent it. So if both are there and do not name the same
/// client, neither counts. `X-Forwarded-Proto` has one scheme for each address, or that of the last
/// proxy alone.
pub fn client(trusted: &[Network], peer: Option<SocketAddr>, headers: &HeaderMap) -> Option<Client> {
    let peer = peer.map(canonical)?;
    if !is_trusted(trusted, peer) {
        return None;
    }
    let nothing = Client { address: peer, is_https: None };
    let schemes: Vec<_> = values(headers, &X_FORWARDED_PROTO).map(scheme).collect();
    let mut hops: Vec<_> =
        values(headers, &X_FORWARDED_FOR).map(|hop| Hop { address: address(hop), is_https: None }).collect();
    // If each proxy has added to both lists, each hop has its scheme. Else the last proxy's word counts.
    let last = if schemes.len() == hops.len() { None } else { schemes.last().copied().flatten() };
    hops.iter_mut().zip(&schemes).filter(|_| last.is_none()).for_each(|(hop, scheme)| hop.is_https = *scheme);
    let listed = find(trusted, hops);
    let elements = values(headers, &FORWARDED).map(element);
    let forwarded = find(trusted, elements.collect());
    let both_are_there = headers.contains_key(&FORWARDED) && headers.contains_key(&X_FORWARDED_FOR);
    let they_agree = listed.as_ref().map(Client::ip) == forwarded.as_ref().map(Client::ip);
    let found = match (listed, forwarded) {
        _ if both_are_there && !they_agree => Client { is_https: schemes.last().copied().flatten(), ..nothing },
        (Some(found), Some(other)) => Client { is_https: found.is_https.or(other.is_https), ..found },
        (Some(found), None) | (None, Some(found)) => found,
        (None, None) => nothing,
    };
    Some(Client { is_https: last.or(found.is_https), ..found })
}

/// True if the peer is on this machine and says that the client used https. As with 1.5.1, such a proxy need not be trusted.
pub fn says_https(peer: Option<SocketAddr>, headers: &HeaderMap) -> bool {
    let is_local = peer.is_some_and(|peer| canonical(peer).ip().is_loopback());
    is_local && headers.get(&X_FORWARDED_PROTO).is_some_and(|scheme| scheme.as_bytes() == b"https")
}

impl Client {
    fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}

/// The first hop from the right that is no trusted proxy; if all are, the leftmost. A hop without an
/// address ends the search: the trusted proxy right of it is all that is known.
fn find(trusted: &[Network], hops: Vec<Hop>) -> Option<Client> {
    let mut found = None;
    for hop in hops.into_iter().rev() {
        let Some(address) = hop.address else { break };
        found = Some(Client { address, is_https: hop.is_https });
        if !is_trusted(trusted, address) {
            break;
        }
    }
    found
}

fn is_trusted(trusted: &[Network], address: SocketAddr) -> bool {
    trusted.iter().any(|network| network.contains(address.ip()))
}

/// An IPv4 address that came through an IPv6 socket, as an IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The items of all fields of this name, in the order sent. A value that is not UTF-8 counts as one empty item, which is no address.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> std::vec::IntoIter<&'a str> {
    let mut items = Vec::new();
    for value in headers.get_all(name) {
        items.extend(std::str::from_utf8(value.as_bytes()).unwrap_or("").split(',').map(str::trim));
    }
    items.into_iter()
}

/// `for=192.0.2.43;proto=https;by=203.0.113.43` (RFC 7239 section 4).
fn element(text: &str) -> Hop {
    let nothing = Hop { address: None, is_https: None };
    let mut hop = nothing;
    for pair in text.split(';') {
        // A proxy may quote what the client sent: `host="a;for=6.6.6.6"`. This is a piece of such a text, or may be one. What
        // names the client needs no escapes.
        if pair.matches('"').count() % 2 == 1 || pair.contains('\\') {
            return nothing;
        }
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.address = address(value),
            "proto" => hop.is_https = scheme(value),
            _ => {}
        }
    }
    hop
}

/// An address as proxies write it: with a port or without, an IPv6 address with brackets or without.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let without_port = bare.parse().ok().map(|ip| SocketAddr::new(ip, 0));
    without_port.or_else(|| text.parse().ok()).map(canonical)
}

fn scheme(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("https") {
        Some(true)
    } else if text.eq_ignore_ascii_case("http") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32"];

    /// What is known about the client of a request from this peer.
    fn found(peer: &str, fields: &[(&'static str, &str)]) -> Option<(String, Option<bool>)> {
        let trusted: Vec<_> = TRUSTED.iter().map(|text| Network::parse(text).expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let client = client(&trusted, Some(peer.parse().expect("an address")), &headers)?;
        Some((client.address.to_string(), client.is_https))
    }

    fn address_found(peer: &str, fields: &[(&'static str, &str)]) -> Option<String> {
        found(peer, fields).map(|(address, _)| address)
    }

    #[test]
    fn a_proxy_on_this_machine_may_say_https_without_being_trusted() {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"))]);
        for (peer, says) in
            [("127.0.0.1:9", true), ("[::1]:9", true), ("[::ffff:127.0.0.1]:9", true), ("10.0.0.1:9", false)]
        {
            assert_eq!(says_https(Some(peer.parse().expect("an address")), &headers), says, "{peer}");
        }
        assert!(!says_https(Some(([127, 0, 0, 1], 9).into()), &HeaderMap::new()));
    }

    #[test]
    fn a_peer_that_is_not_trusted_says_nothing() {
        let fields = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4"), ("x-forwarded-proto", "https")];
        assert_eq!(found("192.0.2.1:9", &fields), None);
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_clients() {
        for (list, client) in [
            ("1.2.3.4", "1.2.3.4:0"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4:0"),
            ("6.6.6.6, 1.2.3.4, 10.0.0.9,10.0.0.8", "1.2.3.4:0"),
            ("10.0.0.7, 10.0.0.8", "10.0.0.7:0"),
            ("1.2.3.4:5678", "1.2.3.4:5678"),
            ("2001:db9::1", "[2001:db9::1]:0"),
            ("[2001:db9::1]", "[2001:db9::1]:0"),
            ("[2001:db9::1]:5678", "[2001:db9::1]:5678"),
            ("::ffff:1.2.3.4", "1.2.3.4:0"),
            // Nothing is known about what is left of these.
            ("1.2.3.4, unknown", "10.0.0.1:9"),
            ("1.2.3.4, unknown, 10.0.0.8", "10.0.0.8:0"),
            ("", "10.0.0.1:9"),
            ("1.2.3.4,", "10.0.0.1:9"),
            ("1.2.3.4\u{9b}31m", "10.0.0.1:9"),
        ] {
            assert_eq!(address_found("10.0.0.1:9", &[("x-forwarded-for", list)]).as_deref(), Some(client), "{list}");
        }
        let fields = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")];
        assert_eq!(address_found("10.0.0.1:9", &fields).as_deref(), Some("1.2.3.4:0"));
        assert_eq!(address_found("[::ffff:10.0.0.1]:9", &fields).as_deref(), Some("1.2.3.4:0"));
    }

    #[test]
    fn the_standard_header_says_the_same() {
        for (value, client, is_https) in [
            ("for=1.2.3.4", "1.2.3.4:0", None),
            ("For=\"[2001:db9::1]:4711\";Proto=HTTPS;by=10.0.0.1", "[2001:db9::1]:4711", Some(true)),
            ("for=6.6.6.6;proto=https, for=1.2.3.4;proto=http, for=10.0.0.8;proto=https", "1.2.3.4:0", Some(false)),
            ("for=_hidden", "10.0.0.1:9", None),
            ("for=unknown, for=10.0.0.8", "10.0.0.8:0", None),
            ("proto=https", "10.0.0.1:9", None),
            ("nonsense;;=,", "10.0.0.1:9", None),
            // What the client sent, in the quotes of a proxy.
            ("for=1.2.3.4;host=\"a,for=6.6.6.6\"", "10.0.0.1:9", None),
            ("for=1.2.3.4;host=\"a;for=6.6.6.6;proto=https;x=\"", "10.0.0.1:9", None),
            ("for=1.2.3.4;host=\"a\\\",for=6.6.6.6;x=\\\"b\"", "10.0.0.1:9", None),
            ("for=\"6.6.6.6, for=1.2.3.4", "1.2.3.4:0", None),
        ] {
            let expected = Some((client.to_owned(), is_https));
            assert_eq!(found("10.0.0.1:9", &[("forwarded", value)]), expected, "{value}");
        }
    }

    #[test]
    fn headers_that_contradict_each_other_do_not_count() {
        let both = |other| found("10.0.0.1:9", &[("x-forwarded-for", "1.2.3.4"), ("forwarded", other)]);
        assert_eq!(both("for=6.6.6.6;proto=https"), Some(("10.0.0.1:9".to_owned(), None)));
        // The proxy hides the client, and the client says itself who it is.
        assert_eq!(both("for=_hidden"), Some(("10.0.0.1:9".to_owned(), None)));
        assert_eq!(both("for=1.2.3.4;proto=https"), Some(("1.2.3.4:0".to_owned(), Some(true))));
    }

    #[test]
    fn the_scheme_is_that_of_the_client_if_each_proxy_names_one() {
        for (addresses, schemes, is_https) in [
            ("1.2.3.4", "https", Some(true)),
            ("1.2.3.4, 10.0.0.8", "https, http", Some(true)),
            ("1.2.3.4, 10.0.0.8", "http, https", Some(false)),
            // The client has sent the first ones itself.
            ("6.6.6.6, 1.2.3.4", "https, http", Some(false)),
            ("1.2.3.4", "https, http", Some(false)),
            ("1.2.3.4, 10.0.0.8", "https", Some(true)),
            ("1.2.3.4, 10.0.0.8", "ftp, https", None),
        ] {
            let fields = [("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)];
            let found = found("10.0.0.1:9", &fields).and_then(|(_, is_https)| is_https);
            assert_eq!(found, is_https, "{addresses} {schemes}");
        }
    }

    #[test]
    fn the_scheme_is_that_of_the_last_proxy() {
        for (value, is_https) in
            [("https", Some(true)), ("HTTP", Some(false)), ("http, https", Some(true)), ("ftp", None), ("", None)]
        {
            let expected = Some(("10.0.0.1:9".to_owned(), is_https));
            assert_eq!(found("10.0.0.1:9", &[("x-forwarded-proto", value)]), expected, "{value}");
        }
    }
}
