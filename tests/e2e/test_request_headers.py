"""``request_headers``: the header fields that run() gets (contract section 10)."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.any_worker_class


def test_request_headers_come_in_order_and_in_title_case(shared):
    sent = [
        b"POST /score HTTP/1.1",
        b"X-ALL-CAPS: 1",
        b"host: here",
        b"etag: e",
        b"x.dot: d",
        b"X-Twice: a",
        b"under_score: dropped",
        b"content-length: 00",
        b"x-empty:",
        b"Accept: */*",
        b"x-latin: \xfc\xff",
        b"x-twice:  b ",
        b"x-2b: c",
        b"Content-Type: text/plain",
    ]
    with shared("headers.py").connect() as connection:
        response = connection.send(b"\r\n".join([*sent, b"", b""])).read()
    assert response.json() == [
        ["X-All-Caps", "1"],
        ["Host", "here"],
        ["Etag", "e"],
        ["X.Dot", "d"],
        ["X-Twice", "a,b"],
        ["Content-Length", "00"],
        ["X-Empty", ""],
        ["Accept", "*/*"],
        ["X-Latin", "üÿ"],
        ["X-2B", "c"],
        ["Content-Type", "text/plain"],
    ]


def test_an_empty_content_type_is_not_a_request_header(shared):
    with shared("headers.py").connect() as connection:
        connection.send(b"GET /score HTTP/1.1\r\nHost: a\r\nContent-Type:\r\n\r\n")
        assert connection.read().json() == [["Host", "a"]]


def test_hop_by_hop_headers_are_request_headers(shared):
    with shared("headers.py").connect() as connection:
        connection.send(
            b"POST /score HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nTE: trailers\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        expected = [["Host", "a"], ["Connection", "keep-alive"], ["Te", "trailers"], ["Transfer-Encoding", "chunked"]]
        assert connection.read().json() == expected
