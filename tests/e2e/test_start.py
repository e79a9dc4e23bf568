"""What a start accepts and what it says: settings, listeners, lines that tools wait for (contract sections 1 to 3)."""

from __future__ import annotations

import re

import pytest

from azureml_inference_server_http.settings_table import SETTINGS

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
    assert warning.message.startswith("AZUREML_LOG_LEVEL='LOUD' is ignored, and the default INFO counts: ")


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
