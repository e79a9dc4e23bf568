"""Who runs a request, and that nothing waits in the wrong place (docs/design.md,
``src/dispatch``)."""

from __future__ import annotations

import os
import signal

import pytest
from harness import eventually, request

# After this many requests every worker counts as fast, so that jobs are sent to it ahead of time.
WARM_UP = 200


def notes(server):
    return (server.folder / "notes").read_text().split()


def warm_up(server, connections=8):
    open_connections = [server.connect() for _ in range(connections)]
    for _ in range(WARM_UP // connections):
        for connection in open_connections:
            connection.send(request("POST", "/score", b"warm"))
        for connection in open_connections:
            assert connection.read().status == 200
    return open_connections


def test_a_slow_request_holds_up_nobody_while_another_worker_is_free(start):
    server = start("hold.py", WORKER_COUNT="2")
    server.wait_for_workers(2)
    slow, *fast = warm_up(server)
    slow.send(request("POST", "/score", b"hold"))
    for connection in fast:
        connection.send(request("POST", "/score", b"fast"))
    (pid,) = {connection.read().json() for connection in fast}
    (server.folder / "hold").touch()
    assert slow.read().json() != pid


def test_a_client_that_leaves_behind_a_slow_request_is_not_scored(start):
    server = start("hold.py")
    slow, *fast = warm_up(server)
    slow.send(request("POST", "/score", b"hold"))
    for connection in fast:
        connection.send(request("POST", "/score", b"left"))
    eventually(lambda: "hold" in notes(server), "the slow request runs")
    for connection in fast:
        connection.close()
    eventually(
        lambda: sum(" 503 " in record.message for record in server.records()) == len(fast), "the front saw them leave"
    )
    (server.folder / "hold").touch()
    assert slow.read().status == 200
    assert server.score("end").status == 200
    # A fast request may have finished before the slow one began.
    assert notes(server)[notes(server).index("hold") :] == ["hold", "end"]


def test_the_queue_timeout_holds_for_requests_sent_ahead(start):
    server = start("hold.py", "--queue_timeout", "2")
    slow, *fast = warm_up(server)
    slow.send(request("POST", "/score", b"hold"))
    for connection in fast:
        connection.send(request("POST", "/score", b"late"))
    assert {connection.read().status for connection in fast} == {503}
    (server.folder / "hold").touch()
    assert slow.read().status == 200
    assert "late" not in notes(server)


def test_a_stopped_worker_gets_nothing_until_it_goes_on(start):
    server = start("hold.py", WORKER_COUNT="2")
    stopped, other = server.wait_for_workers(2)
    os.kill(stopped, signal.SIGSTOP)
    try:
        server.wait_for_record(f"Worker (pid:{stopped}) was stopped by signal 19 (SIGSTOP)")
        assert server.get("/readyz").status == 200
        assert {server.score("x").json() for _ in range(20)} == {other}
    finally:
        os.kill(stopped, signal.SIGCONT)
    server.wait_for_record(f"Worker (pid:{stopped}) was continued")
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"hold"))
        eventually(lambda: "hold" in notes(server), "one is busy")
        free = server.score("y").json()
        (server.folder / "hold").touch()
        assert {free, connection.read().json()} == {stopped, other}
    # The front knew that the worker was stopped, and did not have to find out by sending it a
    # request.
    assert not [record for record in server.records() if "responds again" in record.message]


def test_a_worker_that_is_stopped_gives_back_what_it_has_not_begun(start):
    server = start("hold.py", WORKER_COUNT="2")
    server.wait_for_workers(2)
    slow, *fast = warm_up(server)
    slow.send(request("POST", "/score", b"hold"))
    eventually(lambda: "hold" in notes(server), "one is busy")
    connections = [server.connect() for _ in range(20)]
    for connection in (*fast, *connections):
        connection.send(request("POST", "/score", b"fast"))
    (other,) = {connection.read().json() for connection in (*fast, *connections)}
    os.kill(other, signal.SIGSTOP)
    try:
        for connection in fast:
            connection.send(request("POST", "/score", b"x"))
        server.wait_for_record(f"Worker (pid:{other}) was stopped")
        (server.folder / "hold").touch()
        assert {slow.read().json()} == {connection.read().json() for connection in fast}
    finally:
        os.kill(other, signal.SIGCONT)
    assert notes(server).count("x") == len(fast)


def test_health_says_so_when_every_worker_is_stopped(start):
    server = start("hold.py")
    (pid,) = server.wait_for_workers(1)
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(
            lambda: server.get("/readyz").status == 503, "health tells it, though nothing was asked of the worker"
        )
        assert server.get("/livez").status == 200
        waiting = server.connect().send(request("POST", "/score", b"x"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert waiting.read().json() == pid
    assert server.get("/readyz").status == 200
    assert notes(server) == ["x"]


def test_a_worker_that_is_stopped_for_long_is_replaced(start):
    server = start("hold.py", WORKER_TIMEOUT="1")
    (pid,) = server.wait_for_workers(1)
    os.kill(pid, signal.SIGSTOP)
    assert server.score("x").json() != pid
    server.wait_for_record("was stopped for longer than a request may take")


def test_requests_that_a_dead_worker_had_not_started_are_served_by_its_successor(start):
    server = start("hold.py")
    slow, *fast = warm_up(server)
    before = len(notes(server))
    (pid,) = server.workers()
    os.kill(pid, signal.SIGSTOP)
    for connection in (slow, *fast):
        connection.send(request("POST", "/score", b"fast"))
    os.kill(pid, signal.SIGKILL)
    answers = [connection.read() for connection in (slow, *fast)]
    assert {answer.status for answer in answers} == {200}, [str(answer) for answer in answers]
    assert notes(server)[before:] == ["fast"] * len(answers)


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 7)])
def test_a_child_that_run_forks_ends_with_it(start, how, code):
    server = start("fork_in_run.py")
    assert server.score(how).json() == code
    pids = {server.score("plain").json() for _ in range(5)}
    assert pids == set(server.workers())
    assert len((server.folder / "served").read_text().split()) == 6
    assert not server.records(level="E")
    assert ("ValueError: in the child" in server.stderr()) == (how == "raise")


def test_a_front_that_dies_takes_no_worker_along_whatever_sigpipe_means(start):
    server = start("hold.py")
    (pid,) = server.workers()
    server.connect().send(request("POST", "/score", b"hold"))
    eventually(lambda: "hold" in notes(server), "it runs")
    server.kill_front()
    (server.folder / "hold").touch()
    assert server.score("next").json() == pid
    assert notes(server) == ["hold", "next"]


def test_a_slow_reader_of_a_stream_costs_no_worker(start):
    server = start("stream_for_ever.py", WORKER_TIMEOUT="1")
    (pid,) = server.workers()
    with server.connect() as reader, server.connect() as clock:
        reader.send(request("POST", "/score", b"flood"))
        assert reader.read_head_of_stream().status == 200
        # Far longer than the timeout. It must not end the call, because the client causes the delay
        # and not the script.
        assert clock.is_silent(3)
        for _ in range(200):
            assert len(reader.next_chunk()) == 65536
    eventually((server.folder / "closed").exists, "the generator is closed")
    assert server.score("plain").json() == "plain"
    assert server.workers() == [pid]
