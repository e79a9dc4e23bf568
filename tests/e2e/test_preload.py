"""WORKER_PRELOAD: a template process loads the script once and forks the workers; the supervisor
never runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from harness import eventually, is_running
from metrics_text import Scrape

SERVES = "\ndef run(data): return os.getpid()\n"


@pytest.fixture
def preload(start, tmp_path):
    """``preload("body of init()")``: a server whose template has run this init()."""

    def begin(init, *options, **more):
        script = tmp_path / "score.py"
        body = "".join(f"    {line}\n" for line in init.splitlines())
        script.write_text(f"import os, signal, subprocess, sys, threading, time\ndef init():\n{body}{SERVES}")
        return start(str(script), *options, WORKER_PRELOAD="true", **more)

    return begin


def waits(server, name="waiting"):
    eventually((server.folder / name).exists, "init() runs")


def listeners(pid, port):
    """True if this process holds the listening socket of ``port``."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port}
    held = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    return [inode for inode in inodes if f"socket:[{inode}]" in held]


@pytest.mark.parametrize("harm", ["sys.stdout.close()", "sys.stdout = sys.stderr = None"])
def test_an_init_that_takes_the_standard_streams_away_still_has_workers(preload, harm):
    server = preload(harm)
    (worker,) = server.wait_for_workers(1)
    (template,) = server.templates()
    os.kill(worker, signal.SIGKILL)
    (successor,) = server.wait_for_workers(1, instead_of=[worker])
    assert server.score("x").json() == successor
    assert server.templates() == [template]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("wait", ["time.sleep(60)", "threading.Event().wait()"])
def test_a_signal_ends_a_long_init(preload, number, wait):
    # A script that catches every exception must not delay the end.
    server = preload(f"open('waiting', 'w')\ntry: {wait}\nexcept BaseException: time.sleep(60)", ready=False)
    waits(server)
    server.signal(number)
    assert server.wait_for_exit() == 0
    assert server.wait_for_record("Stopped.")
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_does_not_end_what_init_waits_for_is_heard(preload, number):
    # The signal is handled in the thread that has not blocked it, because a signal that arrives
    # just before the other thread waits does not wake that thread.
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
    # An asyncio loop in init() has removed Python's wake-up descriptor.
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
    server.wait_for_workers(1, instead_of=[worker])
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_a_front_that_dies_during_init_is_replaced(preload):
    server = preload("open('waiting', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)", ready=False)
    waits(server)
    front = server.kill_front()
    assert server.get("/livez").status == 200
    assert server.front() != front
    (server.folder / "go").touch()
    assert server.score().json() in server.wait_for_workers(1)


def test_init_sees_the_exit_codes_of_its_own_children(preload):
    server = preload("assert subprocess.call([sys.executable, '-c', 'exit(7)']) == 7")
    assert server.score().status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_though_init_keeps_the_interpreter(preload, number):
    # init() is in native code that keeps the GIL, so no Python signal handler can run before it
    # returns.
    server = preload("import ctypes\nopen('waiting', 'w')\nctypes.PyDLL(None).sleep(60)", ready=False)
    waits(server)
    server.signal(number)
    assert server.wait_for_exit() == 0


def test_more_workers_may_be_ordered_during_init(preload):
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
    # The traceback appears once and not for each worker.
    assert server.stdout().count("\nZeroDivisionError") == 1


@pytest.mark.parametrize("child", ["pass", "sys.exit(0)", "1 / 0"])
def test_a_child_that_returns_from_init_is_no_second_supervisor(preload, child):
    server = preload(
        f"if os.fork() == 0: {child}\n"
        "else:\n    _, status = os.wait()\n    assert os.WIFEXITED(status)\n    open('reaped', 'w')"
    )
    assert (server.folder / "reaped").exists()
    assert server.score().json() in server.wait_for_workers(1)
    # The command, the front, the template and the worker.
    assert len(server.members()) == 4


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


def test_a_script_that_ends_its_process_cannot_start(preload):
    server = preload("os._exit(7)", ready=False)
    assert server.wait_for_exit() == 3
    (record,) = server.records(level="C")
    assert "in a row died before they were ready, the last one exited with code 7" in record.message
    assert not server.members()
    assert not list(server.temporary.iterdir())


def test_a_killed_supervisor_takes_preloaded_workers_along(preload):
    server = preload("pass", "--worker_count", "2")
    server.wait_for_workers(2)
    members = server.members()
    assert len(members) == 5
    server.signal(signal.SIGKILL)
    eventually(lambda: not any(map(is_running, members)), "all processes are gone")
    assert not list(server.temporary.iterdir())


