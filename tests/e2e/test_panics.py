"""What a panic in the Rust core costs: a connection, a worker's session or the front, and nothing beside it.

The tests inject panics (``src/fault_injection.rs``), so they need a build with debug assertions.
"""

from __future__ import annotations

import mmap
import re
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from harness import eventually, request
from receiver import Receiver

from azureml_inference_server_http import _core


def has_injection() -> bool:
    with Path(_core.__file__).open("rb") as library, mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"INJECT_PANICS") >= 0


pytestmark = [
    pytest.mark.any_worker_class,
    pytest.mark.skipif(not has_injection(), reason="a release build has no fault injection"),
]


@pytest.fixture
def serve(start, tmp_path):
    """``serve("echo.py")``: a server that panics where ``inject`` says."""
    folder = tmp_path / "panics"
    folder.mkdir()
    return lambda script, *options, **more: start(
        script, *options, **{"AZMLINFSRV_GRACEFUL_TIMEOUT": "5", "INJECT_PANICS": str(folder), **more}
    )


@pytest.fixture
def inject(tmp_path):
    """``inject("Watch")``: the next thread that comes to this point panics. Returns whether it has."""

    def inject_at(point):
        file = tmp_path / "panics" / point
        file.touch()
        return lambda: not file.exists()

    return inject_at


def told(server, text):
    """The one line of the log about a panic, which begins with ``text`` and then says where it was."""
    record = server.wait_for_record(" panicked at src/")
    assert re.match(re.escape(text) + r" panicked at src/[\w/]+\.rs:\d+:\d+: injected at \w+\. ?", record.message)
    assert [other for other in server.records() if "panicked" in other.text] == [record]
    assert "panicked" not in server.stderr()
    return record.message


def notes(server):
    return (server.folder / "notes").read_text().split()


def hold(server, number=1):
    """Let a request hold a worker; its connection."""
    connection = server.connect().send(request("POST", f"/score?hold{number}", f"hold{number}".encode()))
    eventually(lambda: f"hold{number}" in notes(server), "the worker is held")
    # When a later request has been answered, the front has done all that it does when it has sent the job.
    assert server.get("/livez").status == 200
    return connection


# ---- What the front needs as a whole


# Each with how the log names it, and what makes it come to the point; the others do so all the time.
VITAL = {
    "Accept": ("the task that accepts clients on port {port}", lambda server: server.connect()),
    "AcceptWorker": ("the task that accepts workers", lambda server: server.signal(signal.SIGTTIN)),
    "Watch": ("the task that checks time limits", lambda server: None),
    "Order": ("the front's main task", lambda server: server.signal(signal.SIGTTOU)),
    "Core": ("the dispatcher", lambda server: None),
}
# With these the front cannot answer anybody.
SPEECHLESS = ("Order", "Core")


@pytest.mark.parametrize("point", VITAL)
def test_a_panic_in_what_the_front_needs_ends_the_front(serve, inject, point):
    server = serve("hold.py", "--worker_count", "2")
    workers = server.wait_for_workers(2)
    front = None if server.has_threads else server.front()
    running = [hold(server, number) for number in (1, 2)]
    waiting = [server.connect().send(request("POST", "/score", f"queued{number}".encode())) for number in range(3)]
    assert server.get("/livez").status == 200
    has_panicked = inject(point)
    name, trigger = VITAL[point]
    what = name.format(port=server.port)
    trigger(server)
    eventually(has_panicked, "it has panicked")
    for connection in (*running, *waiting):
        if point in SPEECHLESS:
            with pytest.raises(ConnectionError):
                connection.read()
        else:
            assert connection.read().status == 503
    for number in (1, 2):
        (server.folder / f"hold{number}").touch()
    if server.has_threads:
        assert server.wait_for_exit() == 1
        assert told(server, f"The front failed: {what}").endswith("The server ends.")
    else:
        assert server.score("later").json() is not None
        assert server.front() != front
        assert set(workers) & set(server.workers())
        told(server, f"The front process failed and ends: {what}")
        server.wait_for_record(f"The front process (pid:{front}) exited with code 1. Starting another one.")
    # Whoever was told that the server stops must not be served. Otherwise each worker may have begun what it was sent.
    begun = [note for note in notes(server) if note not in ("hold1", "hold2", "later")]
    assert len(begun) <= (2 if point in SPEECHLESS else 0), begun


