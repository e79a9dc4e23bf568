"""The loop and the front's line, without forking; ``e2e/test_processes.py`` has the rest."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from types import SimpleNamespace

import pytest
from harness import eventually

from azureml_inference_server_http import events, process, reports, titles


def settings(**changed):
    return SimpleNamespace(
        **{
            "host": "127.0.0.1",
            "port": 0,
            "health_port": 0,
            "separate_health": False,
            "worker_count": 1,
            "graceful_timeout": 30,
            "worker_timeout": 300,
            "scoring_timeout_ms": 3600000,
            "worker_preload": False,
            **changed,
        }
    )


# ---- The loop


@pytest.fixture
def loop(monkeypatch):
    """A loop that collects its events instead of handling them, with a front that the test plays."""
    monkeypatch.setattr(process._Loop, "_handle", lambda self, event: self.events.append(event))
    made = process._Loop(settings(), [])
    made.events = []
    made._front, made.front_side = socket.socketpair()
    made._front.setblocking(False)
    yield made
    made._worker_socket.front_end.close()
    made._worker_socket.worker_end.close()
    for open_socket in (made._front, made.front_side, made._wake_reader, made._wake_writer):
        if open_socket is not None:
            open_socket.close()


def test_lines_of_the_front_become_events(loop):
    loop.front_side.sendall(
        b"ready 12\nkill 13 did not return\nrecycle 14 served has served 5 requests\nrecycle 15 large uses 9 MiB\n"
        b"recycle 16 leaving was told to end\nreleased\n"
    )
    loop._read_front()
    assert loop.events == [
        events.Ready(12),
        events.KillWanted(13, "did not return"),
        events.RecycleWanted(14, "has served 5 requests", too_large=False),
        events.RecycleWanted(15, "uses 9 MiB", too_large=True),
        events.RecycleWanted(16, "was told to end", too_large=False),
        events.Released(),
    ]


def test_lines_may_arrive_in_pieces(loop):
    for piece in (b"re", b"ady 1", b"2\nready 1"):
        loop.front_side.sendall(piece)
        loop._read_front()
    assert loop.events == [events.Ready(12)]
    loop.front_side.sendall(b"3\n")
    loop._read_front()
    assert loop.events == [events.Ready(12), events.Ready(13)]


@pytest.mark.parametrize("line", [b"", b"ready", b"ready x", b"kill -1 x", b"dance 12", b"\xff 12"])
def test_lines_without_sense_are_logged_and_skipped(loop, records, line):
    loop.front_side.sendall(line + b"\nready 12\n")
    loop._read_front()
    assert loop.events == [events.Ready(12)]
    ((level, text),) = records()
    assert level == "ERROR"
    assert "makes no sense" in text


def test_children_that_stop_go_on_and_end_become_events(loop):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        # So that no other child of the test process is reaped.
        loop._is_preloading, loop._state.front = True, child.pid
        for count, number in enumerate((signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL), 1):
            child.send_signal(number)
            eventually(lambda count=count: loop._reap() or len(loop.events) == count, "the change is told")
    assert loop.events == [
        events.Stopped(child.pid, signal.SIGSTOP),
        events.Continued(child.pid),
        events.Exited(child.pid, -signal.SIGKILL),
    ]


def test_the_end_of_the_front_closes_its_line(loop):
    loop.front_side.sendall(b"ready 12\n")
    loop.front_side.close()
    loop._read_front()
    loop._read_front()
    assert loop.events == [events.Ready(12)]
    assert loop._front is None
    loop._read_front()
    loop._tell_front("stop")


def test_nothing_to_read_is_no_end(loop):
    loop._read_front()
    assert loop._front is not None
    assert loop.events == []


def test_orders_are_lines(loop):
    loop._tell_front("exited 12 exited with code 0")
    loop._tell_front("drain")
    assert loop.front_side.recv(100) == b"exited 12 exited with code 0\ndrain\n"


def test_a_front_that_is_gone_or_stuck_does_not_stop_the_supervisor(loop):
    for _ in range(100_000):
        loop._tell_front("exited 12 " + "x" * 100)
    loop.front_side.close()
    loop._tell_front("stop")


def test_signals_arrive_in_their_order(loop, monkeypatch):
    monkeypatch.setattr(loop, "_reap", lambda: loop.events.append("reap"))
    loop._wake_writer.send(bytes([15, 17, 2, 1]))
    loop._read_signals()
    loop._read_signals()
    assert loop.events == [
        events.Signalled(15),
        "reap",
        events.Signalled(2),
        events.Signalled(1),
    ]


def test_reaping_without_children_is_fine(loop, monkeypatch):
    def none(*_):
        raise ChildProcessError

    monkeypatch.setattr(process, "_os_waitpid", none)
    loop._reap()
    assert loop.events == []


def test_reaped_children_are_told_after_what_the_front_said(loop, monkeypatch):
    loop.front_side.sendall(b"ready 12\n")
    ended = iter([(12, 9), (13, 3 << 8), (0, 0)])
    monkeypatch.setattr(process, "_os_waitpid", lambda *_: next(ended))
    loop._reap()
    assert loop.events == [events.Ready(12), events.Exited(12, -9), events.Exited(13, 3)]


# ---- Shortages


def test_a_fork_that_fails_names_what_is_missing(loop, monkeypatch):
    def fail():
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process, "_os_fork", fail)
    for action, is_front in ((events.SpawnFront(), True), (events.SpawnWorker(), False)):
        refused = loop._perform(action)
        assert refused.is_front is is_front
        assert refused.reason.startswith("Resource temporarily unavailable. Raise the limit of processes")
        assert "ulimit -u" in refused.reason


def test_a_server_that_cannot_start_says_what_is_missing(records, monkeypatch):
    def fail(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(process, "_Loop", fail)
    monkeypatch.setattr(process.listeners, "announce", lambda settings: None)
    monkeypatch.setattr(process.titles, "set_name", lambda name: None)
    monkeypatch.setattr(process.log_config, "find_user_config", lambda settings: "logging.json")
    assert process.run(settings(), []) == 1
    ((level, text),) = records()
    assert level == "CRITICAL"
    assert text.startswith("The server cannot start: Too many open files. Raise the limit of open files (ulimit -n")


# ---- Debuggers


def test_a_process_that_a_debugger_holds_is_noticed():
    assert not reports.is_debugged(os.getpid())
    own = titles.get_name()
    titles.set_name(titles.DEBUGGED)
    try:
        assert reports.is_debugged(os.getpid())
    finally:
        titles.set_name(own)
    # Larger than any number of a process.
    assert not reports.is_debugged(2**31 - 1)
