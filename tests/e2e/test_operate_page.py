"""docs/operate.md: what it lets people type does what it says, and what it names exists."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import Server, Start, eventually, running

from azureml_inference_server_http.launch import cli, options
from azureml_inference_server_http.launch.settings_table import SETTINGS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operate.md").read_text(encoding="utf-8")
SERVE, WATCH = re.findall(r"^((?:azmlinfsrv|curl) .*)$", PAGE, re.MULTILINE)


def kill(server: Server, number: str) -> None:
    """Type the line of the page that sends this signal."""
    (line,) = re.findall(rf'^kill -{number} "\$pid" .*$', PAGE, re.MULTILINE)
    subprocess.run(["bash", "-ec", line], env={**os.environ, "pid": str(server.pid)}, check=True)


@pytest.fixture(scope="module")
def limited(shared: Start) -> Server:
    """A server with a queue for one request."""
    return shared("wait.py", "--max_queue", "1")


def test_signals_replace_add_and_remove_workers(start: Start):
    server = start("pid.py", "--host", "127.0.0.1")
    first = server.wait_for_workers(1)
    kill(server, "HUP")
    second = server.wait_for_workers(1, instead_of=first)
    kill(server, "TTIN")
    assert set(second) < set(server.wait_for_workers(2))
    kill(server, "TTOU")
    server.wait_for_workers(1)


@pytest.mark.parametrize(("number", "status"), [("TERM", 200), ("INT", 503)])
def test_signals_stop_the_server(start: Start, number: str, status: int):
    server = start("wait.py", "--host", "127.0.0.1")
    connection = running(server)
    kill(server, number)
    if number == "TERM":
        eventually(lambda: server.get("/readyz").status == 503, "the server is not ready after TERM")
        assert server.score().status == 503
        (server.folder / "a.go").touch()
    assert connection.read().status == status
    assert server.wait_for_exit() == 0


def test_a_full_queue_is_refused_with_the_status_of_the_page(limited: Server):
    first, second = running(limited), limited.score_later("b")
    depth = "\nazmlinfsrv_queue_depth 1\n"
    eventually(lambda: depth in limited.get("/metrics").text, "a request waits")
    refused = limited.score("c")
    assert (refused.status, refused["retry-after"]) == (503, "1")
    assert "| more than `--max_queue` requests wait | 503 with `Retry-After` |" in PAGE
    for name in ("a", "b"):
        (limited.folder / f"{name}.go").touch()
    assert first.read().status == second.result().status == 200


def test_metrics_of_the_page_exist(limited: Server):
    *_, url = WATCH.split()
    assert url == "http://127.0.0.1:5001/metrics"
    shown = limited.get("/metrics").text
    named = set(re.findall(r"`((?:azmlinfsrv|http_server)_\w+)`", PAGE))
    assert len(named) > 5
    assert {name for name in named if f"# TYPE {name} " not in shown} == set()


def test_the_command_against_overload():
    program, *words = SERVE.split()
    assert program == options.PROGRAM
    found = vars(options.build_parser().parse_args(words))
    assert found == {"entry_script": "score.py", "max_queue": 100, "queue_timeout": 5.0}


def test_the_unit_of_the_service():
    (text,) = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    unit = configparser.ConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    service = unit["Service"]
    program, *words = service["ExecStart"].split()
    assert Path(program).name == options.PROGRAM
    assert vars(options.build_parser().parse_args(words)) == {"entry_script": "score.py", "worker_count": 2}
    assert service["ExecReload"].split()[-2:] == ["-HUP", "$MAINPID"]
    assert set(service["RestartPreventExitStatus"].split()) == {str(options.EXIT_REFUSED), str(cli.EXIT_CANNOT_START)}
    (graceful,) = [setting.default for setting in SETTINGS if setting.name == "graceful_timeout"]
    assert int(service["TimeoutStopSec"]) >= graceful + 2