def test_a_panic_in_the_clock_of_the_dispatcher_ends_the_front(serve, inject):
    server = serve("echo.py")
    front = None if server.has_threads else server.front()
    has_panicked = inject("Clock")

    def burst():
        # The core wants a tick when it has sent a job to a worker that is busy.
        with suppress(ConnectionError):
            connections = [server.connect().send(request("POST", "/score", b"x")) for _ in range(8)]
            assert {connection.read().status for connection in connections} <= {200, 503}
        return has_panicked()

    eventually(burst, "it has panicked")
    if server.has_threads:
        assert server.wait_for_exit() == 1
        assert told(server, "The front failed: the clock of the dispatcher").endswith("The server ends.")
    else:
        told(server, "The front process failed and ends: the clock of the dispatcher")
        assert server.score("later").json() == "later"
        assert server.front() != front


def test_a_front_that_fails_while_the_server_drains_does_not_hold_up_its_end(serve, inject):
    server = serve("hold.py")
    running = hold(server)
    server.signal(signal.SIGTERM)
    server.wait_for_record("Stopping: finishing the requests")
    eventually(inject("Watch"), "it has panicked")
    assert running.read().status == 503
    assert server.wait_for_exit() in (0, 1)


# ---- One worker


def test_a_panic_in_a_workers_session_costs_what_the_worker_ran(serve, inject):
    server = serve("hold.py", "--worker_count", "1")
    (worker,) = server.workers()
    running = hold(server)
    waiting = [server.connect().send(request("POST", "/score", f"queued{number}".encode())) for number in range(5)]
    assert server.get("/livez").status == 200
    inject("Session")
    (server.folder / "hold1").touch()
    failed = running.read()
    assert failed.status == 500
    assert "disconnected because the server failed to handle its reply" in failed.json()["message"]
    # The worker may have begun the next one before the front had its reply to the first.
    first, *others = [connection.read() for connection in waiting]
    assert first.status in (200, 500)
    assert {other.status for other in others} == {200}
    assert sorted(notes(server)) == ["hold1", *(f"queued{number}" for number in range(5))]
    assert server.workers() == [worker]
    text = told(server, f"The session of worker {1 if server.has_threads else worker}")
    assert text.endswith("The front disconnects the worker, and gives what it had not begun to others.")


STUCK = """
from azureml_inference_server_http.api.aml_response import AMLResponse
def parts():
    yield "begun,"
    while not os.path.exists("go"):
        time.sleep(0.005)
    try:
        yield "more"
    finally:
        time.sleep(3600)
answer = AMLResponse(parts(), 200)
"""


def test_a_worker_that_is_stuck_when_its_session_panics_is_replaced(serve, inject):
    server = serve("obey.py", "--graceful_timeout", "1", WORKER_TIMEOUT="5")
    stream = server.connect().send(request("POST", "/score", STUCK.encode()))
    stream.read_head_of_stream()
    assert stream.next_chunk() == b"begun,"
    inject("Session")
    (server.folder / "go").touch()
    with pytest.raises(ConnectionError):
        stream.next_chunk()
    server.wait_for_record("did not connect to the front again within the time for a request", level="C")
    assert server.score("answer = 5").json() == 5


def test_a_panic_in_a_workers_loop_costs_its_request(serve, inject):
    server = serve("hold.py", "--worker_count", "1")
    (worker,) = server.workers()
    running = hold(server)
    waiting = [server.connect().send(request("POST", "/score", f"queued{number}".encode())) for number in range(3)]
    assert server.get("/livez").status == 200
    has_panicked = inject("Worker")
    (server.folder / "hold1").touch()
    assert running.read().status == 200
    eventually(has_panicked, "it has panicked")
    first, *others = [connection.read() for connection in waiting]
    assert first.status == 500
    assert first["x-ms-run-function-failed"] == "True"
    assert {other.status for other in others} == {200}
    assert notes(server) == ["hold1", "queued1", "queued2"]
    if server.has_threads:
        server.wait_for_record("Worker thread 1 failed and ends: the worker's loop panicked at src/worker/", level="E")
    else:
        server.wait_for_record(
            f"Worker with pid {worker} failed and ends: the worker's loop panicked at src/worker/", level="C"
        )
        assert worker not in server.workers()


