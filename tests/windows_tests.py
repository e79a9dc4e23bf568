"""Which end-to-end tests ``make test-windows`` runs, and why it leaves out the others.

A plugin of pytest, loaded by conftest.py if TEST_SERVER is ``windows_command.py``. The tests and their clients run on
this system, the servers in a Windows Python under Wine.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import windows_python

# Windows has worker threads only, so a test runs there if its server has threads.
PROCESSES = "its server has worker processes"
DESCRIPTORS = "what is written to file descriptors 1 and 2 is not made JSON on Windows"
PACKAGE = "the package that watches the script is not installed there"
# Shown with plain sockets of Python: recv() gives b"" after a reset, where Windows raises WSAECONNRESET.
RESET = "Wine shows a reset connection as one whose client has only closed its sending side"
FORK = "azmlinfsrv validate needs fork()"
NO_FORK = "Windows has no fork()"
SIGNAL = "it sends a signal that Windows does not have"
TERMINAL = "its server has a terminal, and every standard stream is a pipe there"
OWN_COMMAND = "it starts the command of this system"
MOUNTS = "it mounts file systems for the server alone, which only Linux can"
# The reason why a test cannot run there, by the beginning of what follows "e2e/" in its name.
LEFT_OUT = {
    "test_debug_port.py::": "the package debugpy is not installed there",
    "test_debugged_calls.py::": TERMINAL,
    "test_examples.py::": OWN_COMMAND,
    "test_json_log.py::test_every_line_is_an_object_under_a_flood": DESCRIPTORS,
    "test_json_log.py::test_the_start_the_script_and_its_failures_are_in_it": DESCRIPTORS,
    "test_memory.py::": "it reads the memory of the server's process, and the test sees tests/windows_command.py",
    "test_metrics.py::test_clients_that_leave_are_counted_by_what_their_request_did": RESET,
    "test_monitoring.py::test_azure_monitor": PACKAGE,
    "test_monitoring.py::test_opentelemetry_instrument": "it starts the server by a program of this system",
    "test_own_processes.py::test_functions_of_a_script_run_in_processes_that_it_starts[thread-fork": NO_FORK,
    "test_panics.py::": "it needs a build with debug assertions, and the wheel has none",
    "test_pytest_plugin.py::": OWN_COMMAND,
    "test_record.py::test_a_script_that_gets_requests": FORK,
    "test_record.py::test_a_script_that_gets_text": FORK,
    "test_record.py::test_another_answer_is_a_difference": FORK,
    "test_shortages.py::test_a_log_on_a_full_disk_costs_its_lines_only": MOUNTS,
    "test_shortages.py::test_no_folder_that_can_be_written_is_needed": MOUNTS,
    "test_shortages.py::test_too_few_descriptors_to_start_are_told": "Windows has no limit of descriptors",
    "test_terminal.py::": TERMINAL,
    "test_terminal_output.py::": TERMINAL,
    "test_threads.py::test_hup_is_refused_and_ttin_and_ttou_change_the_number": SIGNAL,
    "test_threads.py::test_signal_handlers_of_a_script_run_on_the_main_thread": SIGNAL,
    "test_threads.py::test_a_signal_handler_that_fails_harms_nobody": SIGNAL,
    "test_threads.py::test_a_child_of_the_script_keeps_neither_the_port_nor_the_signals": NO_FORK,
    "test_threads.py::test_a_sleeping_call_is_answered_in_time_and_its_thread_replaced": "Windows has no FIFOs",
    "test_threads.py::test_it_needs_nothing_of_unix": "it imitates Windows on Linux",
    "test_threads.py::test_a_script_that_replaces_threads_by_greenlets_is_refused": "gevent and eventlet are not there",
}


def reason(item: pytest.Item) -> str | None:
    """Why this test is left out; None if it runs."""
    # pytest-xdist adds the group after "@".
    name = item.nodeid.partition("e2e/")[2]
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if parameters.get("worker_class") != "thread" and not name.startswith(("test_threads.py", "test_windows.py")):
        return PROCESSES
    return next((why for beginning, why in LEFT_OUT.items() if name.startswith(beginning)), None)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Keep Wine running until the last test has ended. In parallel test processes of pytest-xdist, the parent does
    it."""
    if hasattr(config, "workerinput"):
        return (yield)
    with windows_python.booted(Path(shlex.split(os.environ["TEST_SERVER"])[-1])):
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    others = [item for item in items if reason(item) == PROCESSES]
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)
    for item in items:
        why = reason(item)
        if why:
            item.add_marker(pytest.mark.skip(reason=f"under Wine: {why}"))
