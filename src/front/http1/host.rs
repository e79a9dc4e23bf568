//! What a Host header, or the authority of a target, may be (RFC 9110 section 7.2, RFC 3986 section
//! 3.2.2).
//!
//! Pure functions; runs in the front's event loop.

/// `uri-host [ ":" port ]` of RFC 9110 section 7.2, with the host of RFC 3986 section 3.2.2, which
/// must not be empty.
pub fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|&byte| byte == b':') {
        // The last colon may be one of an IPv6 address.
        Some(at) if !value[at..].contains(&b']') => (&value[..at], &value[at + 1..]),
        _ => (value, &b""[..]),
    };
    port.iter().all(u8::is_ascii_digit) && if host.starts_with(b"[") { is_ip_literal(host) } else { is_name(host) }
}

fn is_ip_literal(host: &[u8]) -> bool {
    let Some(inner) = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) else { return false };
    match inner.split_first() {
        // IPvFuture
        Some((b'v' | b'V', rest)) => {
            rest.contains(&b'.') && rest.iter().all(|byte| is_name_byte(*byte) || *byte == b':')
        }
        _ => std::str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()),
    }
}

/// A registered name or an IPv4 address.
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match byte {
            b'%' if behind.len() >= 2 && behind[..2].iter().all(u8::is_ascii_hexdigit) => &behind[2..],
            byte if is_name_byte(byte) => behind,
            _ => return false,
        };
    }
    !host.is_empty()
}

/// `unreserved` and `sub-delims` of RFC 3986.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn hosts_are_names_and_addresses_with_an_optional_port() {
        for host in ["a", "a:80", "a:", "a_b.c-d", "10.0.0.1:5001", "[::1]", "[::1]:80", "[v1.a:b]", "a%20b", "a,b"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            "a b",
            "a/b",
            "<script>",
            "user@host",
            "a:b",
            "a:80:90",
            ":80",
            "[::1",
            "::1",
            "[a]",
            "a%zz",
            "a%2",
            "a?b",
            "a#b",
            "a\\b",
            "a\"b",
            "ä",
            "[::1]a",
            "a,b:c",
            "[v1]",
            "[]",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
