"""What happens to children and what they say, as events, without a server;
``e2e/test_processes.py`` has the rest."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from types import SimpleNamespace

import pytest
from harness import eventually

from azureml_inference_server_http.supervise import control, events, forks, processes, reports, start, titles
from azureml_inference_server_http.supervise.events import Role
from azureml_inference_server_http.supervise.front_line import FrontLine
from azureml_inference_server_http.supervise.template import ENDED, Line

# ---- The front


@pytest.fixture
def children():
    """Processes without children. The test plays the front."""
    made = processes.Processes(SimpleNamespace(exports_telemetry=False), [])
    ours, made.front_side = socket.socketpair()
    made._front = FrontLine(ours)
    yield made
    made._worker_socket.front_end.close()
    made._worker_socket.worker_end.close()
    for open_socket in (ours, made.front_side, made._wake_reader, made._wake_writer):
        open_socket.close()


def test_lines_of_the_front_become_events(children):
    children.front_side.sendall(
        b"ready 12\nkill 13 did not return\nrecycle 14 served has served 5 requests\nrecycle 15 large uses 9 MiB\n"
        b"recycle 16 leaving was told to end\nreleased\n"
    )
    assert children._front.read() == [
        events.Ready(12),
        events.KillWanted(13, "did not return"),
        events.RecycleWanted(14, "served", "has served 5 requests"),
        events.RecycleWanted(15, "large", "uses 9 MiB"),
        events.RecycleWanted(16, "leaving", "was told to end"),
        events.Released(),
    ]


def test_a_worker_is_known_before_it_is_ready(children):
    # The supervisor was busy, and both sockets have lines: the template's is the older one.
    ours, template = socket.socketpair()
    children._templates[11] = Line(11, ours)
    template.sendall(b"forked 12\n")
    children.front_side.sendall(b"ready 12\n")
    assert list(children._read_lines()) == [events.Spawned(12, Role.WORKER, 11), events.Ready(12)]
    for end in (ours, template):
        end.close()


def test_lines_may_arrive_in_pieces(children):
    found = []
    for piece in (b"re", b"ady 1", b"2\nready 1"):
        children.front_side.sendall(piece)
        found += children._front.read()
    assert found == [events.Ready(12)]
    children.front_side.sendall(b"3\n")
    assert children._front.read() == [events.Ready(13)]


@pytest.mark.parametrize(
    "line",
    [b"", b"ready", b"ready x", b"kill -1 x", b"dance 12", b"\xff 12", b"recycle 1 x y", "ready \u00b2".encode()],
)
def test_lines_without_sense_are_logged_and_skipped(children, records, line):
    children.front_side.sendall(line + b"\nready 12\n")
    assert children._front.read() == [events.Ready(12)]
    ((level, text),) = records()
    assert level == "ERROR"
    assert "does not understand" in text


def test_the_end_of_the_front_closes_its_line(children):
    children.front_side.sendall(b"ready 12\n")
    children.front_side.close()
    assert children._front.read() == [events.Ready(12)]
    assert children._front.read() == []
    assert children._front.socket.fileno() == -1
    assert children._front.read() == []
    children.perform(events.TellFront(control.Stop()))


def test_nothing_to_read_is_no_end(children):
    assert children._front.read() == []
    assert children._front.socket.fileno() >= 0


def test_orders_are_lines(children):
    children.perform(events.TellFront(control.Exited(12, "exited with code 0")))
    children.perform(events.TellFront(control.Drain()))
    assert children.front_side.recv(100) == b"exited 12 exited with code 0\ndrain\n"


def test_a_front_that_is_gone_or_stuck_does_not_stop_the_supervisor(children):
    for _ in range(100_000):
        children.perform(events.TellFront(control.Exited(12, "x" * 100)))
    children.front_side.close()
    children.perform(events.TellFront(control.Stop()))


# ---- Signals and children


def test_signals_arrive_in_their_order(children, monkeypatch):
    monkeypatch.setattr(children, "_reap", lambda: iter(["reap"]))
    children._wake_writer.send(bytes([15, 17, 2, 1]))
    assert list(children._read_signals()) == [events.Signalled(15), "reap", events.Signalled(2), events.Signalled(1)]
    assert list(children._read_signals()) == []


def test_children_that_stop_go_on_and_end_become_events(children, monkeypatch):
    waitpid = os.waitpid
    found = []
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        # Waits for this child only, so that no other child of the test process is reaped.
        monkeypatch.setattr(os, "waitpid", lambda _, options: waitpid(child.pid, options))
        children._roles[child.pid] = Role.WORKER
        for count, number in enumerate((signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL), 1):
            child.send_signal(number)
            eventually(lambda count=count: found.extend(children._reap()) or len(found) == count, "the change is told")
            assert children._stopped == ({child.pid} if number == signal.SIGSTOP else set())
    assert found == [
        events.Stopped(child.pid, signal.SIGSTOP),
        events.Continued(child.pid),
        events.Exited(child.pid, -signal.SIGKILL),
    ]
    assert children._roles == {}


def test_reaping_without_children_is_fine(children, monkeypatch):
    def none(*_):
        raise ChildProcessError

    monkeypatch.setattr(os, "waitpid", none)
    assert list(children._reap()) == []


@pytest.fixture
def ended(monkeypatch):
    """``ended((pid, status), ...)``: the statuses that waitpid returns, once."""

    def tell(*changes):
        told = iter([*changes, (0, 0)])
        monkeypatch.setattr(os, "waitpid", lambda *_: next(told))

    return tell


def test_reaped_children_are_told_after_what_the_front_said(children, ended):
    children.front_side.sendall(b"ready 12\n")
    children._roles.update({12: Role.WORKER, 13: Role.WORKER})
    ended((12, 9), (13, 3 << 8))
    assert list(children._reap()) == [events.Ready(12), events.Exited(12, -9), events.Exited(13, 3)]


def test_orphans_of_scripts_are_reaped_and_not_told(children, ended):
    ended((4711, 0))
    assert list(children._reap()) == []


def test_nobody_but_a_child_is_killed(children, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("killed a stranger"))
    children.perform(events.Kill(4711, signal.SIGKILL))


def test_an_action_that_nobody_knows_is_no_secret(children):
    with pytest.raises(TypeError, match="nobody performs"):
        children.perform(events.Finish(0))


# ---- Templates


@pytest.fixture
def template(children):
    """A template with pid 7 that the test plays."""
    ours, children.template_side = socket.socketpair()
    children._templates[7] = Line(7, ours)
    children._roles[7] = Role.TEMPLATE
    yield children.template_side
    children.template_side.close()
    ours.close()


def spawn(children):
    return children.perform(events.SpawnWorker(7))


def test_a_template_is_asked_for_workers_and_tells_of_them(children, template):
    assert (spawn(children), spawn(children)) == (None, None)
    assert template.recv(100) == b"fork 1\nfork 2\n"
    template.sendall(b"loaded\nforked 12\nfailed no memory\n")
    assert list(children._read_lines()) == [
        events.Loaded(7),
        events.Spawned(12, Role.WORKER, 7),
        events.SpawnFailed(Role.WORKER, "no memory", 7),
    ]
    assert children._roles[12] is Role.WORKER


def test_a_worker_that_dies_before_its_template_has_told_of_it_is_no_ghost(children, template, ended):
    spawn(children)
    ended((12, 9))
    assert list(children._reap()) == []
    template.sendall(b"forked 12\n")
    assert list(children._read_lines()) == [events.Spawned(12, Role.WORKER, 7), events.Exited(12, -9)]
    assert (12 in children._roles, children._unclaimed) == (False, {})


def test_the_numbers_of_orphans_are_not_kept(children, template, ended):
    spawn(children)
    ended((4711, 9))
    assert list(children._reap()) == []
    template.sendall(b"forked 12\n")
    list(children._read_lines())
    assert children._unclaimed == {}


def test_a_template_that_dies_starts_none_of_the_workers_that_it_was_asked_for(children, template, ended):
    for _ in range(3):
        spawn(children)
    template.sendall(b"forked 12\n")
    template.close()
    assert list(children._read_lines()) == [events.Spawned(12, Role.WORKER, 7)]
    assert list(children._read_lines()) == []
    ended((7, 9))
    assert list(children._reap()) == [events.SpawnFailed(Role.WORKER, ENDED, 7)] * 2 + [events.Exited(7, -9)]
    assert spawn(children) == events.SpawnFailed(Role.WORKER, ENDED, 7)


def test_a_template_that_is_gone_cannot_be_asked(children, template):
    template.close()
    assert spawn(children) == events.SpawnFailed(Role.WORKER, ENDED, 7)
    assert not children._templates[7].is_awaited


def test_a_template_is_released_by_the_end_of_its_orders(children, template):
    spawn(children)
    children.perform(events.ReleaseTemplate(7))
    assert (template.recv(100), template.recv(100)) == (b"fork 1\n", b"")
    template.sendall(b"forked 12\n")
    assert list(children._read_lines()) == [events.Spawned(12, Role.WORKER, 7)]
    children.perform(events.ReleaseTemplate(4711))


# ---- Shortages


def test_a_fork_that_fails_names_what_is_missing(children, monkeypatch):
    def fail():
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(forks, "plain_fork", fail)
    before = len(os.listdir("/proc/self/fd"))
    roles = {events.SpawnFront(): Role.FRONT, events.SpawnTemplate(): Role.TEMPLATE, events.SpawnWorker(): Role.WORKER}
    for action, role in roles.items():
        refused = children.perform(action)
        assert refused.role is role
        assert refused.reason.startswith("Resource temporarily unavailable. Raise the limit of processes")
        assert "ulimit -u" in refused.reason
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_server_that_cannot_start_says_what_is_missing(records, monkeypatch):
    def fail(*_):
        raise OSError(24, "Too many open files")

    settings = SimpleNamespace(
        worker_count=1,
        graceful_timeout=30,
        worker_timeout=0,
        scoring_timeout_ms=0,
        worker_preload=False,
        debug_port=None,
        reload=False,
        init_concurrency=0,
        counts_metrics=False,
    )
    monkeypatch.setattr(start, "Processes", fail)
    monkeypatch.setattr(start.listeners, "announce", lambda settings, clients: None)
    monkeypatch.setattr(start.titles, "set_name", lambda name: None)
    monkeypatch.setattr(start.log_config, "find_user_config", lambda settings: "logging.json")
    assert start.run(settings, []) == 1
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
    # Larger than any pid.
    assert not reports.is_debugged(2**31 - 1)
