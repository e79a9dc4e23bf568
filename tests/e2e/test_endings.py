"""Ends of processes: what scripts leave behind in workers, starts that never succeed, and what
outlives whom."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from harness import Connection, eventually, is_running, request

RUN = "def run(data): return os.getpid()\n"


@pytest.fixture
def serve(start, tmp_path):
    """``serve("text of a script")``: a server with this script. A run() is added if the text has
    none."""

    def begin(text, *options, **more):
        script = tmp_path / "score.py"
        script.write_text(f"import atexit, os, signal, subprocess, sys, threading, time\n{RUN}{text}")
        return start(str(script), *options, **more)

    return begin


def reload(server):
    """Send HUP to a server with one worker, and wait until the old worker has ended."""
    (old,) = server.wait_for_workers(1)
    server.signal(signal.SIGHUP)
    eventually(lambda: not is_running(old), "the old worker is gone")
    return old


# ---- What a script leaves behind


def test_a_thread_that_does_not_end_does_not_keep_a_retired_worker(serve):
    server = serve(
        "def init():\n"
        "    threading.Thread(target=threading.Event().wait, name='left').start()\n"
        "    atexit.register(lambda: open(f'exited-{os.getpid()}', 'w'))\n",
        "--graceful_timeout",
        "1",
    )
    old = reload(server)
    assert (server.folder / f"exited-{old}").exists()
    record = server.wait_for_record("(--graceful_timeout). Left undone", level="W")
    assert (record.pid, record.message.endswith(": threads left.")) == (old, True)
    assert not server.records(level="E")


def test_an_exit_handler_that_does_not_end_does_not_keep_a_retired_worker(serve):
    server = serve("def init(): atexit.register(time.sleep, 60)\n", "--graceful_timeout", "1")
    old = reload(server)
    assert server.wait_for_record("Left undone: a handler of atexit.", level="W").pid == old
    assert not server.records(level="E")


def test_native_code_that_keeps_the_interpreter_does_not_keep_a_retired_worker(serve):
    server = serve("def init(): atexit.register(lambda: sum(range(10 ** 15)))\n", "--graceful_timeout", "1")
    old = reload(server)
    assert f"Worker (pid:{old}) was killed by signal 14" in server.wait_for_record("killed by", level="E").message


def test_a_worker_whose_init_fails_ends_although_it_has_left_a_thread(serve):
    server = serve("def init():\n    threading.Thread(target=threading.Event().wait).start()\n    1 / 0\n", ready=False)
    assert server.wait_for_exit() == 3


def test_exit_handlers_have_time_after_term(serve):
    server = serve("def init(): atexit.register(lambda: (time.sleep(1), open('exited', 'w')))\n")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert (server.folder / "exited").exists()


SERVER, WORKER = "the server", "a worker"


@pytest.mark.parametrize(
    ("handler", "target"),
    [("lambda *_: sys.exit(9)", SERVER), ("lambda *_: sys.exit(9)", WORKER), ("lambda *_: None", SERVER)],
)
def test_a_handler_for_term_of_the_script_does_not_keep_its_worker(serve, handler, target):
    server = serve(
        f"def init():\n    signal.signal(signal.SIGTERM, {handler})\n"
        "    atexit.register(lambda: open(f'exited-{os.getpid()}', 'w'))\n"
    )
    (worker,) = server.wait_for_workers(1)
    if target == SERVER:
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit() == 0
    else:
        os.kill(worker, signal.SIGTERM)
        eventually(lambda: not is_running(worker), "the worker ends")
        eventually(lambda: server.score().json() not in (None, worker), "another serves")
    assert (server.folder / f"exited-{worker}").exists()
    assert not server.records(level="E")


@pytest.mark.parametrize("child", ["pass", "sys.exit(0)"])
def test_a_child_that_returns_from_init_is_no_second_worker(serve, child):
    server = serve(f"def init():\n    if os.fork() == 0: {child}\n    else: os.wait()\n")
    assert [server.score().json()] == server.wait_for_workers(1)
    assert len(server.members()) == 3


def test_children_of_a_script_obey_term(serve):
    server = serve(
        "import multiprocessing\n"
        "def init(): pass\n"
        "def run(data):\n"
        "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    child.start()\n    child.terminate()\n    child.join(10)\n    return child.exitcode\n"
    )
    assert server.score().json() == -signal.SIGTERM


# ---- Starts that never succeed


@pytest.mark.parametrize(
    ("death", "told"),
    [
        ("os._exit(7)", "exited with code 7"),
        ("import ctypes; ctypes.string_at(0)", "was killed by signal 11 (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9 (SIGKILL)"),
    ],
)
def test_deaths_in_init_end_the_command_with_the_cause(serve, death, told):
    server = serve(f"def init(): {death}\n", ready=False)
    assert server.wait_for_exit() == 3
    (record,) = server.records(level="C")
    assert told in record.message
    if "ctypes" in death:
        assert "Segmentation fault" in server.stderr()
        assert "score.py" in server.stderr()


def test_a_script_that_breaks_later_does_not_end_those_who_serve(serve):
    server = serve("def init():\n    if os.path.exists('broken'): 1 / 0\n", "--worker_count", "2")
    first, second = server.wait_for_workers(2)
    (server.folder / "broken").touch()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len([r for r in server.records(level="E") if "exited with code 3" in r.message]) > 1, "retries")
    assert server.score().json() == second
    (server.folder / "broken").unlink()
    assert second in server.wait_for_workers(2)


def test_workers_that_die_as_soon_as_they_serve_do_not_spin(serve):
    server = serve(
        "def init():\n    open('inits', 'a').write('x')\n    threading.Timer(0.05, os._exit, (7,)).start()\n",
        ready=False,
    )
    text = server.wait_for_record("workers in a row died within 10 s of being ready.", level="W").message
    assert "The next one is started in" in text
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


# ---- Recycling by size


def test_a_limit_below_what_the_script_needs_is_told_and_does_not_spin(serve):
    server = serve("def init(): pass\n", "--max_worker_rss", "1")
    text = server.wait_for_record("--max_worker_rss 1", level="W").message
    assert "set a higher limit" in text
    (worker,) = server.wait_for_workers(1)
    assert server.score().json() == worker
    assert len(server.ready_pids()) == 2


# ---- What outlives whom


@pytest.mark.parametrize("busy", ["time.sleep(600)", "sum(range(10 ** 15))"], ids=["asleep", "in native code"])
def test_a_killed_supervisor_takes_busy_workers_along(serve, busy):
    server = serve(f"def init(): pass\ndef run(data):\n    open('started', 'w')\n    while True: {busy}\n")
    members = server.members()
    with Connection(server.port) as connection:
        connection.send(request("POST", "/score", b"x"))
        eventually((server.folder / "started").exists, "it runs")
        server.signal(signal.SIGKILL)
        eventually(lambda: not any(map(is_running, members)), "all processes are gone")
    assert not list(server.temporary.iterdir())


# A program that replaces a decision of the supervisor by an error, and then runs the command.
FAILING_SUPERVISOR = """
import sys
from azureml_inference_server_http.launch import cli
from azureml_inference_server_http.supervise import state
state.Supervisor._signalled = lambda self, number, now: 1 / 0
sys.exit(cli.main(sys.argv[4:]))
"""


KINDS = {"process": {}, "preload": {"WORKER_PRELOAD": "true"}, "thread": {"AZMLINFSRV_WORKER_CLASS": "thread"}}


@pytest.mark.parametrize("environment", KINDS.values(), ids=KINDS)
def test_a_supervisor_that_fails_leaves_nothing_behind(start, environment):
    server = start("pid.py", "--worker_count", "2", through=(sys.executable, "-c", FAILING_SUPERVISOR), **environment)
    server.signal(signal.SIGUSR1)
    assert server.wait_for_exit() == 1
    record = server.wait_for_record("The supervisor failed. The server ends.", level="C")
    assert "ZeroDivisionError" in record.text
    assert server.wait_for_record("Stopped.")
    assert not server.members()
    assert not list(server.temporary.iterdir())


# ---- Starting


@pytest.mark.parametrize("moment", ["Loaded logging config", "Server Routes", "Listening at"])
def test_ctrl_c_during_the_start_is_quiet(start, moment):
    server = start("echo.py", ready=False)
    eventually(lambda: moment in server.stdout(), "the moment")
    server.signal(signal.SIGINT)
    assert server.wait_for_exit() in (0, -signal.SIGINT)
    assert server.complaints() == ""
