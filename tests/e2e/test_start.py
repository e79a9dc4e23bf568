"""What a start accepts and what it says: settings, listeners, lines that tools wait for (contract
sections 1 to 3)."""

from __future__ import annotations

import re

import pytest
from harness import eventually, path_in_server

from azureml_inference_server_http.launch.settings_table import SETTINGS

# ---- Settings


@pytest.mark.any_worker_class
def test_variables_that_a_compose_file_leaves_blank_mean_the_defaults(start):
    # HTTP_X_MS_SERVER_VERSION is left out: blank, it means no header.
    names = [setting.environment for setting in SETTINGS if setting.environment]
    blank = dict.fromkeys(set(names) - {"HTTP_X_MS_SERVER_VERSION", "AZMLINFSRV_WORKER_CLASS"}, "")
    server = start("echo.py", **blank)
    assert server.score("fine").status == 200
    assert not server.records(level="W")


@pytest.mark.any_worker_class
def test_a_log_level_that_means_nothing_is_one_warning(start):
    server = start("echo.py", AZUREML_LOG_LEVEL="LOUD")
    assert server.score("fine").status == 200
    [warning] = server.records(level="W")
    assert warning.message.startswith("AZUREML_LOG_LEVEL='LOUD' is ignored, and the default INFO is used: ")


@pytest.mark.any_worker_class
@pytest.mark.parametrize("words", ["NOTSET", "trace", "0"])
def test_a_log_level_of_another_logger_is_the_nearest_one(start, words):
    server = start("echo.py", AZUREML_LOG_LEVEL=words)
    assert server.request("POST", "/score", b"\xff").status == 400
    server.wait_for_record("The input of the request is refused", level="D")


# ---- Listeners


@pytest.mark.any_worker_class
def test_port_0_takes_a_free_port_and_says_which(start, tmp_path):
    script = tmp_path / "ports.py"
    script.write_text(
        "import os\ndef init(): pass\ndef run(data): return [os.environ['SERVER_PORT'], os.environ['HEALTH_PORT']]\n"
    )
    options = ("--port", "0", "--health_port", "0")
    server = start(str(script), *options, ready=False, SEPERATE_HEALTH_ENDPOINT="true")
    listening = server.wait_for_record("Listening at: ").message
    health, port = map(int, re.findall(r"http://0\.0\.0\.0:(\d+)", listening))
    assert 0 not in (health, port)
    server.port = port
    server.wait_until_ready()
    assert server.score("x").json() == [str(port), str(health)]
    assert server.get("/", port=health).status == 200
    banner = server.stdout()
    for line in (f"Server Port: {port}", f"Health Port: {health}", f"127.0.0.1:{health}/", f"127.0.0.1:{port}/score"):
        assert f"{line}\n" in banner


@pytest.mark.any_worker_class
@pytest.mark.parametrize("host", ["h" * 300, "a..b", "no such host", "\x1b[31m", "999.1.1.1"])
def test_a_host_that_cannot_be_one_is_a_message(start, host):
    server = start("echo.py", "--host", host, ready=False)
    assert server.wait_for_exit() == 1
    (line,) = server.stderr().splitlines()
    assert line.startswith("azmlinfsrv: error: --host ")
    assert line.endswith("Give --host an address or a name of this machine, or 0.0.0.0 for all its addresses.")
    assert line.isprintable()


# ---- Lines that tools wait for


@pytest.mark.any_worker_class
@pytest.mark.parametrize("preload", ["false", "true"])
def test_lines_that_tools_wait_for(start, preload):
    server = start("echo.py", WORKER_PRELOAD=preload)
    [worker] = server.ready_pids()
    record = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} I \[(\d+)\] gunicorn\.error - Booting worker with pid: (\d+)\n"
    assert re.findall(record, server.stderr()) == [(str(worker), str(worker))]
    messages = [record.message for record in server.records()]
    assert messages.count("Starting up app insights client") == 1
    assert f"Listening at: http://0.0.0.0:{server.port} ({server.own_pid()})" in messages
    output = server.stdout()
    assert output.index("Initializing logger") < output.index("Starting up app insights client")
    assert output.index("Starting up app insights client") < output.index("Found user script at")


def test_each_worker_says_that_it_boots(start):
    server = start("exit_in_run.py", "--worker_count", "2")
    server.wait_for_workers(2)
    server.score("exit 7")
    pids = eventually(lambda: len(set(server.ready_pids())) == 3 and server.ready_pids(), "another worker")
    assert sorted(pids) == sorted(int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", server.stderr()))


@pytest.mark.any_worker_class
def test_a_logging_json_does_not_take_the_line_of_the_boot_away(start):
    server = start("echo.py", files={"logging.json": '{"version": 1}'})
    assert "gunicorn.error - Booting worker with pid: " in server.stderr()


# ---- Settings of gunicorn


@pytest.mark.any_worker_class
def test_settings_of_gunicorn_are_one_warning_for_each_place(start):
    files = {"gunicorn.conf.py": "raise SystemExit(9)\nworkers = 4\n"}
    server = start("echo.py", files=files, GUNICORN_CMD_ARGS="--threads 4 --timeout=5 -w 2")
    assert server.score("x").status == 200
    assert [record.message for record in server.records(level="W")] == [
        "GUNICORN_CMD_ARGS has no effect: gunicorn does not run here. Use instead: --threads -> --worker_class thread, "
        "with WORKER_COUNT as the number of threads; --timeout -> WORKER_TIMEOUT; -w -> WORKER_COUNT.",
        f"The file {path_in_server(server.folder / 'gunicorn.conf.py')} has no effect: gunicorn does not run here. "
        "Use instead: workers -> WORKER_COUNT.",
    ]
