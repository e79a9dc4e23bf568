"""Requests sent without waiting for the answers before them (RFC 9112 section 9.3.2): each as if it
were alone."""

from __future__ import annotations

import pytest
from harness import KEPT, request

CLOSE = {"Connection": "close"}
FIRST, SECOND = request("POST", "/score", b"first"), request("POST", "/score", b"second")


def test_an_answer_has_its_body_though_a_head_request_follows(shared):
    with shared("echo.py").connect() as connection:
        connection.send(FIRST + request("HEAD", "/"))
        assert connection.read().json() == "first"
        assert connection.read("HEAD").status == 200


def test_an_answer_has_the_version_of_its_own_request(shared):
    with shared("echo.py").connect() as connection:
        connection.send(FIRST + request("POST", "/score", b"second", version="1.0"))
        first, second = connection.read(), connection.read()
        assert (first.version, first.json(), second.json()) == ("HTTP/1.1", "first", "second")


def test_what_follows_a_request_to_close_is_not_served(start):
    server = start("note.py")
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"first", CLOSE) + SECOND)
        response = connection.read()
        assert (response.json(), response["connection"]) == ("first", "close")
        connection.assert_closed()
    assert (server.folder / "notes").read_text().split() == ["first"]


def test_only_the_answer_to_the_request_that_closes_says_so(shared):
    with shared("echo.py").connect() as connection:
        connection.send(FIRST + request("POST", "/score", b"second", CLOSE))
        first, second = connection.read(), connection.read()
        assert (first["connection"], second["connection"]) == (None, "close")


def test_a_body_that_is_still_coming_closes_nothing(shared):
    with shared("echo.py").connect() as connection:
        connection.send(FIRST + SECOND[:-3])
        response = connection.read()
        assert (response.json(), response["connection"]) == ("first", None)
        assert connection.send(SECOND[-3:]).read().json() == "second"


def test_an_answer_is_not_lost_to_a_broken_body_behind_it(shared):
    with shared("echo.py").connect() as connection:
        connection.send(FIRST + b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
        assert connection.read().json() == "first"
        assert connection.read().status == 400


@pytest.mark.parametrize(
    "first",
    [
        request("DELETE", "/score", b"body"),
        request("GET", "/score", headers={"Connection": "upgrade", "Upgrade": "h2c"}),
        request("POST", "/score", b"x" * 2000),
    ],
    ids=["unread body", "upgrade", "too large"],
)
def test_nothing_is_served_after_an_answer_that_ends_the_connection(shared, first):
    with shared("echo.py", "--max_request_size", "1000").connect() as connection:
        response = connection.send(first + SECOND).read()
        # An error whose body has arrived need not end the connection; then the next request is
        # served.
        if response["connection"] == "close":
            connection.assert_closed()
        else:
            assert connection.read().json() == "second"


# ---- Behind a chunked body with trailers

TRAILERS = (
    b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nfirst\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"
)


def test_trailers_do_not_take_the_body_of_the_answer_with_a_head_request_behind(shared):
    with shared("echo.py").connect() as connection:
        connection.send(TRAILERS + request("HEAD", "/"))
        assert connection.read().json() == "first"
        assert connection.read("HEAD").status == 200


@pytest.mark.parametrize("second", [request("POST", "/score", b"second", version="1.0"), SECOND])
def test_trailers_do_not_change_the_answer_with_another_request_behind(shared, second):
    with shared("echo.py").connect() as connection:
        connection.send(TRAILERS + second)
        first = connection.read()
        assert (first.version, first.json(), first["connection"]) == ("HTTP/1.1", "first", None)
        assert connection.read().json() == "second"


def test_trailers_do_not_cut_the_connection_while_the_next_request_runs(start):
    server = start("wait.py")
    for name in "ab":
        (server.folder / f"{name}.go").touch()
    with server.connect() as connection:
        connection.send(TRAILERS.replace(b"5;a=b\r\nfirst", b"1;a=b\r\na"))
        assert connection.read().status == 200
        connection.send(request("POST", "/score", b"c"))
        # Longer than the server waits before it closes the connection of a refused client.
        assert connection.is_silent(2.5)
        (server.folder / "c.go").touch()
        assert connection.read().status == 200
        assert connection.exchange("POST", "/score", b"b").status == 200


def test_trailers_of_many_requests_keep_the_connection(shared):
    with shared("echo.py").connect() as connection:
        for _ in range(20):
            assert connection.send(TRAILERS).read().json() == "first"
            assert connection.exchange("GET", "/", headers=KEPT).body == b"Healthy"


# ---- Requests that another protocol may follow


@pytest.mark.parametrize("target", ["/score", "a:80"])
@pytest.mark.parametrize("behind", [b"", b"tunnelled", request("GET", "/")])
def test_connect_has_one_answer_whatever_follows(shared, target, behind):
    with shared("echo.py", "--client_timeout", "0.5").connect() as connection:
        connection.send(f"CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + behind)
        response = connection.read()
        assert (response.status in (400, 405), response["connection"]) == (True, "close")
        connection.assert_closed()