# ---- Who does what


def test_the_script_runs_in_the_template_and_its_forks_alone(preload):
    server = preload("open('who', 'a').write(f'{os.getpid()} {os.getppid()}\\n')", "--worker_count", "2")
    workers = server.wait_for_workers(2)
    (template,) = server.templates()
    assert (server.folder / "who").read_text() == f"{template} {server.pid}\n"
    assert {server.score().json() for _ in range(20)} <= set(workers)
    # A process that loads the script has its file, or the packages that it imports, open or mapped.
    script_logger = {record.pid for record in server.records(logger="azmlinfsrv.user_script")}
    assert script_logger == {template}


def test_workers_are_children_of_the_supervisor(preload):
    server = preload("pass")
    (worker,) = server.wait_for_workers(1)
    os.kill(worker, signal.SIGSTOP)
    server.wait_for_record(f"Worker (pid:{worker}) was stopped by signal 19 (SIGSTOP)", level="W")
    os.kill(worker, signal.SIGCONT)
    server.wait_for_record(f"Worker (pid:{worker}) was continued")
    os.kill(worker, signal.SIGSEGV)
    server.wait_for_record(f"Worker (pid:{worker}) was killed by signal 11 (SIGSEGV)", level="E")
    server.wait_for_workers(1, instead_of=[worker])


def test_the_processes_have_names(preload):
    server = preload("pass", "--worker_count", "2")
    server.wait_for_workers(2)
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in server.members()}
    assert names == {"azmlinfsrv", "azml:front", "azml:template", "azml:worker-1", "azml:worker-2"}
    (template,) = server.templates()
    assert Path(f"/proc/{template}/cmdline").read_bytes().startswith(b"azmlinfsrv: template --port")


def test_workers_have_different_random_numbers(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import os, random, time\ndef init(): random.seed(1)\n"
        "def run(data):\n    time.sleep(0.2)\n    return [os.getpid(), random.random()]\n"
    )
    server = start(str(script), "--worker_count", "2", WORKER_PRELOAD="true")
    server.wait_for_workers(2)
    answers = [server.score_later() for _ in range(2)]
    (one, first), (two, second) = (answer.result().json() for answer in answers)
    assert one != two
    assert first != second


def test_what_the_script_registers_for_its_end_is_done_once_in_each_of_its_processes(preload):
    server = preload(
        "import atexit\natexit.register(lambda: open('ends', 'a').write(f'{os.getpid()}\\n'))", "--worker_count", "2"
    )
    expected = {*server.wait_for_workers(2), *server.templates()}
    # A worker that is not connected yet has served nothing, and its end is not waited for long.
    ready = {"state": "ready"}
    eventually(
        lambda: Scrape(server.get("/metrics").text).sum("azmlinfsrv_workers", **ready) == 2, "both are connected"
    )
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    ends = list(map(int, (server.folder / "ends").read_text().split()))
    assert sorted(ends) == sorted(expected)


def test_max_requests_forks_from_the_same_template(preload):
    server = preload("open('inits', 'a').write('i')", "--max_requests", "1")
    (template,) = server.templates()
    seen = set()
    eventually(lambda: seen.add(server.score().json()) or len(seen) > 2, "workers are replaced twice")
    assert server.templates() == [template]
    assert (server.folder / "inits").read_text() == "i"


def test_without_help_of_the_system_each_worker_loads_the_script(start):
    without = (
        "import sys; from azureml_inference_server_http import _core; "
        "from azureml_inference_server_http.launch import cli; "
        "_core.adopt_orphans = lambda: False; sys.exit(cli.main(sys.argv[4:]))"
    )
    server = start("wait.py", "--worker_count", "2", through=(sys.executable, "-c", without), WORKER_PRELOAD="true")
    workers = server.wait_for_workers(2)
    assert server.templates() == []
    assert sorted(map(int, (server.folder / "inits").read_text().split())) == sorted(workers)
    server.wait_for_record(
        "WORKER_PRELOAD has no effect on this system: each worker loads the script itself.", level="W"
    )


# ---- The template dies


