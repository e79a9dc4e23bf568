"""What a terminal gets: when it is a short start, colours and progress, and their text."""

from __future__ import annotations

import os
import re

import pytest
from surroundings import fill

import azureml_inference_server_http as package
from azureml_inference_server_http.launch import display
from azureml_inference_server_http.launch.progress import PATIENCE, Progress, line
from azureml_inference_server_http.launch.settings import RawSettings, load

CODES = re.compile(r"\x1b\[[0-9]+m")


@pytest.mark.parametrize(
    ("environment", "terminal", "plain", "interactive", "colour"),
    [
        ({}, True, False, True, True),
        ({}, False, False, False, False),
        ({}, True, True, False, False),
        ({"TERM": "dumb"}, True, False, False, False),
        ({"NO_COLOR": "1"}, True, False, True, False),
        ({"NO_COLOR": ""}, True, False, True, True),
        ({"FORCE_COLOR": "1"}, False, False, False, True),
        ({"FORCE_COLOR": "0"}, True, False, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False, True, False),
        ({"FORCE_COLOR": "1"}, True, True, False, False),
    ],
)
def test_who_gets_what(environment, terminal, plain, interactive, colour):
    assert display.is_interactive(environment, terminal, plain) == interactive
    assert display.has_colour(environment, interactive, plain) == colour


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("POST /score 200 5.385ms 8", "32"),
        ("GET /score?a=302 302 0.057ms N/A", "36"),
        ("POST /score 404 1.000ms 10", "33"),
        ("POST /score 500 2.891ms 92", "31"),
    ],
)
def test_the_status_of_a_request_has_a_colour(text, code):
    record = f"2026-11-30 12:00:00,123 I [1] azmlinfsrv - {text}"
    coloured = display.record(record)
    status = re.search(r" (\d{3}) \d+\.", text)[1]
    assert f" \x1b[{code}m{status}\x1b[0m " in coloured
    assert CODES.sub("", coloured) == record


@pytest.mark.parametrize(
    "text", ["E [1] azmlinfsrv - Traceback\n  File 1\nError: 200", "I [1] azmlinfsrv - it took 200 s"]
)
def test_other_records_keep_their_text(text):
    record = f"2026-11-30 12:00:00,123 {text}"
    coloured = display.record(record)
    assert CODES.sub("", coloured) == record
    assert ("\x1b[31mE\x1b[0m" in coloured) == text.startswith("E")
    assert display.record("no record") == "no record"


def test_the_short_start_says_what_is_not_default(monkeypatch):
    monkeypatch.setattr(package, "__version__", "9.8.7", raising=False)
    environment = {"SCORING_TIMEOUT_MS": "500", "WORKER_TIMEOUT": "300", "AML_APP_INSIGHTS_KEY": "secret"}
    environment["APPLICATIONINSIGHTS_CONNECTION_STRING"] = "InstrumentationKey=secret"
    flags = {"entry_script": "score.py", "worker_count": 2, "port": 6001, "max_queue": 10}
    settings = load(RawSettings(flags, environment, "/folder"))
    assert "\n".join(display.start(settings, colour=False)) == (
        """
Azure ML Inferencing HTTP server v9.8.7

  address  http://127.0.0.1:6001 and every other address of this machine
  try it   http://127.0.0.1:6001/docs in a browser
  routes   POST /score, GET / (health), GET /swagger.json
  script   /folder/score.py
  model    none (--model_dir names its folder)
  workers  2 processes
  settings --appinsights_instrumentation_key=***, SCORING_TIMEOUT_MS=500, --max_queue=10, \
--appinsights_connection_string=***

Press Ctrl-C to stop the server.
"""
    )
    assert CODES.sub("", "\n".join(display.start(settings, colour=True))) == "\n".join(display.start(settings, False))


def test_the_line_about_progress_fits_the_terminal():
    assert line(12.4, 3 * 2**20, "Loading 3/7", 80) == "The script is loading: 12 s, 3 MiB, Loading 3/7"
    assert line(2.0, None, "", 80) == "The script is loading: 2 s"
    assert len(line(2.0, None, "x" * 200, 40)) == 39


@pytest.fixture
def shown(pipe):
    """A progress that writes to a pipe, and what it has written since the last look."""
    reader, writer = pipe
    os.set_blocking(reader, False)
    progress = Progress(writer)

    def look():
        progress.draw()
        try:
            return os.read(reader, 4096).decode()
        except BlockingIOError:
            return ""

    return progress, look


def test_progress_is_drawn_after_a_while_and_erased_at_the_end(shown, monkeypatch):
    progress, look = shown
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    assert look() == ""
    progress.begin()
    progress.note("first\nLoading \x1b[31m1/2\n")
    assert look() == ""
    now += PATIENCE
    assert re.fullmatch(r"\x1b\[KThe script is loading: 2 s, \d+ MiB, Loading \[31m1/2\r", look())
    # A record of the log replaces the line, and the next look draws it again.
    assert (progress.erasing(), progress.erasing()) == ("\x1b[K", "")
    assert "The script is loading" in look()
    progress.end()
    assert (look(), look()) == ("\x1b[K", "")


def test_progress_of_a_process_that_died_is_erased(shown, monkeypatch):
    progress, look = shown
    progress._write(1.0, 2**31 - 1, True, b"")
    assert look() == "\x1b[K"


def test_a_terminal_that_takes_no_output_does_not_block(pipe):
    _, writer = pipe
    progress = Progress(writer)
    progress._write(1.0, os.getpid(), False, b"")
    fill(writer)
    progress.draw()
    assert not progress._read()[2]


@pytest.mark.parametrize(
    ("host", "in_url", "local"),
    [
        ("::1", "[::1]", "[::1]"),
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
        ("::", "[::]", "127.0.0.1"),
        ("", "", "127.0.0.1"),
        ("name", "name", "name"),
    ],
)
def test_hosts_in_urls(host, in_url, local):
    assert (display.host_in_url(host), display.local_host(host)) == (in_url, local)
