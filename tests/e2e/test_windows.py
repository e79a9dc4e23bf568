"""What differs on Windows: events of the console, texts, paths. ``make test-windows`` runs this file under Wine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest
from harness import COMMAND, PATIENCE, SCRIPTS, path_in_server, running

pytestmark = pytest.mark.skipif(
    "windows_command.py" not in os.environ.get("TEST_SERVER", ""), reason="it needs Wine: make test-windows"
)


@pytest.fixture(scope="module")
def worker_class():
    return "thread"


# What tests/windows_command.py makes of them: Ctrl-Break, a closed console window, a shutdown.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_every_event_but_ctrl_c_drains_the_server(start, number):
    server = start("wait.py")
    with running(server) as connection:
        server.signal(number)
        server.wait_for_record("Stopping: finishing the requests")
        (server.folder / "a.go").touch()
        assert connection.read().status == 200
        assert server.wait_for_exit() == 0


def test_threads_are_the_default_without_a_word(start):
    server = start("echo.py", AZMLINFSRV_WORKER_CLASS="")
    assert server.score("x").json() == "x"
    assert not server.records(level="W")


SCRIPT = """\ufeffimport sys

def init():
    print("logged \u03a9 \u20ac")
    sys.stdout.write("written \u03a9 \u20ac\\n")
    sys.stderr.write("told \u03a9 \\udcff\\n")

def run(data):
    raise ValueError("\u03a9 \\udcff")
"""


def test_scripts_of_editors_of_windows_in_any_folder(start, tmp_path):
    folder = tmp_path / "Jos\u00e9 \u03a9 \u65e5\u672c"
    folder.mkdir()
    script = folder / "score.py"
    script.write_bytes(SCRIPT.replace("\n", "\r\n").encode())
    server = start(str(script), LANG="C.UTF-8")
    reply = server.score("x")
    assert (reply.status, reply["x-ms-run-error-location"]) == (500, "score.py:9 ValueError")
    server.wait_for_record("POST /score 500")
    assert "logged \u03a9 \u20ac" in [record.message for record in server.records()]
    assert any("ValueError: \u03a9 \\udcff" in record.text for record in server.records(level="E"))
    assert "\nwritten \u03a9 \u20ac\n" in server.stdout()
    assert server.complaints() == "told \u03a9 \\udcff\n"
    # The front and Python write the same line ends.
    assert b"\r" not in (server.folder / "stdout").read_bytes()


def test_settings_that_need_processes_are_one_warning_each(start):
    options = ("--max_requests", "9", "--max_worker_rss", "1000", "--init_concurrency", "2", "--reload")
    server = start("echo.py", *options, WORKER_PRELOAD="true")
    assert server.score("x").json() == "x"
    where = " has no effect on Windows, where workers are threads: "
    told = [record.message.partition(where) for record in server.records(level="W")]
    names = ["WORKER_PRELOAD", "--max_requests", "--max_worker_rss", "--init_concurrency", "--reload"]
    assert [name for name, _, reason in told if reason] == names


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--worker_class", "process"), "--worker_class process needs fork(), which Windows does not have: "),
        (("--worker_threads", "2"), "--worker_threads=2 needs --worker_class process, which Windows does not have: "),
        (("validate",), "this system has no fork(), which the check needs: run it in Linux, such as in WSL"),
    ],
)
def test_what_needs_processes_is_refused_with_one_line(tmp_path, options, line):
    environment = {**os.environ, "AZMLINFSRV_WORKER_CLASS": ""}
    command = [*COMMAND, *options, "--entry_script", path_in_server(SCRIPTS / "echo.py")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode in (1, 2), done
    assert len(done.stderr.splitlines()) == 1
    assert line in done.stderr


def test_a_port_in_use_is_refused(start):
    server = start("echo.py")
    other = start("echo.py", "--port", str(server.port), ready=False)
    assert other.wait_for_exit() == 1
    reasons = "is in use by another process|may not be opened: another process has it for itself"
    assert re.search(f"port {server.port} on 0.0.0.0 ({reasons})", other.stderr())
    assert server.score("x").json() == "x"


PLACES = """import locale, os, pathlib, tempfile

def init():
    global model
    model = (pathlib.Path(os.environ["AZUREML_MODEL_DIR"]) / "model.txt").read_text(encoding="utf-8")

def run(data):
    with tempfile.NamedTemporaryFile() as file:
        return [model, locale.getpreferredencoding(False), os.path.dirname(file.name)]
"""


def test_paths_of_windows_in_a_configuration_file(start, tmp_path):
    user = "Jos\u00e9 \u03a9"
    temporary = tmp_path / user
    temporary.mkdir()
    settings = {"AZUREML_ENTRY_SCRIPT": f"{user}\\score.py"}
    files = {
        f"{user}/score.py": PLACES,
        f"{user}/model.txt": "\u03a9",
        # As Notepad saves it.
        f"{user}/config.json": "\ufeff" + json.dumps(settings, indent=1, ensure_ascii=False).replace("\n", "\r\n"),
    }
    config_file = f"{user}\\config.json"
    options = ("--config_file", config_file, "--model_dir", user)
    server = start(None, *options, files=files, LANG="C.UTF-8", TMPDIR=str(temporary))
    # The code page is none of the server's doing.
    assert server.score("x").json() == ["\u03a9", "cp1252", path_in_server(temporary)]
    assert f"Config File: {path_in_server(server.folder)}\\{config_file}" in server.stdout()


def test_no_folder_for_temporary_files_is_needed(start):
    server = start("echo.py", TMPDIR="")
    assert server.score("x").json() == "x"
