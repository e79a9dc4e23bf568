"""How fast health answers when no worker can, and how soon it tells the truth (DESIGN: 10 ms, 1 s).

The promise is 10 ms, 99 times of 100. A machine that does other things at the same time misses that now and then, so
the tests hold the median to it and give the slowest five times as long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from harness import eventually, request

MEDIAN, P99 = 0.010, 0.050


def assert_fast(server, status):
    """Both routes whose answer depends on the workers, on one connection."""
    times = []
    with server.connect() as connection:
        for _ in range(150):
            for target in ("/", "/readyz"):
                began = time.perf_counter()
                assert connection.exchange("GET", target).status == status
                times.append(time.perf_counter() - began)
    times.sort()
    assert times[len(times) // 2] < MEDIAN
    assert times[len(times) * 99 // 100] < P99


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
        assert_fast(server, status)


def test_health_tells_the_truth_within_a_second(start):
    server = start("init_waits.py", files={"go": ""})
    with server.connect() as connection:

        def answers(status):
            return all(connection.exchange("GET", target).status == status for target in ("/", "/readyz"))

        (server.folder / "go").unlink()
        os.kill(server.workers()[0], signal.SIGKILL)
        eventually(lambda: answers(503), "not ready after the death of the only worker", timeout=1)
        assert connection.exchange("GET", "/livez").status == 200
        (server.folder / "go").touch()
        eventually(lambda: len(server.ready_pids()) == 2, "a successor is ready")
        eventually(lambda: answers(200), "ready when the successor is", timeout=1)
        (worker,) = server.workers()
        # It shows in a worker that is given something to do and does not begin.
        os.kill(worker, signal.SIGSTOP)
        waiting = server.score_later("x")
        eventually(lambda: answers(503), "not ready while the only worker is stopped", timeout=1)
        os.kill(worker, signal.SIGCONT)
        eventually(lambda: answers(200), "ready when it goes on", timeout=1)
        assert waiting.result().json() == "x"
