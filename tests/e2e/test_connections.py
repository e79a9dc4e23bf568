"""Connections of HTTP/1.x: keep-alive, pipelining, slow and half-closed clients, HTTP/1.0 (contract
section 18, RFC 9112)."""

from __future__ import annotations

import pytest
from harness import KEPT, request


def test_a_connection_serves_many_requests(shared):
    with shared("echo.py").connect() as connection:
        for number in range(50):
            response = connection.exchange("POST", "/score", b"%d" % number)
            assert (response.version, response.json(), response["connection"]) == ("HTTP/1.1", str(number), None)


def test_a_client_may_close(shared):
    with shared("echo.py").connect() as connection:
        response = connection.exchange("POST", "/score", b"last", {"Connection": "close"})
        assert (response.json(), response["connection"]) == ("last", "close")
        connection.assert_closed()


def test_pipelined_requests_are_answered_in_order(shared):
    sent = [request("POST", "/score", b"%d" % number) for number in range(20)]
    sent[5] = request("GET", "/", headers=KEPT)
    sent[10] = request("GET", "/nowhere", headers=KEPT)
    sent[15] = request("HEAD", "/", headers=KEPT)
    with shared("echo.py").connect() as connection:
        connection.send(b"".join(sent))
        answers = [connection.read("HEAD" if number == 15 else "POST") for number in range(20)]
    expected = [f'"{number}"'.encode() for number in range(20)]
    expected[5], expected[15] = b"Healthy", b""
    assert answers[10].status == 404
    assert [answer.body for answer in answers[:10] + answers[11:]] == expected[:10] + expected[11:]


def test_a_request_may_arrive_byte_by_byte(shared):
    with shared("echo.py").connect() as connection:
        for byte in request("POST", "/score", b"slow"):
            connection.send(bytes([byte]))
        assert connection.read().json() == "slow"


@pytest.mark.any_worker_class
def test_a_slow_client_costs_no_worker(shared):
    server = shared("echo.py")
    whole = request("POST", "/score", b"slow")
    with server.connect() as in_head, server.connect() as in_body:
        in_head.send(whole[:20])
        in_body.send(whole[:-2])
        for _ in range(5):
            assert server.score("fast").json() == "fast"
        assert in_head.send(whole[20:]).read().json() == "slow"
        assert in_body.send(whole[-2:]).read().json() == "slow"


@pytest.mark.any_worker_class
def test_a_client_that_does_not_read_costs_no_worker(shared):
    server = shared("echo.py")
    text = "x" * 5_000_000
    with server.connect() as lazy:
        lazy.send(request("POST", "/score", text.encode()))
        for _ in range(5):
            assert server.score("fast").json() == "fast"
        assert lazy.read().json() == text


def test_a_half_closed_client_is_answered(shared):
    with shared("echo.py").connect() as connection:
        connection.send(request("POST", "/score", b"x")).close_sending()
        assert connection.read().json() == "x"
        connection.assert_closed()


def test_a_half_closed_client_is_answered_after_a_long_run(start):
    server = start("wait.py")
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"a")).close_sending()
        assert connection.is_silent(0.2)
        (server.folder / "a.go").touch()
        assert connection.read().json() == server.workers()[0]


def test_http_1_0_closes(shared):
    with shared("echo.py").connect() as connection:
        response = connection.send(b"POST /score HTTP/1.0\r\nContent-Length: 3\r\n\r\nold").read()
        assert (response.version, response.status, response.json()) == ("HTTP/1.0", 200, "old")
        connection.assert_closed()


@pytest.mark.parametrize(
    "parts",
    [
        [b"POST /score HTTP/1.0\r\nHost: a\r\n\r\n"],
        [b"POST /score HTTP/1.0\r\nHost: a\r\n", b"\r\n"],
        [b"POST /score HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nxPOST /score HTTP/1.0\r\n\r\n"],
    ],
)
def test_http_1_0_without_a_length_has_no_body(shared, parts):
    with shared("echo.py").connect() as connection:
        *first, last = parts
        for part in first:
            assert connection.send(part).is_silent(0.1)
        connection.send(last)
        if last.startswith(b"POST /score HTTP/1.0\r\nConnection"):
            assert connection.read().json() == "x"
        response = connection.read()
        assert (response.status, response.json()) == (200, "")
        connection.assert_closed()


def test_http_1_0_may_keep_alive(shared):
    with shared("echo.py").connect() as connection:
        for _ in range(2):
            connection.send(b"GET /score HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            response = connection.read()
            assert (response.status, response["connection"]) == (200, "keep-alive")


@pytest.mark.parametrize(("target", "method"), [("/nowhere", "POST"), ("/score", "PUT"), ("/", "POST")])
def test_an_error_with_an_unread_body_does_not_confuse_the_connection(shared, target, method):
    with shared("echo.py").connect() as connection:
        smuggled = request("GET", "/smuggled")
        response = connection.exchange(method, target, smuggled * 100, KEPT)
        assert response.status in (404, 405)
        if response["connection"] == "close":
            connection.assert_closed()
        else:
            assert connection.exchange("GET", "/").body == b"Healthy"


@pytest.mark.parametrize(
    "fields",
    [
        {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"},
        {"Connection": "Upgrade", "Upgrade": "anything"},
    ],
)
def test_an_offered_upgrade_is_ignored(shared, fields):
    for method, target, body, answer in (("POST", "/score", b"x", "x"), ("GET", "/score?a=1", b"", '{"a": 1}')):
        with shared("echo.py").connect() as connection:
            response = connection.exchange(method, target, body, fields)
            assert (response.status, response.json(), response["upgrade"]) == (200, answer, None)
            # The server may keep or close the connection, but must not announce "upgrade".
            if response["connection"] == "close":
                connection.assert_closed()
            else:
                assert response["connection"] is None
                assert connection.exchange("POST", "/score", b"y").json() == "y"


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/score?a=1", "sent"),
        ("/score?a=1#part", "sent"),
        ("http://Other.example:81/score?a=1#part", "Other.example:81"),
        ("HTTP://[::1]/score", "[::1]"),
    ],
)
def test_the_script_sees_the_target_as_sent_and_the_host_that_it_names(shared, target, host):
    with shared("raw_uri.py").connect() as connection:
        for _ in range(2):
            assert connection.exchange("GET", target, headers={"Host": "sent"}).json() == [target, "/score", host]
        # The next request on the connection has its own again.
        assert connection.exchange("GET", "/score", headers={"Host": "b"}).json() == ["/score", "/score", "b"]
