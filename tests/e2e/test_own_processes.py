"""Scripts whose functions and classes go to other processes, or are pickled, find themselves as
``entry_module``."""

from __future__ import annotations

import multiprocessing
import signal

import pytest
from harness import eventually

METHODS = multiprocessing.get_all_start_methods()


@pytest.mark.any_worker_class
def test_objects_of_a_script_can_be_pickled(start):
    assert start("own_processes.py").score("pickle").json() is True


@pytest.mark.any_worker_class
@pytest.mark.parametrize("method", METHODS)
def test_functions_of_a_script_run_in_processes_that_it_starts(start, method):
    check(start("own_processes.py"), method)


@pytest.mark.parametrize("method", METHODS)
def test_functions_of_a_preloaded_script_run_in_processes_that_it_starts(start, method):
    check(start("own_processes.py", WORKER_PRELOAD="true"), method)


def check(server, method):
    answer = server.score(method)
    assert (answer.status, answer.text) == (200, "[42, 8, 0]")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    # multiprocessing's own processes end when they notice that the worker has ended.
    eventually(lambda: not server.members(), "the script's processes have ended")
