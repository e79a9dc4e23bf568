"""What clients and logs are told when run() fails or takes too long (contract section 8,
docs/design.md)."""

from __future__ import annotations

import re
import signal
import sys
import time

import pytest
from harness import SCRIPTS, eventually, is_running, path_in_server

SCRIPT_ERROR = {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
CHAIN = "The above exception was the direct cause of the following exception:"
PREFIX = "azureml_inference_server_http.server.user_script."
FINAL = f"{PREFIX}UserScriptException: Caught an unhandled exception from the user script"


def line_of(script: str, text: str) -> int:
    """Number of the line in a script that contains the text."""
    lines = (SCRIPTS / script).read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return number


RAISES = line_of("fail.py", "# raises here")
CALLS = line_of("fail.py", "# calls from here")


@pytest.mark.any_worker_class
@pytest.mark.parametrize(
    ("expression", "name", "line"),
    [
        ("ValueError('secret text')", "ValueError", RAISES),
        ("SystemExit(3)", "SystemExit", RAISES),
        ("KeyboardInterrupt()", "KeyboardInterrupt", RAISES),
        ("GeneratorExit()", "GeneratorExit", RAISES),
        ("StopIteration(1)", "StopIteration", RAISES),
        ("asyncio.CancelledError()", "CancelledError", RAISES),
        ("Unusual()", "Unusual", RAISES),
        ("Chatty()", "Chatty", RAISES),
        ("Silent()", "Silent", RAISES),
        ("MemoryError", "MemoryError", RAISES),
        ("call 1 / 0", "ZeroDivisionError", CALLS),
        ("call json.loads('{')", "JSONDecodeError", CALLS),
        ("call flask.abort(404)", "NotFound", CALLS),
        ("'not an exception'", "TypeError", RAISES),
    ],
)
def test_a_script_error_is_an_opaque_reply_that_names_the_place(shared, expression, name, line):
    server = shared("fail.py")
    (worker,) = server.workers()
    response = server.score(expression)
    assert (response.status, response.json()) == (500, SCRIPT_ERROR)
    assert response["x-ms-run-function-failed"] == "True"
    assert response["x-ms-run-fn-exec-ms"] is None
    assert response["x-ms-run-error-location"] == f"fail.py:{line} {name}"
    assert response["x-ms-server-version"]
    assert response["x-request-id"] == response["x-ms-request-id"]
    assert "secret" not in str(response)
    assert server.score("fine").json() == "fine"
    assert server.workers() == [worker]


@pytest.mark.any_worker_class
def test_a_script_error_is_logged_with_its_traceback(start):
    server = start("fail.py")
    server.score("ValueError('secret text')")
    (record,) = server.records(level="E")
    assert (record.logger, record.pid) == ("azmlinfsrv", *server.workers())
    lines = record.text.splitlines()
    assert lines[0] == "Encountered Exception: Traceback (most recent call last):"
    assert f'  File "{path_in_server(SCRIPTS / "fail.py")}", line {RAISES}, in run' in lines
    assert "ValueError: secret text" in lines
    assert lines.index("ValueError: secret text") < lines.index(CHAIN) < lines.index(FINAL)
    # The traceback has only the user's own frames.
    assert not re.search(r"azureml_inference_server_http[/\\]", record.text)


def test_a_call_that_does_not_fit_run_has_no_place_but_a_name(shared):
    server = shared("hidden_parameters.py")
    response = server.score("x")
    assert (response.status, response.json()) == (500, SCRIPT_ERROR)
    assert response["x-ms-run-error-location"] == "TypeError"
    assert "missing 1 required positional argument: 'other'" in server.records(level="E")[-1].text


@pytest.mark.any_worker_class
def test_the_reason_of_a_refused_input_is_logged_for_those_who_debug(start):
    server = start("echo.py", AZUREML_LOG_LEVEL="DEBUG")
    assert server.score(b"\xff").status == 400
    record = server.wait_for_record("The input of the request is refused: Input cannot be decoded as UTF-8", level="D")
    assert record.pid in server.workers()
    server = start("echo.py")
    assert server.score(b"\xff").status == 400
    server.wait_for_record("POST /score 400 ")
    assert not [record for record in server.records() if "refused" in record.message]


def test_success_has_no_error_location(shared):
    response = shared("fail.py").score("fine")
    assert (response["x-ms-run-error-location"], response["x-ms-run-function-failed"]) == (None, "False")


@pytest.mark.any_worker_class
def test_error_details_put_the_traceback_into_the_reply(start):
    server = start("fail.py", "--error_details", SCORING_TIMEOUT_MS="77")
    details = server.score("Chatty()").json()
    assert list(details) == ["message", "error", "location", "traceback"]
    assert details["message"] == SCRIPT_ERROR["message"]
    assert details["error"] == "fail.Chatty: first line\nsecond line: größer".replace("fail.", "entry_module.")
    assert details["location"] == f"fail.py:{RAISES}"
    assert f'File "{path_in_server(SCRIPTS / "fail.py")}", line {RAISES}, in run' in details["traceback"]
    assert "Chatty: first line\nsecond line: größer\n" in details["traceback"]
    assert FINAL in details["traceback"]
    details = server.score("TimeoutError()").json()
    assert details["message"] == "Scoring timeout after 77 ms"
    assert f"{PREFIX}UserScriptTimeout" in details["traceback"]


def test_error_details_leave_other_errors_alone(start):
    server = start("fail.py", "--error_details")
    assert list(server.score(b"\xff").json()) == ["message"]
    assert list(server.get("/nowhere").json()) == ["message"]


# ---- Time limits


def assert_timeout(response, limit):
    assert (response.status, response.json()) == (500, {"message": f"Scoring timeout after {limit} ms"})
    assert response["x-ms-run-function-failed"] == "True"
    assert response["x-ms-run-fn-exec-ms"] is None


before_3_10 = pytest.mark.skipif(sys.version_info < (3, 10), reason="there it is no TimeoutError")


@pytest.mark.parametrize("expression", ["TimeoutError('own')", pytest.param("socket.timeout()", marks=before_3_10)])
def test_a_timeout_of_the_script_itself_is_reported_as_the_servers(shared, expression):
    assert_timeout(shared("fail.py").score(expression), 3600000)


@pytest.mark.parametrize("how", ["sleep", "spin", "lock"])
def test_a_call_over_the_limit_is_interrupted(shared, how):
    server = shared("slow.py", SCORING_TIMEOUT_MS="1000")
    (worker,) = server.workers()
    began = time.monotonic()
    response = server.score(how)
    assert time.monotonic() - began >= 1
    assert_timeout(response, 1000)
    assert response["x-ms-run-error-location"].startswith("slow.py:")
    record = server.records(logger="azmlinfsrv", level="E")[-1]
    assert record.message.startswith("Encountered Exception: Traceback (most recent call last):")
    last = f"{PREFIX}UserScriptTimeout: Script failed to finish execution within the allocated time: 1000ms"
    assert last in record.text.splitlines()
    assert server.records(logger="azmlinfsrv.print")[-1].message == f"finally of {how}"
    # The worker still works.
    assert server.score("next").json() == "next"
    assert server.workers() == [worker]


def test_a_script_may_swallow_the_limit(shared):
    response = shared("slow.py", SCORING_TIMEOUT_MS="1000").score("swallow")
    assert (response.status, response.json()) == (200, "TimeoutError")


@pytest.mark.any_worker_class
def test_the_limit_does_not_strike_after_the_call(shared):
    server = shared("slow.py", SCORING_TIMEOUT_MS="1000")
    with server.connect() as connection:
        errors = len(server.records(level="E"))
        assert connection.exchange("POST", "/score", b"x").status == 200
        assert connection.is_silent(1.2)
        assert connection.exchange("POST", "/score", b"x").status == 200
    assert len(server.records(level="E")) == errors
    assert server.complaints() == ""


@pytest.mark.any_worker_class
def test_the_limit_does_not_cover_streaming(start):
    server = start("stream.py", SCORING_TIMEOUT_MS="1000")
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nname").read_head_of_stream()
        assert connection.next_chunk() == b"first,"
        assert connection.is_silent(1.2)
        (server.folder / "name.go").touch()
        assert connection.next_chunk() == "sécond".encode()
        assert connection.next_chunk() == b""


@pytest.mark.any_worker_class
def test_no_limit_is_zero(start):
    server = start("slow.py", SCORING_TIMEOUT_MS="0")
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nlock")
        assert connection.is_silent(0.3)
    assert not server.records(level="E")
    # Ended by a signal, because nothing else ends this call.
    server.signal(signal.SIGINT)


def test_a_call_stuck_in_native_code_is_answered_and_its_worker_replaced(start):
    server = start("slow.py", SCORING_TIMEOUT_MS="1000")
    (worker,) = server.wait_for_workers(1)
    with server.connect() as connection:
        assert_timeout(connection.exchange("POST", "/score", b"native"), 1000)
        assert connection.exchange("POST", "/score", b"next").json() == "next"
    assert not is_running(worker)
    assert server.wait_for_record(f"Worker (pid:{worker})", level="C")


def test_the_worker_timeout_ends_a_call_and_its_worker(start):
    server = start("slow.py", WORKER_TIMEOUT="1")
    (worker,) = server.wait_for_workers(1)
    later = None
    began = time.monotonic()
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nsleep")
        later = server.score_later("next")
        response = connection.read()
        assert time.monotonic() - began >= 1
        assert (response.status, response["x-ms-run-function-failed"]) == (500, "True")
        assert str(response.json()["message"]).strip()
        assert later.result().json() == "next"
        assert connection.exchange("POST", "/score", b"again").json() == "again"
    eventually(lambda: not is_running(worker), "the worker is gone")
    assert server.wait_for_record(f"Worker (pid:{worker})", level="C")


@pytest.mark.any_worker_class
def test_the_worker_timeout_does_not_cover_init(start):
    server = start("init_waits.py", WORKER_TIMEOUT="1", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    (worker,) = server.workers()
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        assert connection.is_silent(2.5)
        (server.folder / "go").touch()
        assert connection.read().json() == "x"
    assert server.workers() == [worker]
