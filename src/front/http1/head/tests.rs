//! Heads that are HTTP, and heads that are refused.

use super::*;

fn parse(head: &str) -> Result<Head, String> {
    match read(head.as_bytes()) {
        Ok(Some(head)) => Ok(head),
        Ok(None) => Err("incomplete".to_owned()),
        Err(refusal) => Err(format!("{} {}", refusal.status, refusal.message)),
    }
}

#[test]
fn the_body_is_what_the_fields_say() {
    for (fields, body) in [
        ("", BodyLength::Known(0)),
        ("Content-Length: 0\r\n", BodyLength::Known(0)),
        ("content-length:  0005\t\r\n", BodyLength::Known(5)),
        ("Content-Length: 18446744073709551615\r\n", BodyLength::Known(u64::MAX)),
        ("Transfer-Encoding: Chunked \r\n", BodyLength::Chunked),
    ] {
        let head = parse(&format!("POST /score HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).expect(fields);
        assert_eq!((head.body, head.rewritten), (body, None), "{fields}");
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for (fields, fault) in [
        ("Content-Length: +5\r\n", "400"),
        ("Content-Length: -5\r\n", "400"),
        ("Content-Length: 5,5\r\n", "400"),
        ("Content-Length: 5 5\r\n", "400"),
        ("Content-Length: 0x5\r\n", "400"),
        ("Content-Length: 18446744073709551616\r\n", "400"),
        ("Content-Length: \r\n", "400"),
        ("Content-Length : 5\r\n", "400"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "400"),
        ("Content-Length: 5\r\n 5\r\n", "400"),
        ("Content-Length: 5\nX: y\r\n", "400"),
        ("Content-Length: 5\rX: y\r\n", "400"),
        ("X: \0\r\n", "400"),
        (" X: y\r\n", "400"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "400"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400"),
        ("Transfer-Encoding: chunked, chunked\r\n", "400"),
        ("Transfer-Encoding: identity\r\n", "400"),
        ("Transfer-Encoding: \r\n", "501"),
        ("Transfer-Encoding: gzip, chunked\r\n", "501"),
        ("Transfer-Encoding: chunked, gzip\r\n", "501"),
        ("Transfer-Encoding: \x0bchunked\r\n", "400"),
    ] {
        let refusal = parse(&format!("POST /score HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).expect_err(fields);
        assert!(refusal.starts_with(fault), "{fields}: {refusal}");
    }
    let coded = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(parse(coded).is_err());
    assert!(parse("GET / HTTP/1.1\nHost: a\n\n").is_err());
    assert!(parse("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
}

#[test]
fn a_host_is_needed_once_and_has_to_be_one() {
    for (fields, is_right) in
        [("Host: a", true), ("Host:", true), ("X: y", false), ("Host: a b", false), ("Host: a\r\nHost: a", false)]
    {
        let parsed = parse(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(parsed.is_ok(), is_right, "{fields}");
        assert!(is_right || parsed.is_err_and(|refusal| refusal.contains("Host")), "{fields}");
    }
    assert!(parse("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n").is_err());
}

#[test]
fn the_authority_of_an_absolute_target_is_the_host() {
    for (head, passed) in [
        ("GET http://b:81/x?y HTTP/1.1\r\nHost:  a \r\nX: y\r\n\r\n", "Host:  b:81 \r\nX: y\r\n\r\n"),
        ("GET http://b?y HTTP/1.1\r\nX: y\r\nHost:\r\n\r\n", "X: y\r\nHost:b\r\n\r\n"),
        ("GET HTTP://b HTTP/1.0\r\nX: y\r\n\r\n", "Host: b\r\nX: y\r\n\r\n"),
        ("POST http://b/ HTTP/1.0\r\n\r\n", "Host: b\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let found = parse(head).expect(head);
        let line = head.split_inclusive("\r\n").next().expect("a line");
        let rewritten = String::from_utf8(found.rewritten.expect(head)).expect("text");
        assert_eq!(rewritten, format!("{line}{passed}"));
        assert_eq!((found.length, found.target.as_deref()), (head.len(), line.split(' ').nth(1)));
    }
    for target in ["http://u@b/", "http:///x", "http://b:x/", "http://a b/"] {
        assert!(parse(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).is_err(), "{target}");
    }
    let fragment = parse("GET /score?a#b HTTP/1.1\r\nHost: a\r\n\r\n").expect("a head");
    assert_eq!((fragment.target.as_deref(), fragment.rewritten), (Some("/score?a#b"), None));
}

#[test]
fn blank_lines_before_a_request_are_not_passed_on() {
    let head = parse("\r\n\r\nPOST / HTTP/1.0\r\nA: b\r\n\r\n").expect("a head");
    assert_eq!(head.length, 29);
    assert_eq!(head.rewritten.as_deref(), Some(&b"POST / HTTP/1.0\r\nA: b\r\nContent-Length: 0\r\n\r\n"[..]));
}

#[test]
fn whether_another_request_may_follow() {
    for (line, fields, persists) in [
        ("GET / HTTP/1.1", "", true),
        ("GET / HTTP/1.1", "Connection: close\r\n", false),
        ("GET / HTTP/1.1", "Connection: keep-alive, CLOSE\r\n", false),
        ("GET / HTTP/1.1", "Connection: x\r\n", true),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\n", false),
        ("GET / HTTP/1.1", "Upgrade: h2c\r\n", false),
        ("GET / HTTP/1.0", "", false),
        ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("CONNECT a:1 HTTP/1.1", "", false),
        ("CONNECT /score HTTP/1.1", "Connection: keep-alive\r\n", false),
    ] {
        let head = parse(&format!("{line}\r\nHost: a\r\n{fields}\r\n")).expect(line);
        assert_eq!(head.persists, persists, "{line} {fields}");
    }
}

#[test]
fn heads_have_limits() {
    let line = |length| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length));
    assert!(parse(&line(65_521)).is_ok());
    assert!(parse(&line(65_522)).expect_err("too long").starts_with("414"));
    assert!(parse(&"a".repeat(MAX_HEAD + 1)).expect_err("too long").starts_with("414"));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(parse(&fields(95)).is_ok());
    assert!(parse(&fields(96)).expect_err("too many").starts_with("431"));
    let field = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}", "b".repeat(MAX_HEAD));
    assert!(parse(&field).expect_err("too long").starts_with("431"));
}
