"""Greenlets and asyncio tasks that init() leaves in the main thread run while the worker waits for
requests."""

from __future__ import annotations

import os
import signal

import pytest
from harness import eventually

KINDS = ["gevent", "gevent patched", "eventlet", "eventlet patched", "asyncio"]


def ticks(server):
    path = server.folder / "ticks"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_more_ticks(server, count=5):
    before = len(ticks(server))
    eventually(lambda: len(ticks(server)) >= before + count, "the scheduler runs")


@pytest.mark.parametrize("kind", KINDS)
def test_they_run_while_no_request_comes(start, kind):
    server = start("schedulers.py", SCHEDULER=kind)
    wait_for_more_ticks(server)
    assert server.score("ticks").json() >= 5
    assert server.score("wait").json() >= 1
    wait_for_more_ticks(server)
    assert set(ticks(server)) == {str(pid) for pid in server.workers()}
    # What the libraries change in the standard library does not cost a line of the log.
    assert server.ready_pids() == server.workers()
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert not server.records(level="W")


@pytest.mark.parametrize("kind", KINDS)
def test_many_requests_are_served_meanwhile(start, kind):
    server = start("schedulers.py", SCHEDULER=kind)
    wait_for_more_ticks(server)
    with server.connect() as connection:
        counts = [connection.exchange("POST", "/score", b"ticks").json() for _ in range(300)]
    assert counts == sorted(counts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_to_the_worker_retires_it(start, kind):
    server = start("schedulers.py", SCHEDULER=kind)
    wait_for_more_ticks(server)
    [worker] = server.workers()
    os.kill(worker, signal.SIGTERM)
    server.wait_for_workers(1, instead_of=[worker])
    assert server.score("wait").status == 200


@pytest.mark.parametrize("kind", ["gevent", "gevent patched", "asyncio"])
def test_a_system_exit_ends_the_worker_and_another_exception_does_not(start, kind):
    server = start("schedulers.py", SCHEDULER=kind)
    wait_for_more_ticks(server)
    [worker] = server.workers()
    assert server.score("SystemExit(5)").json() == "ordered"
    [worker] = server.wait_for_workers(1, instead_of=[worker])
    wait_for_more_ticks(server)
    assert server.score("ValueError('no luck')").json() == "ordered"
    eventually(lambda: "ValueError: no luck" in server.output(), "the scheduler says what happened")
    assert server.score("ticks").status == 200
    assert server.workers() == [worker]


@pytest.mark.parametrize("kind", ["gevent", "gevent patched"])
def test_greenlets_of_a_preloaded_script_run_in_the_workers(start, kind):
    server = start("schedulers.py", "--worker_count", "2", SCHEDULER=kind, WORKER_PRELOAD="true")
    workers = {str(pid) for pid in server.wait_for_workers(2)}
    eventually(lambda: workers <= set(ticks(server)), "both workers run the greenlet")
    assert server.score("wait").status == 200


def test_a_loop_that_a_thread_runs_is_left_to_it(start):
    server = start("schedulers.py", SCHEDULER="thread")
    wait_for_more_ticks(server, 200)
    assert server.score("ticks").json() > 100
    # This error appears if two threads run one loop.
    assert "RuntimeError" not in server.stderr()