# ---- One connection


def test_a_panic_in_a_connection_ends_that_connection_alone(serve, inject):
    server = serve("hold.py")
    running = hold(server)
    waiting = server.connect().send(request("POST", "/score?waits", b"waits"))
    other = server.connect().send(request("POST", "/score", b"other"))
    assert server.get("/livez").status == 200
    inject("Connection")
    waiting.send(b"P")
    with pytest.raises(ConnectionError):
        waiting.read()
    host, port = waiting.socket.getsockname()
    assert told(server, f"The connection of {host}:{port}").endswith("It is closed.")
    server.wait_for_record("POST /score?waits")
    (server.folder / "hold1").touch()
    assert running.read().status == other.read().status == 200
    assert notes(server) == ["hold1", "other"]


def test_the_request_of_a_connection_that_panics_is_logged_when_it_has_run(serve, inject):
    server = serve("hold.py")
    running = hold(server)
    inject("Connection")
    running.send(b"P")
    with pytest.raises(ConnectionError):
        running.read()
    (server.folder / "hold1").touch()
    server.wait_for_record("POST /score?hold1 200")
    assert server.score("later").status == 200


def test_a_panic_in_the_handler_of_a_request_cancels_its_job(serve, inject):
    server = serve("hold.py")
    running = hold(server)
    inject("Request")
    connection = server.connect().send(request("POST", "/score?panics", b"panics"))
    with pytest.raises(ConnectionError):
        connection.read()
    told(server, f"The connection of 127.0.0.1:{connection.socket.getsockname()[1]}")
    server.wait_for_record("POST /score?panics")
    (server.folder / "hold1").touch()
    assert running.read().status == 200
    assert server.score("later").status == 200
    assert notes(server) == ["hold1", "later"]


def test_a_panic_in_the_task_that_awaits_an_abandoned_request_is_told(serve, inject):
    server = serve("hold.py")
    connection = hold(server)
    # Its end is a reset.
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    # When a later connection has been answered, the front has noticed that.
    assert server.get("/livez").status == 200
    inject("Outcome")
    (server.folder / "hold1").touch()
    text = told(server, "The task that awaits the outcome of a request whose client has left")
    assert text.endswith("The record of the request has no outcome.")
    assert server.wait_for_record("POST /score?hold1")
    assert server.score("later").status == 200


# ---- Threads beside the event loop


def test_a_panic_in_the_thread_that_writes_the_log_costs_the_records_it_had(serve, inject):
    server = serve("echo.py")
    has_panicked = inject("Log")
    assert server.score("first").status == 200
    eventually(has_panicked, "it has panicked")
    assert server.score("second").status == 200
    record = server.wait_for_record("The thread that writes the log panicked at src/logging/", level="E")
    assert "injected at Log. Up to " in record.message
    assert record.message.endswith(" records were lost.")
    assert len([record for record in server.records() if "POST /score 200" in record.message]) == 1


def test_a_panic_in_the_thread_that_sends_telemetry_costs_what_it_was_sending(serve, inject):
    with Receiver() as receiver:
        server = serve("echo.py", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY="20")
        has_panicked = inject("Telemetry")
        assert server.score("first").json() == "first"
        eventually(has_panicked, "it has panicked")
        record = server.wait_for_record("The thread that sends telemetry panicked at src/telemetry/", level="E")
        assert record.message.endswith("The items that it was encoding or sending are lost, and it goes on.")
        assert server.score("second").json() == "second"
        eventually(lambda: receiver.requests, "telemetry is sent again")


def test_a_panic_in_the_thread_that_limits_calls_does_not_end_the_limits(serve, inject):
    server = serve("obey.py", SCORING_TIMEOUT_MS="300")
    if not server.has_threads:
        pytest.skip("a signal limits the calls of worker processes")
    has_panicked = inject("Deadlines")
    reply = server.score("while True: pass")
    assert has_panicked()
    assert (reply.status, reply.json()["message"]) == (500, "Scoring timeout after 300 ms")
    record = server.wait_for_record("The thread that limits the calls of run() panicked at src/", level="E")
    assert record.message.endswith("It tries again.")
