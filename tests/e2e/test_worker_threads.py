"""``--worker_threads``: calls of one worker process that run at once, and share one model."""

from __future__ import annotations

import os
import signal

import pytest
from harness import eventually, request
from metrics_text import Scrape

FOUR = ("--worker_threads", "4")
PLAIN = "import os, threading\ndef init(): pass\ndef run(data): return [os.getpid(), threading.current_thread().name]\n"


def figure(server, name):
    return Scrape(server.get("/metrics").text)[f"azmlinfsrv_{name}"]


def exists(server, name):
    return (server.folder / name).exists


def test_as_many_calls_as_threads_run_at_once_and_others_queue(start):
    server = start("threads_obey.py", *FOUR)
    asked = [server.score_later("waiting.append(1)\nreturn wait_for_file('go')") for _ in range(6)]
    eventually(lambda: figure(server, "queue_depth") == 2, "two requests are queued")
    assert figure(server, "runs_in_progress") == figure(server, "runs_limit") == 4
    (server.folder / "go").touch()
    assert [each.result().json() for each in asked] == ["go"] * 6
    [worker] = server.workers()
    said = [server.score("return [os.getpid(), len(waiting)]").json() for _ in range(4)]
    assert said == [[worker, 6]] * 4


def test_each_thread_is_known_to_python_and_has_its_own_locals(shared):
    server = shared("threads_obey.py", *FOUR)
    get = "t = threading.current_thread()\nlocal.name = t.name\nwait_for_others(4)\n"
    asked = [
        server.score_later(f"{get}return [t.name, local.name, t.daemon, hasattr(local, 'loader')]") for _ in "1234"
    ]
    names = sorted(each.result().json() for each in asked)
    assert names == [[f"azmlinfsrv-run-{number}", f"azmlinfsrv-run-{number}", True, False] for number in range(1, 5)]


def test_each_call_has_its_own_current_request_and_flask_request(start, script):
    server = start(script(RAW), *FOUR)
    connections = []
    for number in range(4):
        head = {"x-request-id": f"r{number}"}
        connections.append(server.connect().send(request("POST", f"/score?n={number}", str(number).encode(), head)))
    said = [connection.read().json() for connection in connections]
    assert said == [[str(number), str(number), f"r{number}"] for number in range(4)]
    for connection in connections:
        connection.close()


RAW = """
import time
from azureml.contrib.services.aml_request import rawhttp
from azureml_inference_server_http.api import current_request
from azureml_inference_server_http.api.aml_response import AMLResponse
from flask import g, request
waiting = []
def init(): pass
@rawhttp
def run(raw):
    g.mine = raw.get_data(as_text=True)
    waiting.append(1)
    while len(waiting) < 4:
        time.sleep(0.002)
    return AMLResponse([request.args["n"], g.mine, current_request().request_id], 200, json_str=True)
"""


# ---- Calls that end early


def test_the_scoring_timeout_interrupts_the_guilty_call_alone(start):
    server = start("threads_obey.py", *FOUR, SCORING_TIMEOUT_MS="1000")
    worker = server.workers()
    guilty = [server.score_later("spin()") for _ in range(2)]
    # Each call has its own time, so a call that begins later is not interrupted with them.
    replies = [each.result() for each in guilty]
    assert [reply.status for reply in replies] == [500, 500]
    assert replies[0].json() == {"message": "Scoring timeout after 1000 ms"}
    assert replies[0]["x-ms-run-error-location"].endswith("TimeoutError")
    assert [server.score("return 1").json() for _ in range(8)] == [1] * 8
    assert server.workers() == worker


def test_a_call_that_hangs_in_native_code_costs_its_worker_and_every_call_is_answered(start):
    server = start("threads_obey.py", *FOUR, SCORING_TIMEOUT_MS="500")
    [worker] = server.workers()
    reply = server.score("time.sleep(3600)")
    assert (reply.status, reply.json()) == (500, {"message": "Scoring timeout after 500 ms"})
    server.wait_for_workers(1, instead_of=[worker])
    assert server.score("return 1").json() == 1


def test_all_started_calls_of_a_worker_that_dies_are_answered_and_others_run_elsewhere(start):
    server = start("threads_obey.py", *FOUR)
    [worker] = server.workers()
    asked = [server.score_later(f"return wait_for_file('go{number}')") for number in range(4)]
    for number in range(4):
        eventually(exists(server, f"go{number}.started"), "run() has begun")
    later = server.score_later("return os.getpid()")
    eventually(lambda: figure(server, "queue_depth") == 1, "one request is queued")
    os.kill(worker, signal.SIGKILL)
    replies = [each.result() for each in asked]
    assert [(reply.status, reply["x-ms-run-function-failed"]) for reply in replies] == [(500, "True")] * 4
    assert "SIGKILL" in replies[0].json()["message"]
    assert later.result().json() in server.wait_for_workers(1, instead_of=[worker])


def test_a_call_that_holds_the_gil_for_ever_is_found(start):
    server = start("threads_obey.py", *FOUR, SCORING_TIMEOUT_MS="500")
    [worker] = server.workers()
    # Without the GIL, neither the other threads nor the main thread can do anything.
    reply = server.score("import ctypes\nctypes.PyDLL(None).pause()")
    assert (reply.status, reply.json()) == (500, {"message": "Scoring timeout after 500 ms"})
    server.wait_for_workers(1, instead_of=[worker])
    assert server.score("return 1").json() == 1


def test_a_fork_in_run_and_an_exit_in_run_end_only_themselves(shared):
    server = shared("threads_obey.py", *FOUR)
    source = "child = os.fork()\nif child == 0:\n    raise SystemExit(7)\nreturn os.waitpid(child, 0)[1] >> 8"
    assert server.score(source).json() == 7
    assert server.score("raise SystemExit(3)").status == 500
    assert server.score("return 1").json() == 1


