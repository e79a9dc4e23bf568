"""What a script does at the end of its process: its handler for SIGTERM, threads that still work,
``atexit``."""

from __future__ import annotations

import os
import signal

import pytest
from harness import eventually, is_running

# Seconds that the script's cleanup takes here. Before, it got a third of that, whatever
# --graceful_timeout was.
LONG = 4

SCRIPT = """
import atexit, concurrent.futures, os, signal, sys, threading, time

def note(text):
    with open("notes", "a") as notes:
        notes.write(f"{os.getpid()} {text}\\n")

def work(seconds, text):
    time.sleep(seconds)
    note(text)

def handle(text, then=None):
    def handler(number, frame):
        note(text)
        if then: then()
    signal.signal(signal.SIGTERM, handler)

def run(data):
    return eval(data) if data else os.getpid()
"""


@pytest.fixture
def serve(start, tmp_path):
    """``serve("statements of init()")``: a ready server. ``notes(server)`` returns the notes of its
    script."""

    def begin(init, *options, **more):
        script = tmp_path / "score.py"
        script.write_text(f"{SCRIPT}\ndef init():\n    {init}\n")
        return start(str(script), *options, **more)

    return begin


def notes(server, pid=None):
    """The notes of the script, or of one process of it, without the pid."""
    path = server.folder / "notes"
    lines = [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []
    return [text for by, text in lines if pid in (None, int(by))]


# ---- Threads, executors and handlers of atexit


@pytest.mark.any_worker_class
@pytest.mark.parametrize(
    "work",
    [
        f"threading.Thread(target=work, args=({LONG}, 'done')).start()",
        f"concurrent.futures.ThreadPoolExecutor(1).submit(work, {LONG}, 'done') and None",
        f"atexit.register(work, {LONG}, 'done') and None",
    ],
    ids=["thread", "executor", "atexit"],
)
def test_work_of_the_script_is_finished_after_term(serve, work):
    server = serve("pass")
    assert server.score(work).status == 200
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert notes(server) == ["done"]
    assert not server.records(level="W")


@pytest.mark.parametrize("how", ["HUP", "a TERM to the worker", "--max_requests"])
def test_work_of_a_worker_that_is_replaced_is_finished_while_its_successor_serves(serve, how):
    server = serve("pass", *(["--max_requests", "1"] if how == "--max_requests" else []))
    (old,) = server.wait_for_workers(1)
    # The script's cleanup ends when the file exists, which the test makes after the successor has
    # served.
    waits = "while not os.path.exists('go'): time.sleep(0.01)"
    assert server.score(f"threading.Thread(target=lambda: exec({waits!r}) or note('done')).start()").status == 200
    if how == "HUP":
        server.signal(signal.SIGHUP)
    elif how == "a TERM to the worker":
        os.kill(old, signal.SIGTERM)
    eventually(lambda: len(server.ready_pids()) > 1, "a successor is ready")
    eventually(lambda: server.score().json() != old, "the successor serves")
    assert is_running(old)
    (server.folder / "go").touch()
    eventually(lambda: not is_running(old), "the old worker has ended")
    assert notes(server, old) == ["done"]


@pytest.mark.any_worker_class
@pytest.mark.parametrize(
    ("work", "undone"),
    [
        ("threading.Thread(target=time.sleep, args=(60,), name='sleeper').start()", "threads sleeper"),
        ("atexit.register(time.sleep, 60)", "a handler of atexit"),
        ("handle('began', lambda: time.sleep(60))", "its handler for SIGTERM"),
    ],
    ids=["thread", "atexit", "handler"],
)
def test_what_is_not_done_within_the_graceful_timeout_is_told(serve, work, undone):
    server = serve(work, "--graceful_timeout", "1")
    server.wait_for_workers(1)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    (record,) = [record for record in server.records(level="W") if "Left undone" in record.message]
    assert record.message.endswith(f"Left undone: {undone}.")


@pytest.mark.any_worker_class
def test_int_does_not_wait_for_the_work_of_the_script(serve):
    server = serve("threading.Thread(target=time.sleep, args=(60,), name='sleeper').start()")
    server.wait_for_workers(1)
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGINT)
    assert server.wait_for_exit() == 0
    assert not server.members()


