"""The terminal that a server was started from: what is left when it is closed, and what SIGHUP
means then."""

from __future__ import annotations

import signal

import pytest
from harness import eventually, is_running


@pytest.mark.any_worker_class
def test_a_server_whose_terminal_is_closed_ends(start, terminal):
    server = start("pid.py", through=terminal.starts)
    reply = server.score("x")
    assert reply.status == 200
    terminal.close()
    assert server.wait_for_exit() == 0
    assert not server.members()


def test_requests_are_finished_when_the_terminal_is_closed(start, terminal):
    server = start("wait.py", through=terminal.starts)
    reply = server.score_later("x")
    eventually((server.folder / "x.started").exists, "it runs")
    terminal.close()
    server.wait_for_record("The terminal is gone", level="W")
    (server.folder / "x.go").touch()
    assert reply.result().status == 200
    assert server.wait_for_exit() == 0


def test_hup_replaces_workers_while_the_terminal_is_there(start, terminal):
    server = start("pid.py", through=terminal.starts)
    (old,) = server.wait_for_workers(1)
    server.signal(signal.SIGHUP)
    server.wait_for_record("The new workers serve. An old worker exits when it has finished its requests.")
    eventually(lambda: not is_running(old), "the old worker is gone")
    assert server.score("x").json() in server.wait_for_workers(1)


def test_a_server_under_nohup_outlives_its_terminal_and_obeys_hup(start, terminal):
    server = start("pid.py", through=(*terminal.starts, "nohup"))
    (old,) = server.wait_for_workers(1)
    terminal.close()
    assert server.score("x").json() == old

    def is_replaced():
        if not any("Replacing the workers" in record.message for record in server.records(level="I")):
            server.signal(signal.SIGHUP)
        return old not in server.workers()

    # HUP is sent again until it is obeyed, because soon after the loss it counts as a part of the loss.
    eventually(is_replaced, "HUP replaces the worker")
    assert server.score("x").status == 200


def test_hup_without_a_terminal_replaces_workers(start):
    server = start("pid.py")
    (old,) = server.wait_for_workers(1)
    server.signal(signal.SIGHUP)
    eventually(lambda: not is_running(old), "the old worker is gone")
    assert server.score("x").status == 200
