"""What differs on Windows: events of the console, texts, paths. ``make test-windows`` runs this file under Wine."""

from __future__ import annotations

import os
import signal

import pytest
from harness import running

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


def test_no_folder_for_temporary_files_is_needed(start):
    server = start("echo.py", TMPDIR="")
    assert server.score("x").json() == "x"