def test_int_ends_a_clean_up(serve):
    server = serve("threading.Thread(target=time.sleep, args=(60,), name='sleeper').start()")
    front = server.front()
    server.wait_for_workers(1)
    server.signal(signal.SIGTERM)
    eventually(lambda: not is_running(front), "the front has ended")
    server.signal(signal.SIGINT)
    assert server.wait_for_exit() == 0


def test_work_of_a_preloaded_script_is_finished(serve):
    work = f"atexit.register(work, {LONG}, 'done')"
    server = serve(work, WORKER_PRELOAD="true")
    server.wait_for_workers(1)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    # The script is loaded in the template and inherited by the worker.
    assert notes(server) == ["done"] * 2


# ---- The handler for SIGTERM


THEN = {"returns": "None", "exits": "sys.exit(9)", "raises": "1 / 0", "exits at once": "os._exit(0)"}


@pytest.mark.any_worker_class
@pytest.mark.parametrize("then", THEN.values(), ids=THEN)
def test_the_handler_for_term_is_called_once_after_the_last_request(serve, then):
    server = serve(f"handle('handled', lambda: {then})")
    server.wait_for_workers(1)
    reply = server.score_later("note('begins') or time.sleep(0.5) or note('ends')")
    eventually(lambda: notes(server), "the request runs")
    server.signal(signal.SIGTERM)
    assert reply.result().status == 200
    assert server.wait_for_exit() == 0
    assert notes(server) == ["begins", "ends", "handled"]
    failures = [record.text for record in server.records(level="E")]
    assert ["ZeroDivisionError" in text for text in failures] == ([True] if then == THEN["raises"] else [])


@pytest.mark.parametrize("how", ["HUP", "a TERM to the worker", "a TERM to both"])
def test_the_handler_for_term_is_called_when_a_worker_is_told_to_go(serve, how):
    server = serve("handle('handled')")
    (old,) = server.wait_for_workers(1)
    reply = server.score_later("note('begins') or time.sleep(0.5) or note('ends') or os.getpid()")
    eventually(lambda: notes(server), "the request runs")
    if how != "HUP":
        os.kill(old, signal.SIGTERM)
    if how != "a TERM to the worker":
        server.signal(signal.SIGHUP if how == "HUP" else signal.SIGTERM)
    assert reply.result().json() == old
    eventually(lambda: not is_running(old), "the old worker has ended")
    assert notes(server, old) == ["begins", "ends", "handled"]


def test_a_handler_that_run_sets_is_called(serve):
    server = serve("handle('of init')")
    assert server.score("handle('of run')").status == 200
    assert server.score().status == 200
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert notes(server) == ["of run"]


def test_a_handler_of_a_preloaded_script_is_called_in_its_worker(serve):
    server = serve("handle('handled')", WORKER_PRELOAD="true")
    (worker,) = server.wait_for_workers(1)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert notes(server) == notes(server, worker) == ["handled"]


@pytest.mark.any_worker_class
def test_int_does_not_call_the_handler_for_term(serve):
    server = serve("handle('handled')")
    server.wait_for_workers(1)
    server.signal(signal.SIGINT)
    assert server.wait_for_exit() == 0
    assert notes(server) == []


# ---- Scripts that break


@pytest.mark.parametrize("how", ["HUP", "--max_requests"])
def test_a_script_that_is_broken_now_is_told_and_the_old_code_serves(start, tmp_path, how):
    script = tmp_path / "score.py"
    script.write_text("import os\ndef init(): pass\ndef run(data): return os.getpid()\n")
    options = ["--max_requests", "1"] if how == "--max_requests" else []
    server = start(str(script), "--worker_count", "2", *options)
    old = server.wait_for_workers(2)
    script.write_text("def init():\n    1 / 0\ndef run(data): pass\n")
    if how == "HUP":
        server.signal(signal.SIGHUP)
    assert server.score().json() in old
    text = server.wait_for_record("2 workers go on serving with the code loaded before.", level="E").message
    assert "exited with code 3" in text
    assert ("then send HUP again." if how == "HUP" else "The next attempt to replace Worker (pid:") in text
    # The cause was logged before.
    assert any("ZeroDivisionError" in record.text for record in server.records(level="E"))
    assert server.get("/readyz").status == 200
    assert server.score().json() in old
    assert server.wait_for_workers(2) == old
