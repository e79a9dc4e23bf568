"""Clients that have sent everything and closed their sending side: answered if they are there, not
scored if not."""

from __future__ import annotations

import pytest
from harness import eventually, request

pytestmark = pytest.mark.any_worker_class


def notes(server):
    return (server.folder / "notes").read_text().split()


def occupy(server):
    """The only worker is busy until the file "go" exists."""
    busy = server.connect().send(request("POST", "/score", b"busy"))
    # Sent after the other request and answered, so the front has read that one.
    assert server.get("/livez").status == 200
    return busy


def final(connection):
    """The final response, and the statuses of the interim ones before it."""
    interim = []
    while (response := connection.read()).status < 200:
        interim.append(response.status)
    return response, interim


def left(server):
    return sum(" 503 " in record.message for record in server.records())


def test_a_half_closed_client_is_answered_while_the_worker_is_busy(start):
    server = start("gate.py")
    busy = occupy(server)
    with server.connect() as waiting:
        waiting.send(request("POST", "/score", b"waits")).close_sending()
        # The probe that tells it from a client that has left.
        assert waiting.read().status == 102
        (server.folder / "go").touch()
        response, _ = final(waiting)
        assert (response.status, response.json()) == (200, "waits")
        waiting.assert_closed()
    assert busy.read().json() == "busy"


def test_a_half_closed_client_is_answered_while_init_runs(start):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    with server.connect() as waiting:
        waiting.send(request("POST", "/score", b"early")).close_sending()
        assert waiting.read().status == 102
        (server.folder / "go").touch()
        response, _ = final(waiting)
        assert (response.status, response.json()) == (200, "early")


def test_a_half_closed_client_whose_request_runs_is_not_probed(start):
    server = start("wait.py")
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"a")).close_sending()
        eventually((server.folder / "a.started").exists, "it runs")
        assert connection.is_silent(0.3)
        (server.folder / "a.go").touch()
        assert connection.read().status == 200


def test_a_client_that_closes_while_it_waits_is_not_scored(start):
    server = start("gate.py")
    busy = occupy(server)
    for number in range(5):
        server.connect().send(request("POST", "/score", b"left%d" % number)).close()
    eventually(lambda: left(server) == 5, "the front saw them leave")
    (server.folder / "go").touch()
    assert busy.read().json() == "busy"
    assert server.score("after").json() == "after"
    assert notes(server) == ["busy", "after"]


def test_a_half_closed_client_that_leaves_later_is_not_scored(start):
    server = start("gate.py")
    busy = occupy(server)
    waiting = server.connect().send(request("POST", "/score", b"left")).close_sending()
    assert waiting.read().status == 102
    # The server cannot notice this at once, because the sending side is closed already. It probes
    # again.
    waiting.close()
    eventually(lambda: left(server) == 1, "the front saw it leave")
    (server.folder / "go").touch()
    assert busy.read().json() == "busy"
    assert server.score("after").json() == "after"
    assert notes(server) == ["busy", "after"]


def test_http_1_0_is_not_probed_and_counts_as_gone(start):
    server = start("gate.py")
    busy = occupy(server)
    with server.connect() as waiting:
        waiting.send(request("POST", "/score", b"left", version="1.0")).close_sending()
        assert waiting.read().status == 503
    (server.folder / "go").touch()
    assert busy.read().json() == "busy"
    assert notes(server) == ["busy"]


def test_what_was_pipelined_before_the_end_is_answered(start):
    server = start("gate.py")
    busy = occupy(server)
    with server.connect() as waiting:
        waiting.send(b"".join(request("POST", "/score", b"p%d" % number) for number in range(3))).close_sending()
        assert waiting.read().status == 102
        (server.folder / "go").touch()
        assert [final(waiting)[0].json() for _ in range(3)] == ["p0", "p1", "p2"]
        waiting.assert_closed()
    assert busy.read().json() == "busy"
