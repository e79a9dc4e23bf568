"""Calls of run() that a debugger holds: no limit interrupts them or kills their worker."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import pytest
from harness import eventually

# From <sys/ptrace.h>.
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17

SCRIPT = """
import os, time

def init(): pass

def run(data):
    if data == "stop":
        breakpoint()
        time.sleep(0)
    if data == "wait":
        open("started", "w").close()
        while not os.path.exists("go"): time.sleep(0.01)
    if data == "spin":
        end = time.monotonic() + 60
        while time.monotonic() < end: pass
    return os.getpid()
"""

LIMITS = {
    "SCORING_TIMEOUT_MS": {"SCORING_TIMEOUT_MS": "500"},
    "WORKER_TIMEOUT": {"SCORING_TIMEOUT_MS": "60000", "WORKER_TIMEOUT": "2"},
}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "score.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.mark.any_worker_class
@pytest.mark.parametrize("limit", LIMITS)
def test_a_call_at_the_prompt_of_pdb_has_no_limit(start, script, terminal, limit):
    server = start(script, through=terminal.starts, **LIMITS[limit])
    (worker,) = server.wait_for_workers(1)
    name = Path(f"/proc/{worker}/comm").read_text()
    reply = server.score_later("stop")
    # Searched in stdout and not in the records, because the line begins with the debugger's prompt.
    eventually(lambda: "A debugger holds this call of run()" in server.stdout(), "the log says so")
    server.wait_for_record("It is not killed, because a debugger in it", level="W")
    terminal.type("continue\n")
    assert reply.result().json() == worker
    assert Path(f"/proc/{worker}/comm").read_text() == name
    assert server.stdout().count("A debugger holds") == server.stdout().count("It is not killed, because") == 1
    # Without a debugger the limit is as before.
    assert server.score("spin").status == 500


def test_a_worker_under_a_debugger_of_native_code_is_not_killed(start, script):
    server = start(script, WORKER_TIMEOUT="1")
    (worker,) = server.wait_for_workers(1)
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long] * 4
    reply = server.score_later("wait")
    eventually((server.folder / "started").exists, "it runs")
    if ptrace(PTRACE_SEIZE, worker, 0, 0):
        pytest.skip(f"this user may not debug processes: {os.strerror(ctypes.get_errno())}")
    # The alarm signal before the limit stops the worker for its debugger, and the kernel reports
    # that here, to the debugger.
    os.waitpid(worker, 0)
    server.wait_for_record(f"It is not killed, because process {os.getpid()} debugs it.", level="W")
    assert ptrace(PTRACE_DETACH, worker, 0, signal.SIGALRM) == 0
    (server.folder / "go").touch()
    assert reply.result().json() == worker
