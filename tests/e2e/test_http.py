"""HTTP itself: connections, framing, and what is refused, always as JSON (contract section 18, RFC
9112)."""

from __future__ import annotations

import contextlib

import pytest
from harness import KEPT, request


def assert_refused(connection, response, status, *words):
    """A protocol error: JSON that says what is wrong, then the end of the connection."""
    assert response.status == status, str(response)
    message = response.json()["message"]
    for word in words:
        assert word.lower() in message.lower()
    assert response["connection"].lower() == "close"
    assert response["x-ms-run-function-failed"] == "False"
    connection.assert_closed()


# ---- Bodies


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"0\r\n\r\n", ""),
        (b"5\r\nhello\r\n0\r\n\r\n", "hello"),
        (b"1\r\nh\r\n3\r\nell\r\n01\r\no\r\n0\r\n\r\n", "hello"),
        (b"5;name=value\r\nhello\r\n0\r\n\r\n", "hello"),
        (b"5\r\nhello\r\n0\r\nX-Trailer: x\r\n\r\n", "hello"),
        (b"0A\r\nhellohello\r\na\r\nhellohello\r\n000\r\n\r\n", "hello" * 4),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_chunked_bodies(shared, body, text, at_once):
    head = b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with shared("echo.py").connect() as connection:
        for piece in [head + body] if at_once else [head, *(bytes([byte]) for byte in body)]:
            connection.send(piece)
        assert connection.read().json() == text
        assert connection.exchange("POST", "/score", b"next").json() == "next"


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"x\r\n",
            b"5\r\nhelloX\r\n",
            b"-1\r\n",
            b"fffffffffffffffff\r\n",
            b"5 5\r\nhello\r\n",
            b"5\nhello\r\n0\r\n\r\n",
        ),
        *(b"0\r\nX\r\n\r\n", b"0\r\n: y\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\nX: y\r\n folded\r\n\r\n"),
        *(b"0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"5;" + b"x" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_broken_chunked_coding_is_refused_and_not_scored(start, body):
    server = start("note.py")
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        response = connection.read()
        assert_refused(connection, response, 400, "chunked coding is broken")
    assert (server.folder / "notes").read_text() == ""


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_body_that_ends_early_is_refused_and_not_scored(start, framing):
    server = start("note.py")
    with server.connect() as connection:
        connection.send(f"POST /score HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n9\r\nshort".encode()).close_sending()
        assert_refused(connection, connection.read(), 400, "body")
    assert (server.folder / "notes").read_text() == ""


@pytest.mark.parametrize("size", [999, 1000])
def test_a_body_up_to_the_limit_is_accepted(shared, size):
    server = shared("echo.py", "--max_request_size", "1000")
    assert server.score("x" * size).json() == "x" * size


@pytest.mark.parametrize(
    "head_and_body",
    [
        b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"Content-Length: 1001\r\n\r\n",
        b"Content-Length: 1000000000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"64\r\n" + b"x" * 100 + (b"\r\n64\r\n" + b"x" * 100) * 10,
    ],
    ids=["sent", "declared", "huge", "one chunk", "many chunks without an end"],
)
def test_a_body_over_the_limit_is_refused(shared, head_and_body):
    with shared("echo.py", "--max_request_size", "1000").connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\n" + head_and_body)
        assert_refused(connection, connection.read(), 413, "1000")


def test_a_client_that_sends_on_sees_the_refusal(shared):
    with shared("echo.py", "--max_request_size", "1000").connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.send(request("POST", "/score", b"x" * 30_000_000))
        assert_refused(connection, connection.read(), 413, "1000")


def test_a_client_is_told_to_continue(shared):
    with shared("echo.py").connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert (connection.read().status, connection.send(b"x").read().json()) == (100, "x")
        assert connection.exchange("POST", "/score", b"y").json() == "y"


def test_a_body_over_the_limit_is_refused_before_it_is_sent(shared):
    with shared("echo.py", "--max_request_size", "1000").connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        # The server must not send 100 first, because that asks for the body.
        assert_refused(connection, connection.read(), 413, "1000")


@pytest.mark.parametrize("body", [b"", b"x"])
def test_another_expectation_fails(shared, body):
    with shared("echo.py").connect() as connection:
        response = connection.exchange("POST", "/score", body, {"Expect": "200-ok"})
        assert_refused(connection, response, 417, "100-continue")


def test_http_1_0_expects_nothing(shared):
    with shared("echo.py").connect() as connection:
        connection.send(b"POST /score HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx")
        response = connection.read()
        assert (response.status, response.json()) == (200, "x")


# ---- Not HTTP

BAD_HOSTS = [b"a b", b"a/b", b"<script>", b"user@host", b"a:b", b"[::1", b"a%zz", b"\xc3\xa4"]


@pytest.mark.parametrize(
    ("sent", "status", "word"),
    [
        (b"NONSENSE\r\n\r\n", 400, "request line"),
        (b"GET /\r\nHost: a\r\n\r\n", 400, "request line"),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
        (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n", 400, "begins like tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "version"),
        (b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", 400, "version"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "host"),
        *((b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host, 400, "host") for host in BAD_HOSTS),
        (b"GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "lf without cr"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbad name: x\r\n\r\n", 400, "header name"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : x\r\n\r\n", 400, "header name"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "header value"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n", 400, "header"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "content-length"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400, "content-length"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n", 400, "content-length"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400, "content-length"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "content-length"),
        (
            b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "transfer-encoding",
        ),
        (b"POST /score HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "transfer-encoding"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "gzip"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400, "transfer-encoding"),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, ""),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "request line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", 431, "header"),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, bytes) else None,
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_what_is_not_http_is_refused_in_json(shared, first, sent, status, word):
    with shared("echo.py").connect() as connection:
        if not first:
            assert connection.exchange("GET", "/", headers=KEPT).body == b"Healthy"
        assert_refused(connection, connection.send(sent).read(), status, word)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", 431),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, bytes) else None,
)
@pytest.mark.parametrize(
    "good", [request("GET", "/", headers=KEPT), request("POST", "/score", b"x")], ids=["health", "score"]
)
def test_what_is_not_http_is_refused_behind_a_pipelined_request(shared, good, sent, status):
    with shared("echo.py").connect() as connection:
        connection.send(good + sent)
        assert connection.read().status == 200
        assert_refused(connection, connection.read(), status)


@pytest.mark.parametrize(
    "sent", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 200 + b"\r\n"], ids=["400", "431"]
)
def test_what_is_not_http_is_in_the_log(shared, sent):
    server = shared("echo.py")
    with server.connect() as connection:
        message = connection.send(sent).read().json()["message"]
    record = server.wait_for_record(f"Invalid request from ip=127.0.0.1: {message}", logger="azmlinfsrv.front")
    assert record.level == "W"


def test_a_header_that_is_far_too_large_is_refused(shared):
    with shared("echo.py").connect() as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")
        assert_refused(connection, connection.read(), 431, "header")


def test_a_broken_request_harms_nobody_else(shared):
    server = shared("echo.py")
    with server.connect() as good:
        for _ in range(20):
            with server.connect() as bad:
                bad.send(b"\x00\r\n\r\n")
                assert bad.read().status == 400
            with server.connect() as gone:
                gone.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        assert good.exchange("POST", "/score", b"x").json() == "x"


def test_methods_are_case_sensitive(shared):
    with shared("echo.py").connect() as connection:
        assert connection.exchange("get", "/score").status == 405


def test_connect_is_just_another_method(shared):
    with shared("echo.py").connect() as connection:
        assert connection.exchange("CONNECT", "/score").status == 405


def test_large_headers_below_the_limit_are_fine(shared):
    fields = {f"X-{number}": "v" * 500 for number in range(80)}
    with shared("headers.py").connect() as connection:
        assert dict(connection.exchange("POST", "/score", b"x", fields).json())["X-79"] == "v" * 500
