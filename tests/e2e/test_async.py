"""Scripts with an async run(): its calls wait together, and each ends by itself. Worker processes only."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest
from harness import eventually, request

PLAIN_INIT = "import os\ndef init(): pass\nasync def run(data): return os.getpid()\n"


def reset(connection):
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close(connection):
    connection.close()


def exists(server, name):
    return (server.folder / name).exists


def test_calls_of_one_worker_wait_together(start):
    server = start("async_obey.py")
    asked = [server.score_later("return await wait_for_others(30)") for _ in range(30)]
    assert [each.result().json() for each in asked] == [30] * 30


def test_max_concurrency_is_the_limit_and_others_queue(start):
    server = start("async_obey.py", "--max_concurrency", "3")
    asked = [server.score_later("waiting.append(1)\nreturn await wait_for_file('go')") for _ in range(5)]
    eventually(lambda: server.get("/metrics").text.count("azmlinfsrv_queue_depth 2"), "two requests are queued")
    (server.folder / "go").touch()
    assert [each.result().json() for each in asked] == ["go"] * 5
    assert server.score("return len(waiting)").json() == 5


def test_tasks_of_init_live_between_calls(shared):
    server = shared("async_obey.py")
    before = server.score("return ticks").json()
    eventually(lambda: server.score("return ticks").json() > before + 3, "the task of init() runs")


def test_errors_name_their_line(shared):
    server = shared("async_obey.py")
    reply = server.score("await asyncio.sleep(0)\n1 / 0")
    assert (reply.status, reply["x-ms-run-function-failed"]) == (500, "True")
    assert reply["x-ms-run-error-location"].startswith("async_obey.py:")
    assert reply["x-ms-run-error-location"].endswith("ZeroDivisionError")
    text = server.wait_for_record("Encountered Exception", level="E").text
    assert "asyncio/" not in text.partition("async_obey.py")[0]
    assert server.score("raise SystemExit(3)").status == 500
    assert server.score("return 1").json() == 1


@pytest.mark.parametrize("leave", [reset, close], ids=["reset", "close"])
def test_a_client_that_leaves_cancels_its_call(start, leave):
    server = start("async_obey.py")
    stays = server.score_later("return await wait_for_file('other')")
    connection = server.connect().send(request("POST", "/score?left", b"return await wait_for_file('mine')"))
    eventually(exists(server, "mine.started"), "run() has begun")
    leave(connection)
    eventually(exists(server, "mine.cancelled"), "the call is cancelled")
    server.wait_for_record("POST /score?left 503", logger="azmlinfsrv")
    (server.folder / "other").touch()
    assert stays.result().json() == "other"
    assert not (server.folder / "other.cancelled").exists()


def test_the_scoring_timeout_cancels_one_call(start):
    server = start("async_obey.py", SCORING_TIMEOUT_MS="300")
    worker = server.workers()
    reply = server.score("return await wait_for_file('never')")
    assert (reply.status, reply.json()) == (500, {"message": "Scoring timeout after 300 ms"})
    assert (reply["x-ms-run-function-failed"], "TimeoutError" in reply["x-ms-run-error-location"]) == ("True", True)
    assert (server.folder / "never.cancelled").exists()
    assert server.score("return 1").json() == 1
    assert server.workers() == worker


def test_the_worker_timeout_cancels_one_call_and_keeps_the_worker(start):
    server = start("async_obey.py", WORKER_TIMEOUT="2")
    worker = server.workers()
    reply = server.score("return await wait_for_file('never')")
    assert reply.status == 500
    assert "(WORKER_TIMEOUT)" in reply.json()["message"]
    assert server.score("return 1").json() == 1
    assert server.workers() == worker


def test_a_stream_arrives_part_by_part(shared):
    server = shared("async_obey.py")
    with server.connect() as connection:
        source = b"yield 'a'\nyield await wait_for_file('part.go')\nyield b'c'"
        head = connection.send(request("POST", "/score", source)).read_head_of_stream()
        assert (head.status, head["content-type"]) == (200, "text/plain; charset=utf-8")
        assert connection.next_chunk() == b"a"
        (server.folder / "part.go").touch()
        assert connection.next_chunk() == b"part.go"
        assert connection.next_chunk() == b"c"
        assert connection.next_chunk() == b""
        assert connection.exchange("POST", "/score", b"return 1").json() == 1


def test_a_client_that_does_not_read_its_stream_holds_up_nobody(start):
    server = start("async_obey.py")
    with server.connect() as slow:
        slow.send(
            request("POST", "/score", b"for n in range(400):\n    yield bytes([n % 251]) * 100_000\n    sent = n")
        )
        slow.read_head_of_stream()
        for _ in range(20):
            assert server.score("return 1").json() == 1
        # The rest waits in the script, and not in the memory of the front.
        received = b"".join(iter(slow.next_chunk, b""))
    assert received == b"".join(bytes([n % 251]) * 100_000 for n in range(400))


def test_a_client_that_leaves_ends_its_stream(start):
    server = start("async_obey.py")
    connection = server.connect()
    body = "    while True:\n        yield 'a'\n        await asyncio.sleep(0.01)"
    source = f"try:\n{body}\nfinally:\n    Path('closed').touch()".encode()
    connection.send(request("POST", "/score", source)).read_head_of_stream()
    close(connection)
    eventually(exists(server, "closed"), "the generator is closed")
    assert server.score("return 1").json() == 1


def test_a_raw_call_has_its_own_request(shared):
    server = shared("async_raw.py")
    names = [f"n{number}" for number in range(8)]
    asked = []
    for name in names:
        connection = server.connect()
        connection.send(request("POST", f"/score?name={name}&others=8", name.upper().encode()))
        asked.append(connection)
    assert [each.read().json()["seen"] for each in asked] == [[name, name, name.upper()] for name in names]
    for each in asked:
        each.close()
    reply = server.get("/score?stream=me")
    assert (reply.status, reply["x-kind"], reply.body) == (201, "stream", b"me|GET")


def test_each_call_and_stream_has_its_own_current_request(shared):
    server = shared("async_obey.py")
    get = "from azureml_inference_server_http.api import current_request\nawait asyncio.sleep(0.05)\n"
    asked = []
    for number in range(6):
        say = "yield" if number % 2 else "return"
        source = f"{get}{say} current_request().request_id"
        asked.append(server.score_later(source, **{"x-request-id": f"r{number}"}))
    assert [each.result().body.strip(b'"') for each in asked] == [f"r{number}".encode() for number in range(6)]
    assert server.score(f"{get}return await asyncio.to_thread(lambda: current_request() is not None)").json() is True


def test_a_blocked_loop_is_told_with_its_stack(start):
    server = start("async_obey.py")
    assert server.score("time.sleep(8)\nreturn 1").json() == 1
    record = server.wait_for_record("The event loop has been blocked", level="W")
    assert "in body" in record.text
    server.wait_for_record("The event loop runs again", level="W")


def test_term_lets_calls_finish_and_ends_tasks(start):
    server = start("async_obey.py")
    asked = server.score_later("return await wait_for_file('go')")
    eventually(exists(server, "go.started"), "run() has begun")
    server.signal(signal.SIGTERM)
    server.wait_for_record("Stopping: finishing")
    (server.folder / "go").touch()
    assert asked.result().json() == "go"
    assert server.wait_for_exit() == 0
    assert (server.folder / "ticker.ended").exists()


def test_a_worker_that_is_replaced_finishes_its_calls(start):
    server = start("async_obey.py")
    [worker] = server.workers()
    asked = server.score_later("return await wait_for_file('go')")
    eventually(exists(server, "go.started"), "run() has begun")
    server.signal(signal.SIGHUP)
    server.wait_for_record("ready for serving traffic")
    eventually(lambda: server.score("return __import__('os').getpid()").json() != worker, "a new worker serves")
    (server.folder / "go").touch()
    assert asked.result().json() == "go"
    server.wait_for_workers(1, instead_of=[worker])


def test_all_calls_of_a_worker_that_dies_are_answered(start):
    server = start("async_obey.py")
    asked = [server.score_later(f"return await wait_for_file('go{number}')") for number in range(4)]
    for number in range(4):
        eventually(exists(server, f"go{number}.started"), "run() has begun")
    os.kill(server.workers()[0], signal.SIGKILL)
    assert [each.result().status for each in asked] == [500] * 4
    assert server.score("return 1").json() == 1


def test_calls_of_a_front_that_dies_are_cancelled(start):
    server = start("async_obey.py")
    worker = server.workers()
    connection = server.connect().send(request("POST", "/score", b"return await wait_for_file('go')"))
    eventually(exists(server, "go.started"), "run() has begun")
    server.kill_front()
    eventually(exists(server, "go.cancelled"), "the call is cancelled")
    assert server.score("return 1").json() == 1
    assert server.workers() == worker
    connection.close()


def test_preload_forks_workers_with_loops_of_their_own(start, script):
    server = start(script(PLAIN_INIT), "--worker_count", "2", WORKER_PRELOAD="true")
    answers = {server.score().json() for _ in range(20)}
    assert answers <= set(server.workers())


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        (PLAIN_INIT, {"AZMLINFSRV_WORKER_CLASS": "thread"}, "run() is async, which needs worker processes"),
        ("async def init(): pass\ndef run(data): pass\n", {"WORKER_PRELOAD": "true"}, "init() is async, and with"),
    ],
)
def test_what_does_not_work_is_refused_at_start(start, script, text, more, said):
    server = start(script(text), ready=False, **more)
    assert server.wait_for_exit() == 3
    assert said in server.output()
