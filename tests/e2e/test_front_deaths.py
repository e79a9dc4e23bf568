"""What the death of a front costs: the requests that it had accepted, and nothing else
(docs/design.md)."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from harness import KEPT, eventually, is_running, request
from wire import clients


def test_new_connections_are_never_refused_while_fronts_die(start):
    server = start("echo.py", "--worker_count", "2")
    server.wait_for_workers(2)
    refused, answered = [], []

    def keep_connecting(stop):
        while not stop.is_set():
            try:
                with server.connect() as connection:
                    answered.append(connection.exchange("POST", "/score", b"x").json())
            except ConnectionRefusedError as error:
                refused.append(error)
            except ConnectionError:
                # The front died after it had accepted this connection.
                continue

    with clients(keep_connecting, 4):
        for _ in range(3):
            seen = len(answered)
            server.kill_front()
            eventually(lambda seen=seen: len(answered) > seen + 20, "requests are answered again")
    assert not refused
    assert set(answered) == {"x"}


def test_what_comes_without_a_front_waits_for_the_next(start):
    server = start("echo.py")
    front = server.front()
    # A stopped front accepts no connection. So when it dies, the connection is left for the next
    # front.
    os.kill(front, signal.SIGSTOP)
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"early"))
        os.kill(front, signal.SIGKILL)
        assert connection.read().json() == "early"


def test_requests_that_were_queued_in_a_dead_front_are_cut_and_not_run(start):
    server = start("gate.py")
    waiting = [server.connect().send(request("POST", "/score", f"r{number}".encode())) for number in range(10)]
    assert server.get("/livez").status == 200
    server.kill_front()
    for connection in waiting:
        with pytest.raises(ConnectionError):
            connection.read()
    (server.folder / "go").touch()
    assert server.score("later").json() == "later"
    # The first one was running already, or may have been.
    assert set((server.folder / "notes").read_text().split()) <= {"r0", "later"}


def test_a_worker_that_is_stuck_when_its_front_dies_is_replaced(start):
    server = start("slow.py", "--graceful_timeout", "1", SCORING_TIMEOUT_MS="1000", WORKER_TIMEOUT="2")
    (stuck,) = server.workers()
    server.connect().send(request("POST", "/score", b"native"))
    # Sent after the other request and answered, so the front has sent that one to the worker, which
    # will run it.
    assert server.get("/livez").status == 200
    server.kill_front()
    assert server.score_later("x").result().json() == "x"
    assert stuck not in server.workers()
    told = server.wait_for_record(f"Worker (pid:{stuck}) did not connect to the front again", level="C")
    assert "WORKER_TIMEOUT" in told.message


def test_a_worker_that_is_stuck_and_retires_when_its_front_dies_is_killed(start):
    server = start("slow.py", "--worker_count", "2", "--graceful_timeout", "1", WORKER_TIMEOUT="5")
    retiring = max(server.wait_for_workers(2))
    for _ in range(2):
        server.connect().send(request("POST", "/score", b"native"))
    # Sent after the other requests and answered, so the front has sent one of them to each worker.
    assert server.get("/livez").status == 200
    server.signal(signal.SIGTTOU)
    server.kill_front()
    told = server.wait_for_record(f"Worker (pid:{retiring}) did not end within", level="C")
    assert "WORKER_TIMEOUT" in told.message
    assert "--graceful_timeout" in told.message
    eventually(lambda: not is_running(retiring), "the worker is dead")
    assert server.score("x").json() == "x"
    assert len(server.workers()) == 1


def test_a_stream_to_a_dead_front_is_closed(start):
    server = start("stream_for_ever.py")
    workers = server.workers()
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"stream")).read_head_of_stream()
        assert connection.next_chunk() == b"more,"
        server.kill_front()
    eventually((server.folder / "closed").exists, "the generator is closed")
    assert server.score("plain").json() == "plain"
    assert server.workers() == workers


def test_idle_connections_of_a_dead_front_are_closed(start):
    server = start("echo.py")
    connections = [server.connect() for _ in range(5)]
    for connection in connections:
        assert connection.exchange("GET", "/", headers=KEPT).status == 200
    server.kill_front()
    for connection in connections:
        try:
            assert connection.rest() == b""
        except ConnectionResetError:
            continue
        except socket.timeout:
            raise AssertionError("the connection hangs") from None
