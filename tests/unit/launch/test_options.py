"""The command line: options, abbreviations, help, version, and the errors of what is typed.

Needs no server: `conftest.py` replaces the modules that would start one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from starting import COUNTS, WORKERS, Outcome, Start

import azureml_inference_server_http as package
from azureml_inference_server_http.launch import display
from azureml_inference_server_http.launch.settings_table import BOOLEAN, SETTINGS

ORIGINAL_OPTIONS = [
    "--help",
    "--entry_script",
    "--model_dir",
    "--appinsights_instrumentation_key",
    "--port",
    "--health_port",
    "--worker_count",
    "--access_control_allow_origins",
    "--config_file",
    "--rest",
]
NEW_OPTIONS = ["--version", *(setting.flag for setting in SETTINGS if setting.flag and not setting.original)]


# ---- Help and version


def test_help(start: Start) -> None:
    code, out, err, _ = start("--help")
    assert (code, err) == (0, "")
    assert out.startswith(
        "usage: azmlinfsrv --entry_script FILE [options]\n\nAzure ML Inferencing HTTP server v9.8.7\n"
    )
    assert start("-h").out == out


def test_help_names_every_option_and_variable_but_not_rest(start: Start) -> None:
    out = start("--help").out
    for setting in SETTINGS:
        for name in (setting.flag, setting.environment):
            if name is not None and not setting.hidden:
                assert name in out, name
    assert "--rest" not in out
    assert "Default: 5001." in out
    assert "Environment: WORKER_COUNT." in out
    assert "SCORING_TIMEOUT_MS *" in out
    assert "WORKER_TIMEOUT\n" in out


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_help_fits_the_terminal(start: Start, columns: int) -> None:
    out = start("--help", COLUMNS=str(columns)).out
    # Only the longest option may exceed the width, because it is alone on its line.
    assert all(len(line) < min(columns, 110) for line in out.splitlines() if not line.lstrip().startswith("-"))


def test_version(start: Start) -> None:
    assert start("--version")[:3] == (0, "azmlinfsrv 9.8.7\n", "")


# ---- Errors of the command line


def assert_usage_error(outcome: Outcome, text: str) -> None:
    assert outcome.code == 1
    assert outcome.err == f"usage: azmlinfsrv --entry_script FILE [options]\nazmlinfsrv: error: {text}\n"
    assert outcome.out.startswith("\nAzure ML Inferencing HTTP server v9.8.7\n")
    assert "usage:" not in outcome.out
    assert "--worker_count" in outcome.out
    assert outcome.settings is None


PORTS = "(it must be a whole number from 0 to 65535 (0 takes a free port))"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port=-1"], f"argument --port: invalid validate_port value: '-1' {PORTS}"),
        (["--port", "65536"], f"argument --port: invalid validate_port value: '65536' {PORTS}"),
        (["--port=x"], f"argument --port: invalid validate_port value: 'x' {PORTS}"),
        (["--po", "7.0"], f"argument --port: invalid validate_port value: '7.0' {PORTS}"),
        (["--health_port=-1"], f"argument --health_port: invalid validate_port value: '-1' {PORTS}"),
        (["--worker_count", "abc"], f"argument --worker_count: invalid validate_worker_count value: 'abc' {WORKERS}"),
        (["--worker_count", "0"], f"argument --worker_count: invalid validate_worker_count value: '0' {WORKERS}"),
        (["--max_queue", "0"], f"argument --max_queue: invalid value: '0' {COUNTS}"),
        (
            ["--max_request_size", "x"],
            "argument --max_request_size: invalid value: 'x' "
            "(it must be a whole number of bytes, 1 or more, at most 1000000000000000)",
        ),
        (
            ["--graceful_timeout", "-1"],
            "argument --graceful_timeout: invalid value: '-1' "
            "(it must be a whole number of seconds, 0 or more, at most 1000000000)",
        ),
        (["--host", ""], "argument --host: invalid value: '' (it must be an IP address or a host name)"),
        (["--port"], "argument --port: expected one argument"),
        (["--rest=3"], "argument --rest: ignored explicit argument '3'"),
        (["--bogus", "extra"], "unrecognized arguments: --bogus extra"),
        (["extra"], "unrecognized arguments: extra"),
        (["--entry-script", "x"], "unrecognized arguments: --entry-script x (did you mean --entry_script?)"),
        (["--entry-script=x"], "unrecognized arguments: --entry-script=x (did you mean --entry_script?)"),
        (["--entry_scrpt", "x.py"], "unrecognized arguments: --entry_scrpt x.py (did you mean --entry_script?)"),
        (["--worker-cuont=2"], "unrecognized arguments: --worker-cuont=2 (did you mean --worker_count?)"),
        (["score.py"], "unrecognized arguments: score.py (did you mean --entry_script score.py?)"),
        (
            ["--a", "x"],
            "ambiguous option: --a could match --appinsights_instrumentation_key, --access_control_allow_origins",
        ),
        (["--h"], "ambiguous option: --h could match --help, --health_port"),
        (
            ["--max", "1"],
            "ambiguous option: --max could match --max_queue, --max_request_size, --max_buffered, "
            "--max_concurrency, --max_batch_size, --max_requests, --max_worker_rss",
        ),
    ],
)
def test_usage_errors(start: Start, arguments: list[str], text: str) -> None:
    assert_usage_error(start(*arguments), text)


def test_people_read_no_name_of_a_function(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "is_interactive", lambda *_: True)
    error = start("--port", "abc").err.splitlines()[1]
    assert error == f"azmlinfsrv: error: argument --port: invalid value: 'abc' {PORTS}"


def test_a_terminal_ends_with_what_was_wrong() -> None:
    """On a terminal both streams appear together."""
    command = [sys.executable, "-m", package.__name__, "--entry_scrpt", "score.py"]
    folder = Path(package.__file__ or "").parents[1]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, timeout=30, check=False
    )
    *help_text, usage, error = done.stdout.splitlines()
    assert "--worker_count" in "".join(help_text)
    assert usage.startswith("usage: ")
    assert error.endswith("unrecognized arguments: --entry_scrpt score.py (did you mean --entry_script?)")


def meaning(prefix: str) -> str | None:
    """The option that an abbreviation means: options of 1.5.1 first. None if it is ambiguous."""
    for options in (ORIGINAL_OPTIONS, NEW_OPTIONS):
        matches = [option for option in options if option.startswith(prefix)]
        if matches:
            return matches[0] if len(matches) == 1 or prefix in matches else None
    raise AssertionError(prefix)


@pytest.mark.parametrize(
    "prefix",
    sorted({option[:end] for option in ORIGINAL_OPTIONS + NEW_OPTIONS for end in range(3, len(option) + 1)}),
)
def test_every_abbreviation(start: Start, prefix: str) -> None:
    expected = meaning(prefix)
    switches = {setting.flag for setting in SETTINGS if setting.kind == BOOLEAN}
    flagless = expected in {"--help", "--version", *switches}
    words = {setting.flag: setting.choices[0] for setting in SETTINGS if setting.choices}
    words.update((setting.flag, str(setting.maximum)) for setting in SETTINGS if (setting.maximum or 7123) < 7123)
    value = {
        **words,
        "--docs": "on",
        "--trusted_proxies": "10.0.0.1",
        "--worker_env": "A=1",
        "--warmup_samples": ".",
        "--protocols": "score",
    }.get(expected, "7123")
    outcome = start("--entry_script", "s.py", prefix, *([] if flagless or expected is None else [value]))
    if expected is None:
        assert_usage_error(outcome, outcome.err.split("error: ")[1].strip())
        assert f"ambiguous option: {prefix} could match" in outcome.err
    elif expected in ("--help", "--version"):
        assert outcome.code == 0
    else:
        name = next(setting.name for setting in SETTINGS if setting.flag == expected)
        assert outcome.settings is not None
        assert outcome.settings.origins[name] == ("option", expected)


def test_abbreviations_that_new_options_would_have_taken(start: Start) -> None:
    settings = start("--e", "s.py", "--m", "models", "--he", "7000").settings
    assert settings is None  # --he was ambiguous before, too
    settings = start("--e", "s.py", "--m", "models").settings
    assert settings is not None
    assert (settings.model_dir, settings.entry_script) == ("models", os.path.realpath("s.py"))


@pytest.mark.parametrize("text", [" 7100 ", "+7100", "0007100", "7_100"])
def test_option_numbers_go_through_int(start: Start, text: str) -> None:
    settings = start("--entry_script", "s.py", "--port", text).settings
    assert settings is not None
    assert settings.port == 7100


def test_last_repeat_wins(start: Start) -> None:
    settings = start("--entry_script=a.py", "--port", "7000", "--port=7001", "--entry_script", "b.py").settings
    assert settings is not None
    assert (settings.port, os.path.basename(settings.entry_script or "")) == (7001, "b.py")
