"""Request ids through the wire: which come back under which name, and how long they may be
(contract section 9)."""

from __future__ import annotations

import re
import uuid

import pytest

R, M, C = "x-request-id", "x-ms-request-id", "x-ms-client-request-id"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NEW = object()
DEPRECATED = (
    "x-ms-request-id header has been deprecated and will be removed from future versions of the server. "
    "Please use x-ms-client-request-id."
)
R_TOO_LONG = {"message": "x-request-id must not exceed 100 characters"}
C_TOO_LONG = {"message": "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"}


def send(server, method, target, *fields):
    """Send a request with these header lines."""
    lines = [f"{method} {target} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in fields), "", ""]
    with server.connect() as connection:
        return connection.send("\r\n".join(lines).encode("latin-1")).read(method)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([], [NEW, NEW, None]),
        ([(R, "r")], ["r", "r", None]),
        ([(M, "m")], [NEW, "m", "m"]),
        ([(C, "c")], [NEW, "c", "c"]),
        ([(R, "r"), (M, "m")], ["r", "m", "m"]),
        ([(R, "r"), (C, "c")], ["r", "c", "c"]),
        ([(M, "m"), (C, "c")], [NEW, "m", "c"]),
        ([(R, "r"), (M, "m"), (C, "c")], ["r", "m", "c"]),
        ([(R, "")], [None, None, None]),
        ([(R, ""), (M, "m")], [None, "m", "m"]),
        ([(R, ""), (C, "c")], [None, "c", "c"]),
        ([(M, "")], [NEW, NEW, None]),
        ([(C, "")], [NEW, NEW, None]),
        ([(M, ""), (C, "c")], [NEW, "c", "c"]),
        ([(R, "r"), (R, "s"), (C, "c"), (C, "d")], ["r,s", "c,d", "c,d"]),
        ([("X-REQUEST-ID", " r ")], ["r", "r", None]),
        ([(R, "\xfc\xff"), (C, "\xc3\xbc")], ["\xfc\xff", "\xc3\xbc", "\xc3\xbc"]),
        ([(R, "r" * 100), (C, "c" * 100)], ["r" * 100, "c" * 100, "c" * 100]),
        ([(R, "\xfc" * 100)], ["\xfc" * 100, "\xfc" * 100, None]),
    ],
)
@pytest.mark.parametrize(("method", "target"), [("GET", "/score"), ("HEAD", "/"), ("OPTIONS", "/swagger.json")])
def test_ids_that_come_back(shared, method, target, sent, expected):
    response = send(shared("echo.py"), method, target, *sent)
    found = [response[name] for name in (R, M, C)]
    if expected[0] is NEW:
        assert UUID.fullmatch(found[0])
        assert uuid.UUID(found[0]).version == 4
        expected = [found[0] if value is NEW else value for value in expected]
    assert found == expected


def test_every_request_of_a_connection_gets_an_id_of_its_own(shared):
    with shared("echo.py").connect() as connection:
        ids = [connection.exchange("GET", "/score")[R] for _ in range(20)]
    assert len(set(ids)) == 20


@pytest.mark.parametrize("target", ["/", "/score", "/swagger.json", "/readyz"])
@pytest.mark.parametrize(
    ("sent", "message", "request_id"),
    [
        ([(R, "r" * 101)], R_TOO_LONG, None),
        ([(R, "r" * 101), (C, "c" * 101)], R_TOO_LONG, None),
        ([(R, "r" * 50), (R, "s" * 50)], R_TOO_LONG, None),
        ([(R, "r"), (C, "c" * 101)], C_TOO_LONG, "r"),
        ([(R, "r"), (M, "m" * 101)], C_TOO_LONG, "r"),
        ([(R, "r"), (M, "m" * 101), (C, "c")], C_TOO_LONG, "r"),
    ],
)
def test_ids_that_are_too_long_are_refused(shared, target, sent, message, request_id):
    response = send(shared("echo.py"), "GET", target, *sent, ("TraceId", "t"))
    assert (response.status, response.json()) == (431, message)
    assert [response[name] for name in (R, M, C)] == [request_id, None, None]
    assert response["x-ms-run-function-failed"] == "False"
    assert response["x-ms-server-version"]
    assert response["TraceId"] == "t"


def test_too_long_ids_are_not_scored_but_logged(start):
    server = start("note.py")
    assert server.score("refused", x_request_id="r" * 101).status == 431
    assert server.score("scored", x_request_id="r" * 100).status == 200
    assert (server.folder / "notes").read_text() == "scored\n"
    server.wait_for_record("POST /score 200")
    assert server.wait_for_record("POST /score 431 ").pid not in server.workers()


@pytest.mark.parametrize("trace", ["t", "", "t" * 3000])
@pytest.mark.parametrize("name", ["TraceId", "traceid", "TRACEID"])
def test_the_trace_id_is_echoed(shared, name, trace):
    assert send(shared("echo.py"), "GET", "/score", (name, trace))["traceid"] == trace


def test_no_trace_id_is_made_up(shared):
    assert send(shared("echo.py"), "GET", "/score")["traceid"] is None


def test_the_deprecated_name_logs_a_warning_once_per_request(start):
    server = start("echo.py")
    send(server, "GET", "/", (M, "m"), (M, "n"))
    send(server, "GET", "/score", (M, "m"))
    send(server, "GET", "/score", (M, ""))
    send(server, "GET", "/score", (C, "c"))
    send(server, "GET", "/nowhere", (M, "m"))
    send(server, "GET", "/score?last")
    server.wait_for_record("GET /score?last")
    warnings = [record.message for record in server.records(logger="azmlinfsrv", level="W")]
    # This script returns JSON text, which a hint tells once.
    assert [warning for warning in warnings if not warning.startswith("Hint: ")] == [DEPRECATED] * 2


@pytest.mark.parametrize(("method", "target", "status"), [("GET", "/nowhere", 404), ("PUT", "/score", 405)])
def test_routing_errors_know_no_ids(shared, method, target, status):
    response = send(shared("echo.py"), method, target, (R, "r" * 101), (C, "c"), ("TraceId", "t"))
    assert response.status == status
    assert [response[name] for name in (R, M, C, "TraceId")] == [None] * 4