def test_a_killed_template_is_replaced_when_a_worker_is_needed(preload):
    server = preload("open('inits', 'a').write('i')", "--worker_count", "2")
    workers = server.wait_for_workers(2)
    (template,) = server.templates()
    os.kill(template, signal.SIGKILL)
    server.wait_for_record(f"The template process (pid:{template}) was killed by signal 9 (SIGKILL)", level="E")
    assert server.score().json() in workers
    assert server.wait_for_workers(2) == workers
    assert server.templates() == []
    os.kill(workers[0], signal.SIGKILL)
    eventually(lambda: server.templates() not in ([], [template]), "another template")
    assert workers[1] in server.wait_for_workers(2, instead_of=[workers[0]])
    assert (server.folder / "inits").read_text() == "ii"


def test_a_template_that_is_killed_at_work_loses_no_worker(preload):
    # The template is killed at a random moment: while it forks, or while it reports.
    server = preload("pass", "--worker_count", "3")
    workers = server.wait_for_workers(3)
    for _ in range(5):
        os.kill(workers[0], signal.SIGKILL)
        for template in server.templates():
            with contextlib.suppress(ProcessLookupError):
                os.kill(template, signal.SIGKILL)
        workers = server.wait_for_workers(3, instead_of=[workers[0]])
    assert {server.score().json() for _ in range(20)} <= set(workers)
    assert len(server.members()) <= 6


# ---- HUP


VERSION = "import os\nmodel = None\ndef init():\n    global model\n    model = open({model!r}).read()\n"
VERSION += "def run(data): return [{code}, model, os.getpid()]\n"


@pytest.fixture
def versions(start, tmp_path):
    """A server with a model in a file; and a function that writes the script with a number, and the
    model."""
    script, model = tmp_path / "score.py", tmp_path / "model"

    def write(code, content):
        model.write_text(content)
        script.write_text(VERSION.format(model=str(model), code=code))

    write(1, "old")
    return start(str(script), "--worker_count", "2", WORKER_PRELOAD="true"), write


def test_hup_serves_new_code_and_a_new_model_and_loses_no_request(versions):
    server, write = versions
    before = set(server.wait_for_workers(2))
    (old_template,) = server.templates()
    with server.under_load() as answers:
        eventually(lambda: len(answers) > 20, "requests before it")
        write(2, "new")
        server.signal(signal.SIGHUP)
        server.wait_for_record("The new workers serve. An old worker exits when it has finished its requests.")
        eventually(lambda: not any(map(is_running, (*before, old_template))), "the old processes are gone")
        seen = len(answers)
        eventually(lambda: len(answers) > seen + 20, "requests after the replacement")
    assert {answer.status for answer in answers} == {200}
    served = [answer.json() for answer in answers]
    assert {tuple(answer[:2]) for answer in served} == {(1, "old"), (2, "new")}
    after = set(server.wait_for_workers(2))
    assert {answer[2] for answer in served if answer[0] == 1} <= before
    assert {answer[2] for answer in served[seen + 4 :]} <= after
    assert len(server.templates()) == 1
    assert not server.records(level="E")


@pytest.mark.parametrize("broken", ["1 / 0\n", "import os\ndef init(): os.kill(os.getpid(), 9)\ndef run(data): 0\n"])
def test_hup_keeps_template_and_workers_if_the_new_script_is_broken(versions, tmp_path, broken):
    server, write = versions
    workers, templates = server.wait_for_workers(2), server.templates()
    (tmp_path / "score.py").write_text(broken)
    server.signal(signal.SIGHUP)
    record = server.wait_for_record("2 workers go on serving with the code loaded before.", level="E")
    assert record.message.startswith("The new template process (pid:")
    assert (server.wait_for_workers(2), server.templates()) == (workers, templates)
    assert server.score().json()[:2] == [1, "old"]
    # Workers that die meanwhile have the old code as well.
    os.kill(workers[0], signal.SIGKILL)
    server.wait_for_workers(2, instead_of=[workers[0]])
    assert {tuple(server.score().json()[:2]) for _ in range(20)} == {(1, "old")}
    write(3, "newer")
    server.signal(signal.SIGHUP)
    server.wait_for_record("The new workers serve. An old worker exits when it has finished its requests.")
    assert server.score().json()[:2] == [3, "newer"]


def test_hup_while_the_script_loads_loads_it_again(preload):
    server = preload(
        "open('inits', 'a').write('i')\nopen('waiting', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)",
        ready=False,
    )
    waits(server)
    (first,) = server.templates()
    server.signal(signal.SIGHUP)
    eventually(lambda: not is_running(first), "the first template is gone")
    (server.folder / "go").touch()
    assert server.wait_until_ready().score().json() in server.wait_for_workers(1)
    assert (server.folder / "inits").read_text() == "ii"
    assert not server.records(level="E")
