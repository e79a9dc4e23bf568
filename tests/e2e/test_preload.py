"""WORKER_PRELOAD: the script runs in the supervisor itself, which must stay what it is whatever that does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from harness import eventually, is_running

SERVES = "\ndef run(data): return os.getpid()\n"


@pytest.fixture
def preload(start, tmp_path):
    """``preload("body of init()")``: a server whose supervisor has run that."""

    def begin(init, *options, **more):
        script = tmp_path / "score.py"
        body = "".join(f"    {line}\n" for line in init.splitlines())
        script.write_text(f"import os, signal, subprocess, sys, threading, time\ndef init():\n{body}{SERVES}")
        return start(str(script), *options, WORKER_PRELOAD="true", **more)

    return begin


def waits(server, name="waiting"):
    eventually((server.folder / name).exists, "init() runs")


def listeners(pid, port):
    """Whether this process holds the listening socket of ``port``."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port}
    held = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    return [inode for inode in inodes if f"socket:[{inode}]" in held]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("wait", ["time.sleep(60)", "threading.Event().wait()"])
def test_a_signal_ends_a_long_init(preload, number, wait):
    # A script that catches everything does not hold it up.
    server = preload(f"open('waiting', 'w')\ntry: {wait}\nexcept BaseException: time.sleep(60)", ready=False)
    waits(server)
    server.signal(number)
    assert server.wait_for_exit() == 0
    assert server.wait_for_record("Stopped.")
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_does_not_end_what_init_waits_for_is_heard(preload, number):
    # It goes to the thread that has not blocked it, as one that arrives just before a wait goes unnoticed by that.
    server = preload(
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
        "open('waiting', 'w')\ntime.sleep(60)",
        ready=False,
    )
    waits(server)
    server.signal(number)
    assert server.wait_for_exit() == 0
    assert server.wait_for_record("Stopped.")


def test_a_signal_is_heard_after_asyncio_has_had_them(preload):
    # Its loop leaves Python without a descriptor for their numbers.
    server = preload(
        "import asyncio\n"
        "async def use(): asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)\n"
        "asyncio.run(use())\nopen('waiting', 'w')\ntime.sleep(60)",
        ready=False,
    )
    waits(server)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_signals_that_init_blocks_are_heard_when_it_has_ended(preload):
    server = preload("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])")
    (worker,) = server.wait_for_workers(1)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: server.workers() not in ([], [worker]), "the worker is replaced")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_a_front_that_dies_during_init_is_replaced(preload):
    server = preload("open('waiting', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)", ready=False)
    waits(server)
    front = server.front()
    os.kill(front, signal.SIGKILL)
    eventually(lambda: not is_running(front), "the front is dead")
    assert server.get("/livez").status == 200
    assert server.front() != front
    (server.folder / "go").touch()
    assert server.score().json() in server.wait_for_workers(1)


def test_init_sees_the_exit_codes_of_its_own_children(preload):
    server = preload("assert subprocess.call([sys.executable, '-c', 'exit(7)']) == 7")
    assert server.score().status == 200


def test_signals_that_can_wait_are_obeyed_after_init(preload):
    server = preload("open('waiting', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)", ready=False)
    waits(server)
    server.signal(signal.SIGTTIN)
    (server.folder / "go").touch()
    server.wait_for_workers(2)


def test_a_thread_that_init_leaves_does_not_keep_the_command(preload):
    server = preload("threading.Thread(target=threading.Event().wait, name='left').start()", "--graceful_timeout", "1")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_a_thread_that_a_failing_init_leaves_does_not_keep_the_command(preload):
    init = "threading.Thread(target=threading.Event().wait).start()\n1 / 0"
    server = preload(init, "--worker_count", "2", ready=False)
    assert server.wait_for_exit() == 3
    # Once, not for each worker.
    assert server.stdout().count("\nZeroDivisionError") == 1


@pytest.mark.parametrize("child", ["pass", "sys.exit(0)", "1 / 0"])
def test_a_child_that_returns_from_init_is_no_second_supervisor(preload, child):
    server = preload(
        f"if os.fork() == 0: {child}\n"
        "else:\n    _, status = os.wait()\n    assert os.WIFEXITED(status)\n    open('reaped', 'w')"
    )
    assert (server.folder / "reaped").exists()
    assert server.score().json() in server.wait_for_workers(1)
    assert len(server.members()) == 3


def test_a_child_of_init_neither_holds_the_port_nor_hears_for_the_supervisor(preload):
    server = preload(
        "child = os.fork()\nif child == 0:\n    time.sleep(60)\nopen('child', 'w').write(str(child))\n"
        "program = subprocess.Popen(['sleep', '60'])\nopen('program', 'w').write(str(program.pid))"
    )
    worker = server.score().json()
    children = [int((server.folder / name).read_text()) for name in ("child", "program")]
    assert listeners(server.pid, server.port)
    assert not any(listeners(child, server.port) for child in (*children, worker))
    for child in children:
        os.kill(child, signal.SIGTERM)
        eventually(lambda child=child: not is_running(child), "TERM ends the child")
    assert server.score().json() == worker
    assert not server.records(level="E")


def test_a_supervisor_that_the_script_ends_leaves_nothing_behind(preload):
    server = preload("os._exit(7)", ready=False)
    assert server.wait_for_exit() == 7
    eventually(lambda: not server.members(), "the front has ended")
    assert not list(server.temporary.iterdir())


def test_hup_says_that_the_script_is_not_loaded_again(preload):
    server = preload("pass")
    (old,) = server.wait_for_workers(1)
    server.signal(signal.SIGHUP)
    assert "restart the command" in server.wait_for_record("WORKER_PRELOAD", level="W").message
    server.wait_for_record("All workers have been replaced.")
    assert server.score().json() != old


def test_a_killed_supervisor_takes_preloaded_workers_along(preload):
    server = preload("pass", "--worker_count", "2")
    server.wait_for_workers(2)
    members = server.members()
    assert len(members) == 4
    server.signal(signal.SIGKILL)
    eventually(lambda: not any(map(is_running, members)), "all processes are gone")
    assert not list(server.temporary.iterdir())