# ---- Streams


def test_a_client_that_does_not_read_its_stream_holds_up_nobody(shared):
    server = shared("threads_obey.py", *FOUR)
    with server.connect() as slow:
        slow.send(request("POST", "/score", b"for n in range(400):\n    yield bytes([n % 251]) * 100_000"))
        slow.read_head_of_stream()
        assert [server.score("return 1").json() for _ in range(20)] == [1] * 20
        received = b"".join(iter(slow.next_chunk, b""))
    assert received == b"".join(bytes([n % 251]) * 100_000 for n in range(400))


def test_a_client_that_leaves_ends_its_stream(start):
    server = start("threads_obey.py", *FOUR)
    connection = server.connect()
    body = "    while True:\n        yield 'a'\n        time.sleep(0.01)"
    source = f"try:\n{body}\nfinally:\n    Path('closed').touch()".encode()
    connection.send(request("POST", "/score", source)).read_head_of_stream()
    connection.close()
    eventually(exists(server, "closed"), "the generator is closed")
    assert server.score("return 1").json() == 1


# ---- Ends of workers and fronts


def test_term_lets_all_calls_finish_and_no_other_begins(start):
    server = start("threads_obey.py", *FOUR)
    asked = [server.score_later("yield 'a'\nyield wait_for_file('go')") for _ in range(2)]
    asked += [server.score_later("wait_for_file('go')\nreturn 'ago'") for _ in range(2)]
    eventually(lambda: figure(server, "runs_in_progress") == 4, "all run")
    eventually(exists(server, "go.started"), "run() has begun")
    server.signal(signal.SIGTERM)
    server.wait_for_record("Stopping: finishing")
    (server.folder / "go").touch()
    assert [each.result().body.strip(b'"') for each in asked] == [b"ago"] * 4
    assert server.wait_for_exit() == 0


def test_a_worker_that_is_replaced_finishes_its_calls(start):
    server = start("threads_obey.py", *FOUR)
    [worker] = server.workers()
    asked = [server.score_later(f"return wait_for_file('go{number}')") for number in range(3)]
    for number in range(3):
        eventually(exists(server, f"go{number}.started"), "run() has begun")
    server.signal(signal.SIGHUP)
    eventually(lambda: server.score("return os.getpid()").json() != worker, "a new worker serves")
    for number in range(3):
        (server.folder / f"go{number}").touch()
    assert [each.result().json() for each in asked] == ["go0", "go1", "go2"]
    server.wait_for_workers(1, instead_of=[worker])


def test_a_worker_survives_its_front_and_old_replies_reach_nobody(start):
    server = start("threads_obey.py", *FOUR)
    worker = server.workers()
    connections = [server.connect().send(request("POST", "/score", b"return wait_for_file('go')")) for _ in range(2)]
    eventually(lambda: figure(server, "runs_in_progress") == 2, "both run")
    server.kill_front()
    eventually(lambda: server.score("return 1").json() == 1, "another front serves")
    asked = [server.score_later(f"wait_for_file('go')\nreturn {number}") for number in range(2)]
    eventually(lambda: figure(server, "runs_in_progress") == 2, "the threads that are free run")
    (server.folder / "go").touch()
    assert [each.result().json() for each in asked] == [0, 1]
    assert server.workers() == worker
    assert [server.score("return 1").json() for _ in range(8)] == [1] * 8
    for connection in connections:
        connection.close()


def test_a_script_that_imports_flask_late_gets_a_request_from_then_on_and_from_a_later_front(start):
    server = start("threads_obey.py", *FOUR)
    source = "from flask import has_request_context\nreturn has_request_context()"
    server.score(source)
    assert [server.score(source).json() for _ in range(8)] == [True] * 8
    server.kill_front()
    assert [server.score(source).json() for _ in range(8)] == [True] * 8


# ---- What it goes with


def test_preloaded_workers_have_threads(start, script):
    server = start(script(PLAIN), *FOUR, "--worker_count", "2", WORKER_PRELOAD="true")
    said = [server.score().json() for _ in range(20)]
    assert {pid for pid, _ in said} <= set(server.workers())
    assert all(name.startswith("azmlinfsrv-run-") for _, name in said)


def test_one_thread_is_the_main_thread(start, script):
    server = start(script(PLAIN), "--worker_threads", "1")
    assert server.score().json()[1] == "MainThread"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def init(): pass\nasync def run(data): pass\n", "run() is async, so all its calls share one thread"),
        (
            "from azureml_inference_server_http.api import batched\ndef init(): pass\n"
            "@batched(max_size=4, max_wait_ms=0)\ndef run(items): return items\n",
            "@batched",
        ),
        ("import gevent.monkey\ngevent.monkey.patch_all()\ndef init(): pass\ndef run(data): pass\n", "greenlets"),
    ],
)
def test_scripts_that_threads_cannot_serve_are_refused_at_start(start, script, text, said):
    if "gevent" in text:
        pytest.importorskip("gevent")
    server = start(script(text), *FOUR, ready=False)
    assert server.wait_for_exit() == 3
    record = server.wait_for_record(said, level="E")
    assert "--worker_threads" in record.text
    assert "Traceback" not in server.output()


def test_worker_threads_of_one_process_are_refused_at_start(start):
    server = start("echo.py", *FOUR, ready=False, AZMLINFSRV_WORKER_CLASS="thread")
    assert server.wait_for_exit() == 1
    assert "--worker_threads=4 needs --worker_class process" in server.output()
