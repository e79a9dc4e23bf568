"""Start, stop and what the log says about them (contract sections 1, 2, 4, 13 and 16,
docs/design.md)."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import KEPT, SCRIPTS, Port, eventually, is_running, request

import azureml_inference_server_http as package

PREFIX = "azureml_inference_server_http.server.user_script."
IMPORT_FAILED = (
    f"{PREFIX}UserScriptImportException: Failed to import user script because it raised an unhandled exception"
)
INIT_FAILED = f"{PREFIX}UserScriptException: Caught an unhandled exception from the user script"
STOPPED = {"message": "The server was stopped before the request was finished."}


def running(server, name="a"):
    """A request to wait.py that runs, on a connection of its own."""
    connection = server.connect().send(request("POST", "/score", name.encode()))
    eventually((server.folder / f"{name}.started").exists, f"{name} runs")
    return connection


def run_command(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **options)


# ---- Stopping


@pytest.mark.any_worker_class
def test_term_finishes_what_runs_and_what_waits(start):
    server = start("wait.py")
    first, second = running(server, "a"), server.connect().send(request("POST", "/score", b"b"))
    idle = server.connect()
    assert idle.exchange("GET", "/", headers=KEPT).status == 200
    server.signal(signal.SIGTERM)
    idle.assert_closed()
    assert server.process.poll() is None
    (server.folder / "b.go").touch()
    (server.folder / "a.go").touch()
    for connection in (first, second):
        response = connection.read()
        assert (response.status, response["connection"]) == (200, "close")
        connection.assert_closed()
    assert server.wait_for_exit() == 0
    assert not server.records(level="E")


def test_new_clients_hear_the_truth_while_the_server_finishes(start):
    server = start("wait.py")
    last = running(server)
    early = [server.connect(), server.connect().send(b"POST /score HTTP/1.1\r\nHost: a\r\n")]
    server.signal(signal.SIGTERM)
    eventually(lambda: server.get("/readyz").status == 503, "readiness tells it")
    # Connections that were open before TERM, without a complete request.
    for connection, rest in zip(early, (request("POST", "/score", b"c"), b"Content-Length: 1\r\n\r\nc")):
        assert connection.send(rest).read().status == 503
    assert server.get("/readyz").json() == {"message": "Not ready: the server is shutting down."}
    assert server.get("/livez").status == 200
    refused = server.score("b")
    assert (refused.status, refused["retry-after"], refused["connection"].lower()) == (503, "1", "close")
    assert refused.json() == {"message": "The server is shutting down and takes no new requests."}
    # A connection without a request must not delay the end.
    server.connect()
    (server.folder / "a.go").touch()
    assert last.read().status == 200
    assert server.wait_for_exit() == 0
    assert not [name for name in "bc" if (server.folder / f"{name}.started").exists()]


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
def test_methods_that_wait_for_the_script_end_with_the_server(start, method):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    connection = server.connect().send(request(method, "/score"))
    # Sent later and answered: so the front has read the one before.
    assert server.get("/livez").status == 200
    server.signal(signal.SIGINT)
    assert connection.read(method).status == 503
    assert server.wait_for_exit() == 0


def test_methods_that_wait_for_the_script_wait_no_longer_than_others(start):
    server = start("init_waits.py", "--queue_timeout", "0.2", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    assert server.request("OPTIONS", "/score").status == 503


@pytest.mark.serial
@pytest.mark.any_worker_class
def test_term_ends_an_idle_server_quickly(start):
    server = start("echo.py", "--worker_count", "2")
    with server.connect() as idle:
        assert idle.exchange("GET", "/", headers=KEPT).status == 200
        server.signal(signal.SIGTERM)
        # Well before --graceful_timeout, because there is nothing to wait for.
        assert server.wait_for_exit() == 0
        idle.assert_closed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_does_not_hold_up_the_end(start, number):
    server = start("echo.py", "--graceful_timeout", "1")
    for pid in server.workers():
        os.kill(pid, signal.SIGSTOP)
    server.wait_for_record("was stopped by")
    server.signal(number)
    assert server.wait_for_exit() == 0


@pytest.mark.serial
@pytest.mark.any_worker_class
def test_term_waits_no_longer_than_the_graceful_timeout(start):
    server = start("wait.py", "--graceful_timeout", "1")
    with running(server) as connection:
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)
        response = connection.read()
        assert time.monotonic() - began > 0.9
        assert (response.status, response.json()) == (503, STOPPED)
        assert server.wait_for_exit() == 0
    assert server.ready_pids()


@pytest.mark.any_worker_class
def test_a_late_upload_is_refused_without_a_reset(start):
    server = start("wait.py")
    with running(server), server.connect() as late:
        server.signal(signal.SIGTERM)
        server.wait_for_record("Stopping")
        late.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        assert select.select([late.socket], [], [], 20)[0], "refused before the body has come"
        late.send(bytes(3_000_000))
        assert late.read().status == 503
        (server.folder / "a.go").touch()
        assert server.wait_for_exit() == 0


@pytest.mark.serial
@pytest.mark.any_worker_class
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_answers_everybody_and_ends_at_once(start, number):
    server = start("wait.py")
    with running(server) as first, server.connect() as second:
        second.send(request("POST", "/score", b"b"))
        # The answer to a later request on another connection tells that the front has seen the
        # second one.
        assert server.get("/").status == 200
        server.signal(number)
        for connection in (first, second):
            response = connection.read()
            assert (response.status, response.json()) == (503, STOPPED)
            assert response["x-ms-run-function-failed"] == "False"
            assert response["x-request-id"]
            connection.assert_closed()
        # run() never returns, and this is well before --graceful_timeout.
        assert server.wait_for_exit() == 0


@pytest.mark.any_worker_class
def test_ctrl_c_reaches_the_whole_process_group(start):
    server = start("wait.py")
    with running(server) as connection:
        os.killpg(server.pid, signal.SIGINT)
        assert connection.read().json() == STOPPED
        assert server.wait_for_exit() == 0
    assert "KeyboardInterrupt" not in server.output()


@pytest.mark.any_worker_class
def test_int_ends_a_server_that_drains(start):
    server = start("wait.py")
    with running(server) as connection:
        server.signal(signal.SIGTERM)
        server.wait_for_record("Stopping")
        server.signal(signal.SIGINT)
        assert connection.read().json() == STOPPED
        assert server.wait_for_exit() == 0


@pytest.mark.any_worker_class
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_starts_can_be_stopped(start, number):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    server.signal(number)
    assert server.wait_for_exit() == 0


def test_ctrl_c_while_the_command_is_imported_leaves_no_traceback(start):
    # The command is started in this folder, so Python imports this file and not the standard
    # library's module.
    interrupts = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    server = start("echo.py", files={"argparse.py": interrupts}, ready=False)
    assert server.wait_for_exit() == -signal.SIGINT
    assert server.output() == "--- stdout\n--- stderr\n"


def test_a_worker_that_ignores_the_end_is_killed(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import signal\n"
        "def init(): signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})\n"
        "def run(data):\n    open('started', 'w')\n    signal.pause()\n"
    )
    server = start(str(script))
    (worker,) = server.workers()
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"a"))
        eventually((server.folder / "started").exists, "it runs")
        server.signal(signal.SIGINT)
        assert connection.read().status == 503
        assert server.wait_for_exit() == 0
    assert not is_running(worker)


# ---- Scripts that cannot be served


@pytest.mark.any_worker_class
@pytest.mark.parametrize(
    ("script", "texts"),
    [
        ("import_fails.py", ["LookupError: no luck at import", IMPORT_FAILED]),
        ("import_exits.py", ["SystemExit: 0", IMPORT_FAILED]),
        ("does_not_exist.py", ["No such file or directory.", IMPORT_FAILED]),
        ("no_run.py", ["UserScriptError: User script at", "does not have a run() function defined."]),
        ("two_parameters.py", ['UserScriptError: run() is called with "data" only', 'Give "other" a default value']),
        ("init_fails.py", ["User's init function failed", "LookupError: no luck in init", INIT_FAILED]),
    ],
)
def test_a_script_that_cannot_start_ends_the_command(start, script, texts):
    server = start(script, "--worker_count", "2", ready=False)
    assert server.wait_for_exit() == 3
    errors = "\n".join(record.text for record in server.records(logger="azmlinfsrv", level="E"))
    for text in texts:
        assert text in errors
    if "fails" in script:
        line = next(n for n, text in enumerate((SCRIPTS / script).read_text().splitlines(), 1) if "raise" in text)
        assert f'File "{SCRIPTS / script}", line {line}' in errors
    assert not server.ready_pids()


def test_a_syntax_error_ends_the_command(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text("def init(:\n")
    server = start(str(script), ready=False)
    assert server.wait_for_exit() == 3
    assert "SyntaxError: " in server.stdout()
    assert IMPORT_FAILED in server.stdout()


def test_a_failed_init_is_logged_as_people_search_for_it(start):
    server = start("init_fails.py", "--model_dir", "model", files={"model": "weights"}, ready=False)
    assert server.wait_for_exit() == 3
    messages = [record.message for record in server.records(logger="azmlinfsrv", level="E")]
    assert messages[:2] == ["User's init function failed", "Encountered Exception Traceback (most recent call last):"]


@pytest.mark.any_worker_class
def test_requests_that_wait_for_a_script_that_cannot_start_are_answered(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import os, time\n"
        "def init():\n    open('waiting', 'w')\n    while not os.path.exists('go'): time.sleep(0.005)\n    1 / 0\n"
        "def run(data): pass\n"
    )
    server = start(str(script), ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"x"))
        assert server.get("/").status == 503
        (server.folder / "go").touch()
        response = connection.read()
        assert (response.status, response.json()) == (503, STOPPED)
    assert server.wait_for_exit() == 3


# ---- Starting


@pytest.mark.any_worker_class
def test_a_port_in_use_is_told_at_once(start):
    port = Port()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", port.number))
        other.listen()
        server = start("echo.py", "--port", str(port.number), ready=False)
        assert server.wait_for_exit() == 1
    port.release()
    (line,) = server.stderr().splitlines()
    assert line.startswith(f"azmlinfsrv: error: port {port.number} on 0.0.0.0 is in use")
    assert not server.ready_pids()


def test_a_health_port_in_use_is_told_at_once(start):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        number = other.getsockname()[1]
        server = start("echo.py", "--health_port", str(number), ready=False, SEPERATE_HEALTH_ENDPOINT="true")
        assert server.wait_for_exit() == 1
    assert f"port {number} on 0.0.0.0 is in use" in server.stderr()


def test_a_wrong_setting_is_one_line(start):
    server = start("echo.py", ready=False, WORKER_COUNT="many")
    assert server.wait_for_exit() == 1
    (line,) = server.stderr().splitlines()
    assert line.startswith("azmlinfsrv: error: WORKER_COUNT='many'")
    assert server.stdout() == ""


def test_the_log_of_a_start_is_in_order(start):
    server = start("prints.py")
    (worker,) = server.wait_for_workers(1)
    expected = [
        (server.pid, "azmlinfsrv", "Loaded logging config from "),
        (worker, "azmlinfsrv", "Starting up app insights client"),
        (worker, "azmlinfsrv.print", "at the top"),
        (worker, "azmlinfsrv.user_script", f"Found user script at {SCRIPTS / 'prints.py'}"),
        (
            worker,
            "azmlinfsrv.user_script",
            "run() is not decorated. Server will invoke it with the input in JSON string.",
        ),
        (worker, "azmlinfsrv.user_script", "Invoking user's init function"),
        (worker, "azmlinfsrv.print", "in init|1|None"),
        (worker, "azmlinfsrv.print", "two"),
        (worker, "azmlinfsrv.user_script", "Users's init has completed successfully"),
        (worker, "azmlinfsrv.swagger", "Swaggers are prepared for the following versions: [2, 3, 3.1]."),
        (worker, "azmlinfsrv", "Scoring timeout is set to 3600000 ms (WORKER_TIMEOUT, 300 s, is shorter)"),
        (worker, "azmlinfsrv", f"Worker with pid {worker} ready for serving traffic"),
    ]
    found = [(record.pid, record.logger, record.message) for record in server.records(level="I")]
    first = found[0]
    assert first[:2] == expected[0][:2]
    assert first[2].startswith(expected[0][2])
    assert [record for record in found if record[0] == worker] == expected[1:]
    lines = server.stdout().splitlines()
    assert lines.index("Server Routes") < lines.index("Initializing logger")


def test_the_banner_is_printed_once(start):
    server = start("echo.py", "--worker_count", "2")
    server.wait_for_workers(2)
    server.signal(signal.SIGHUP)
    eventually(lambda: len(server.ready_pids()) == 4, "both workers are replaced")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    lines = server.stdout().splitlines()
    for line in (f"Azure ML Inferencing HTTP server v{package.__version__}", "Server Settings", "Server Routes"):
        assert lines.count(line) == 1
    assert "Worker Count: 2" in lines
    assert f"Score:          POST  127.0.0.1:{server.port}/score" in lines


# ---- What is logged while serving


@pytest.mark.any_worker_class
def test_print_is_logged(start):
    server = start("prints.py")
    assert server.score("said in run").json() == "print"
    printed = [record for record in server.records(logger="azmlinfsrv.print")]
    assert [record.level for record in printed] == ["I"] * 6
    assert [record.message for record in printed[3:]] == ["said in run", "in a thread", ""]
    assert printed[2].text == "two\nlines"
    assert "not for the log\n" in server.stderr()
    assert "not for the log" not in server.stdout()


@pytest.mark.parametrize(
    ("method", "target", "body", "line"),
    [
        ("POST", "/score", b"abc", "POST /score 200 0ms 5"),
        ("GET", "/score?a=%20b&c", b"", "GET /score?a=%20b&c 200 0ms 30"),
        ("GET", "/%73core?a=%20", b"", "GET /score?a=%20 200 0ms 16"),
        ("GET", "//score?", b"", "GET /score 200 0ms 4"),
        ("POST", "/score", b"\xff", "POST /score 400 0ms 119"),
        ("OPTIONS", "/score", b"", "OPTIONS /score 200 0ms 0"),
        ("HEAD", "/score", b"", "HEAD /score 405 0ms 33"),
    ],
)
def test_a_request_is_one_line(start, method, target, body, line):
    server = start("echo.py")
    with server.connect() as connection:
        response = connection.exchange(method, target, body)
    word = re.escape(method)
    record = eventually(
        lambda: next((r for r in server.records("azmlinfsrv", "I") if re.match(word, r.message)), None), "the line"
    )
    assert re.sub(r" \d+\.\d{3}ms ", " 0ms ", record.message) == line
    if method in ("GET", "POST"):
        assert str(len(response.body)) == record.message.split()[-1]
        assert [record.pid] == server.workers()


def test_the_request_line_carries_the_pid_of_its_worker(start):
    server = start("wait.py", "--worker_count", "2")
    connections = [running(server, name) for name in "ab"]
    pids = []
    for connection, name in zip(connections, "ab"):
        (server.folder / f"{name}.go").touch()
        pids.append(connection.read().json())
        eventually(lambda: len([r for r in server.records() if r.message.startswith("POST")]) == len(pids), "a line")
    assert len(set(pids)) == 2
    assert [record.pid for record in server.records() if record.message.startswith("POST /score 200 ")] == pids


@pytest.mark.parametrize(
    ("method", "target", "line"),
    [
        ("GET", "/scroe?a=%20b", "GET /scroe?a=%20b 404 0ms 135"),
        ("HEAD", "/nowhere", "HEAD /nowhere 404 0ms 135"),
        ("PUT", "/score", "PUT /score 405 0ms 63"),
        ("POST", "/", "POST / 405 0ms 63"),
        ("POST", "/livez", "POST /livez 405 0ms 63"),
    ],
)
def test_what_no_route_takes_is_one_line_too(shared, method, target, line):
    server = shared("echo.py")
    server.request(method, target)
    record = server.wait_for_record(f"{method} {target} ", logger="azmlinfsrv", level="I")
    assert re.sub(r" \d+\.\d{3}ms ", " 0ms ", record.message) == line
    assert record.pid not in server.workers()


@pytest.mark.any_worker_class
def test_a_users_logging_json_decides(start):
    config = {
        "version": 1,
        "formatters": {
            "own": {
                "class": "azureml_inference_server_http.log_config.AMLLogFormatter",
                "format": "own|%(process)d|%(name)s|%(levelname)s|%(message)s",
            }
        },
        "filters": {"access": {"()": "azureml_inference_server_http.log_config.RootAccessFilter"}},
        "handlers": {
            "own": {
                "class": "logging.StreamHandler",
                "formatter": "own",
                "filters": ["access"],
                "stream": "ext://sys.stdout",
            }
        },
        "loggers": {"azmlinfsrv": {"level": "DEBUG", "handlers": ["own"], "propagate": False}},
    }
    server = start("fail.py", files={"logging.json": json.dumps(config)})
    (worker,) = server.workers()
    server.score("ValueError('x')")
    server.score("fine")
    server.score("ValueError('GET / HTTP/1.1')")

    def lines():
        return [line for line in server.stdout().splitlines() if line.startswith("own|")]

    eventually(lambda: any("|POST /score 200" in line for line in lines()), "the request line")
    assert f"own|{server.pid}|azmlinfsrv|INFO|Loaded logging config from {server.folder / 'logging.json'}" in lines()
    assert f"own|{worker}|azmlinfsrv|DEBUG|Run function exception caught" in lines()
    assert [line for line in lines() if line.startswith(f"own|{worker}|azmlinfsrv|INFO|POST /score 200 ")]
    assert "ValueError: x" in server.stdout()
    assert "GET / HTTP/1.1" not in server.stdout()
    assert not server.records()


def test_a_broken_logging_json_ends_the_command(start):
    server = start("echo.py", files={"logging.json": "{"}, ready=False)
    assert server.wait_for_exit() == 3
    assert "logging.json" in server.records(level="C")[0].message


def test_the_log_level_is_the_one_asked_for(start):
    server = start("fail.py", AZUREML_LOG_LEVEL="ERROR")
    server.score("fine")
    server.score("ValueError()")
    server.wait_for_record("Encountered Exception", level="E")
    assert {record.level for record in server.records()} == {"E"}


# ---- The command


@pytest.mark.parametrize("name", ["azureml_inference_server_http", "azureml_inference_server_http.amlserver"])
def test_the_version_of_the_modules(name):
    found = run_command(sys.executable, "-m", name, "--version")
    assert (found.returncode, found.stdout, found.stderr) == (0, f"azmlinfsrv {package.__version__}\n", "")


def test_the_console_command():
    script = Path(sys.executable).with_name("azmlinfsrv")
    assert run_command(str(script), "--version").stdout == f"azmlinfsrv {package.__version__}\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag):
    found = run_command(sys.executable, "-m", "azureml_inference_server_http", flag)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("usage: azmlinfsrv ")
    for option in ("--entry_script", "--port", "--worker_count", "--max_queue", "--graceful_timeout"):
        assert option in found.stdout


def test_a_script_is_needed(tmp_path):
    found = run_command(sys.executable, "-m", "azureml_inference_server_http", "--port", "1", cwd=tmp_path)
    assert found.returncode == 1
    assert "Either provide an entry_script using --entry_script" in found.stdout
