"""How fast health answers when no worker can, and how soon it tells the truth (promised: 10 ms, 1
s)."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from harness import KEPT, eventually, request
from latency import ATTEMPTS, assert_fast

pytestmark = pytest.mark.serial


@contextlib.contextmanager
def busy(start):
    """Both workers calculate and never give up the interpreter lock; more requests wait."""
    server = start("slow.py", "--worker_count", "2", SCORING_TIMEOUT_MS="0", WORKER_TIMEOUT="0")
    server.wait_for_workers(2)
    connections = [server.connect().send(request("POST", "/score", b"spin")) for _ in range(10)]
    assert all(connection.is_silent(0.01) for connection in connections)
    yield server, 200
    server.signal(signal.SIGINT)


@contextlib.contextmanager
def stopped(start):
    server = start("echo.py", "--worker_count", "2")
    workers = server.wait_for_workers(2)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    waiting = [server.score_later("x") for _ in range(4)]
    eventually(lambda: server.get("/").status == 503, "the front has noticed")
    yield server, 503
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    assert [answer.result().json() for answer in waiting] == ["x"] * 4


@contextlib.contextmanager
def starting(start):
    server = start("init_waits.py", "--worker_count", "2", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    waiting = server.score_later("x")
    yield server, 503
    (server.folder / "go").touch()
    assert waiting.result().json() == "x"


@contextlib.contextmanager
def dead(start):
    """The only worker was killed, and its successor takes its time."""
    server = start("init_waits.py", files={"go": ""})
    (server.folder / "go").unlink()
    os.kill(server.workers()[0], signal.SIGKILL)
    eventually(lambda: server.get("/").status == 503, "not ready")
    waiting = server.score_later("x")
    yield server, 503
    (server.folder / "go").touch()
    assert waiting.result().json() == "x"


@pytest.mark.parametrize("state", [busy, stopped, starting, dead], ids=lambda state: state.__name__)
def test_health_is_fast_whatever_the_workers_do(start, state):
    with state(start) as (server, status):
        assert_fast(server, {"/": status, "/readyz": status})


def changes(server, connection):
    """Kill the only worker, wait for its successor, stop that and continue it. Returns the seconds
    until health shows each change. No other request is sent to the server."""

    def seconds_until(status):
        began = time.monotonic()
        eventually(
            lambda: all(
                connection.exchange("GET", target, headers=KEPT).status == status for target in ("/", "/readyz")
            ),
            f"both routes say {status}",
        )
        return time.monotonic() - began

    started = len(server.ready_pids())
    (server.folder / "go").unlink()
    os.kill(server.workers()[0], signal.SIGKILL)
    dead = seconds_until(503)
    assert connection.exchange("GET", "/livez", headers=KEPT).status == 200
    (server.folder / "go").touch()
    eventually(lambda: len(server.ready_pids()) > started, "a successor is ready")
    ready = seconds_until(200)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    stopped = seconds_until(503)
    os.kill(worker, signal.SIGCONT)
    continued = seconds_until(200)
    return {"dead": dead, "ready": ready, "stopped": stopped, "continued": continued}


def test_health_tells_the_truth_within_a_second(start):
    server = start("init_waits.py", files={"go": ""})
    seen = []
    with server.connect() as connection:
        for _ in range(ATTEMPTS):
            seen.append(changes(server, connection))
            if max(seen[-1].values()) < 1:
                return
    raise AssertionError(f"seconds until health told it: {seen}")
