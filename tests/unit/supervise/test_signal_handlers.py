"""What forked children do with signals; each test in an interpreter of its own, as fork hooks are
for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import os, signal
from azureml_inference_server_http.supervise import signal_handlers
def ours(*_): heard.append("ours")
def theirs(*_): heard.append("theirs")
heard = []
def fork_and_wait(in_child):
    pid = os.fork()
    if pid == 0:
        in_child()
        os._exit(0 if not heard else 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def die(): os.kill(os.getpid(), signal.SIGTERM)
"""


def run(code):
    found = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=30)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_child_dies_of_a_signal_that_its_parent_handles(number):
    run(
        f"number = signal.{number}\n"
        "signal_handlers.install({number: ours})\n"
        "signal_handlers.keep_from_children([number], ours)\n"
        "assert fork_and_wait(lambda: os.kill(os.getpid(), number)) == -number\n"
        "os.kill(os.getpid(), number)\n"
        "assert heard == ['ours']\n"
    )


def test_handlers_of_a_script_stay():
    run(
        "signal_handlers.install({signal.SIGTERM: ours})\n"
        "signal_handlers.keep_from_children([signal.SIGTERM], ours)\n"
        "signal.signal(signal.SIGTERM, theirs)\n"
        "assert fork_and_wait(die) == 9\n"
    )


def test_a_signal_to_a_newborn_child_is_neither_lost_nor_told_to_the_parent():
    # The hook that was registered first runs first in the child, before the child has restored any
    # handler.
    run(
        "import socket\n"
        "os.register_at_fork(after_in_child=die)\n"
        "reader, writer = socket.socketpair()\n"
        "reader.setblocking(False)\n"
        "writer.setblocking(False)\n"
        "signal.set_wakeup_fd(writer.fileno())\n"
        "signal_handlers.install({signal.SIGTERM: ours})\n"
        "signal_handlers.keep_from_children([signal.SIGTERM], ours)\n"
        "assert fork_and_wait(lambda: None) == -signal.SIGTERM\n"
        "try: raise SystemExit(f'told: {reader.recv(1)}')\n"
        "except BlockingIOError: pass\n"
        "assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
    )
