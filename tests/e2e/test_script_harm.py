"""What a script can do to its process, and that only its own request pays for it (contract section
16).

Each deed is sent to ``obey.py`` while another request waits behind it; that one is always answered.
What happens when workers die of something else is in ``test_processes.py``.
"""

from __future__ import annotations

import os
import signal

import pytest
from harness import request

SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."
# Leaves enough address space for Python itself.
LIMIT = "import resource; used = int(open('/proc/self/statm').read().split()[0]) * 4096; " + (
    "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))\n"
)


def do(server, statements):
    """Have run() execute these statements while another request waits. Checks the other answer and
    returns this one."""
    with server.connect() as culprit, server.connect() as bystander:
        culprit.send(request("POST", "/score", statements.encode()))
        bystander.send(request("POST", "/score", b"answer = 'not harmed'"))
        response = culprit.read()
        assert bystander.read().json() == "not harmed"
        # No connection was closed either.
        for connection in (culprit, bystander):
            assert connection.exchange("POST", "/score", b"answer = 'later'").json() == "later"
    assert server.get("/").status == 200
    return response


# ---- Deeds that end the worker


@pytest.mark.parametrize(
    ("statements", "cause"),
    [
        ("import ctypes; ctypes.string_at(0)", "was killed by signal 11 (SIGSEGV)"),
        ("os.abort()", "was killed by signal 6 (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9 (SIGKILL)"),
        ("os._exit(5)", "exited with code 5"),
        ("os._exit(0)", "exited with code 0"),
        ("import subprocess; subprocess.Popen(['sleep', '0.1']); os._exit(6)", "exited with code 6"),
        ("import threading; threading.Thread(target=os._exit, args=[7]).start(); time.sleep(60)", "exited with code 7"),
        ("os.execv('/bin/false', ['false'])", "exited with code 1"),
        ("signal.setitimer(signal.ITIMER_PROF, 0.01)\nwhile True: pass", "was killed by signal 27 (SIGPROF)"),
        ("signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.write(os.pipe()[1:][0], b'')\nos._exit(8)", "with code 8"),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
            "was killed by signal 9 (SIGKILL)",
        ),
        ("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
         "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('file', 'w').write('x')", "was killed by signal 25"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_a_dead_worker_is_named_and_replaced(shared, statements, cause):
    server = shared("obey.py")
    # The worker of the test before may just have died.
    before = server.wait_for_workers(1)
    response = do(server, statements)
    assert response.status == 500
    assert cause in response.json()["message"]
    assert response["x-ms-run-function-failed"] == "True"
    server.wait_for_workers(1, instead_of=before)
    (death,) = [record for record in server.records(level="E") if f"(pid:{before[0]}) " in record.message] or [None]
    if cause != "exited with code 0":
        assert cause in death.message


def test_a_worker_that_runs_out_of_memory_beyond_python_is_replaced(shared):
    """If an allocation outside of Python fails, the process ends. The log must have a reason for
    it."""
    server = shared("obey.py")
    tight = LIMIT.replace("(100 << 20)", "(1 << 20)")
    response = do(server, f"{tight}answer = 'x' * (200 << 20)")
    assert response.status == 500
    assert response.json()["message"]


# ---- Deeds that do not


@pytest.mark.parametrize(
    "statements",
    [
        "sys.exit(4)",
        "sys.exit()",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "bytearray(1 << 60)",
        f"{LIMIT}pieces = [bytearray(1 << 20) for _ in range(1000)]",
        "def deeper(): deeper()\ndeeper()",
        "signal.raise_signal(signal.SIGINT); raise OSError",
    ],
    ids=lambda value: value[-40:],
)
def test_what_python_can_catch_is_a_script_error(shared, statements):
    server = shared("obey.py")
    before = server.wait_for_workers(1)
    response = do(server, statements)
    assert (response.status, response.json()) == (500, {"message": SCRIPT_ERROR})
    assert server.wait_for_workers(1) == before


@pytest.mark.parametrize(
    "statements",
    [
        "os.chdir('/')",
        "os.umask(0o777)",
        "import locale; locale.setlocale(locale.LC_ALL, 'C')",
        "os.environ.clear()",
        "sys.stdin.read()",
        "os.read(0, 10)",
        "print('x')",
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stdout = sys.stderr = sys.stdin = None; print('x')",
        "for number in range(3): os.close(number)",
        "for number in range(3): os.close(number)\nfor number in range(10): os.open('/dev/null', os.O_RDWR)",
        "import subprocess; subprocess.run(['true'], check=True)",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=int); p.start(); p.join()",
        "pid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)",
        "pid = os.fork()\nif not pid: os.execv('/bin/true', ['true'])\nos.waitpid(pid, 0)",
        "pid = os.fork()\nif not pid: sys.exit(3)\nos.waitpid(pid, 0)",
        "import threading; threading.Thread(target=time.sleep, args=(0.2,)).start()",
        "import threading; threading.Thread(target=int, args=('x',)).start()",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)",
        "import logging; logging.disable(); logging.shutdown(); logging.getLogger().handlers.clear()",
        "sys.setrecursionlimit(200)",
        "import gc; gc.disable(); sys.setswitchinterval(10)",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))",
    ],
    ids=lambda value: value[-60:],
)  # fmt: skip
def test_what_a_script_changes_stays_in_its_process(start, statements):
    server = start("obey.py")
    response = do(server, statements)
    # The script may succeed or fail, but the request must be answered.
    assert response.status in (200, 500)
    before = server.wait_for_workers(1)
    # Neither the next worker nor the command is affected: HUP and TERM work.
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, instead_of=before)
    assert server.score("answer = [os.getcwd(), os.umask(0o22)]").json() == [str(server.folder), 0o22]
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_a_script_that_closes_all_files_loses_its_connection_only(start):
    server = start("obey.py")
    for statements in ("os.closerange(0, 21)", "os.closerange(3, 1000)"):
        response = do(server, statements)
        assert response.status == 500
        assert "The worker process running this request" in response.json()["message"]
    assert os.path.exists(f"/proc/{server.pid}")
