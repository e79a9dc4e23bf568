"""Start, stop and what the log says about them (contract sections 1, 2, 4, 13 and 16,
docs/design.md)."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SCRIPTS, Port, eventually, path_in_server, request, running

import azureml_inference_server_http as package

PREFIX = "azureml_inference_server_http.server.user_script."
IMPORT_FAILED = (
    f"{PREFIX}UserScriptImportException: Failed to import user script because it raised an unhandled exception"
)
INIT_FAILED = f"{PREFIX}UserScriptException: Caught an unhandled exception from the user script"
STOPPED = {"message": "The server was stopped before the request was finished."}


def run_command(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **options)


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
        assert f'File "{path_in_server(SCRIPTS / script)}", line {line}' in errors
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
        (server.own_pid(), "azmlinfsrv", "Loaded logging config from "),
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
    config_file = path_in_server(server.folder / "logging.json")
    assert f"own|{server.own_pid()}|azmlinfsrv|INFO|Loaded logging config from {config_file}" in lines()
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
