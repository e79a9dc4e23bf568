"""Stopping the server: what TERM, INT and QUIT do to requests, workers and the command (contract
section 16, docs/design.md)."""

from __future__ import annotations

import os
import select
import signal
import time

import pytest
from harness import KEPT, eventually, is_running, request, running

STOPPED = {"message": "The server was stopped before the request was finished."}


@pytest.mark.any_worker_class
def test_term_finishes_what_runs_and_what_waits(start):
    server = start("wait.py")
    first, second = running(server, "a"), server.connect().send(request("POST", "/score", b"b"))
    idle = server.connect()
    assert idle.exchange("GET", "/", headers=KEPT).status == 200
    server.signal(signal.SIGTERM)
    idle.assert_closed()
    assert server.process.poll() is None
    (server.folder / "b.go").touch()
    (server.folder / "a.go").touch()
    for connection in (first, second):
        response = connection.read()
        assert (response.status, response["connection"]) == (200, "close")
        connection.assert_closed()
    assert server.wait_for_exit() == 0
    assert not server.records(level="E")


def test_new_clients_hear_the_truth_while_the_server_finishes(start):
    server = start("wait.py")
    last = running(server)
    early = [server.connect(), server.connect().send(b"POST /score HTTP/1.1\r\nHost: a\r\n")]
    server.signal(signal.SIGTERM)
    eventually(lambda: server.get("/readyz").status == 503, "readiness tells it")
    # Connections that were open before TERM, without a complete request.
    for connection, rest in zip(early, (request("POST", "/score", b"c"), b"Content-Length: 1\r\n\r\nc")):
        assert connection.send(rest).read().status == 503
    assert server.get("/readyz").json() == {"message": "Not ready: the server is shutting down."}
    assert server.get("/livez").status == 200
    refused = server.score("b")
    assert (refused.status, refused["retry-after"], refused["connection"].lower()) == (503, "1", "close")
    assert refused.json() == {"message": "The server is shutting down and takes no new requests."}
    # A connection without a request must not delay the end.
    server.connect()
    (server.folder / "a.go").touch()
    assert last.read().status == 200
    assert server.wait_for_exit() == 0
    assert not [name for name in "bc" if (server.folder / f"{name}.started").exists()]


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
def test_methods_that_wait_for_the_script_end_with_the_server(start, method):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    connection = server.connect().send(request(method, "/score"))
    # Sent later and answered: so the front has read the one before.
    assert server.get("/livez").status == 200
    server.signal(signal.SIGINT)
    assert connection.read(method).status == 503
    assert server.wait_for_exit() == 0


def test_methods_that_wait_for_the_script_wait_no_longer_than_others(start):
    server = start("init_waits.py", "--queue_timeout", "0.2", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    assert server.request("OPTIONS", "/score").status == 503


@pytest.mark.serial
@pytest.mark.any_worker_class
def test_term_ends_an_idle_server_quickly(start):
    server = start("echo.py", "--worker_count", "2")
    with server.connect() as idle:
        assert idle.exchange("GET", "/", headers=KEPT).status == 200
        server.signal(signal.SIGTERM)
        # Well before --graceful_timeout, because there is nothing to wait for.
        assert server.wait_for_exit() == 0
        idle.assert_closed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_does_not_hold_up_the_end(start, number):
    server = start("echo.py", "--graceful_timeout", "1")
    for pid in server.workers():
        os.kill(pid, signal.SIGSTOP)
    server.wait_for_record("was stopped by")
    server.signal(number)
    assert server.wait_for_exit() == 0


@pytest.mark.serial
@pytest.mark.any_worker_class
def test_term_waits_no_longer_than_the_graceful_timeout(start):
    server = start("wait.py", "--graceful_timeout", "1")
    with running(server) as connection:
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)
        response = connection.read()
        assert time.monotonic() - began > 0.9
        assert (response.status, response.json()) == (503, STOPPED)
        assert server.wait_for_exit() == 0
    assert server.ready_pids()


@pytest.mark.any_worker_class
def test_a_late_upload_is_refused_without_a_reset(start):
    server = start("wait.py")
    with running(server), server.connect() as late:
        server.signal(signal.SIGTERM)
        server.wait_for_record("Stopping")
        late.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        assert select.select([late.socket], [], [], 20)[0], "refused before the body has come"
        late.send(bytes(3_000_000))
        assert late.read().status == 503
        (server.folder / "a.go").touch()
        assert server.wait_for_exit() == 0


@pytest.mark.serial
@pytest.mark.any_worker_class
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_answers_everybody_and_ends_at_once(start, number):
    server = start("wait.py")
    with running(server) as first, server.connect() as second:
        second.send(request("POST", "/score", b"b"))
        # The answer to a later request on another connection tells that the front has seen the
        # second one.
        assert server.get("/").status == 200
        server.signal(number)
        for connection in (first, second):
            response = connection.read()
            assert (response.status, response.json()) == (503, STOPPED)
            assert response["x-ms-run-function-failed"] == "False"
            assert response["x-request-id"]
            connection.assert_closed()
        # run() never returns, and this is well before --graceful_timeout.
        assert server.wait_for_exit() == 0


@pytest.mark.any_worker_class
def test_ctrl_c_reaches_the_whole_process_group(start):
    server = start("wait.py")
    with running(server) as connection:
        os.killpg(server.pid, signal.SIGINT)
        assert connection.read().json() == STOPPED
        assert server.wait_for_exit() == 0
    assert "KeyboardInterrupt" not in server.output()


@pytest.mark.any_worker_class
def test_int_ends_a_server_that_drains(start):
    server = start("wait.py")
    with running(server) as connection:
        server.signal(signal.SIGTERM)
        server.wait_for_record("Stopping")
        server.signal(signal.SIGINT)
        assert connection.read().json() == STOPPED
        assert server.wait_for_exit() == 0


@pytest.mark.any_worker_class
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_starts_can_be_stopped(start, number):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    server.signal(number)
    assert server.wait_for_exit() == 0


def test_ctrl_c_while_the_command_is_imported_leaves_no_traceback(start):
    # The command is started in this folder, so Python imports this file and not the standard
    # library's module.
    interrupts = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    server = start("echo.py", files={"argparse.py": interrupts}, ready=False)
    assert server.wait_for_exit() == -signal.SIGINT
    assert server.output() == "--- stdout\n--- stderr\n"


def test_a_worker_that_ignores_the_end_is_killed(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import signal\n"
        "def init(): signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})\n"
        "def run(data):\n    open('started', 'w')\n    signal.pause()\n"
    )
    server = start(str(script))
    (worker,) = server.workers()
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"a"))
        eventually((server.folder / "started").exists, "it runs")
        server.signal(signal.SIGINT)
        assert connection.read().status == 503
        assert server.wait_for_exit() == 0
    assert not is_running(worker)
