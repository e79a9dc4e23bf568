"""A start by the command line: errors of settings, and the order of what is done."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest
from starting import WORKERS, ListenError, LogConfigError, Start

import azureml_inference_server_http as package
from azureml_inference_server_http import launch
from azureml_inference_server_http.launch import cores, thread_pools
from azureml_inference_server_http.launch.settings import Settings

KEY = "0aaaaaaa-0000-0000-0000-000000000000"


# ---- Errors of settings


def test_wrong_settings_are_told_on_one_line_each(start: Start) -> None:
    Path("c.json").write_text('{"SCORING_TIMEOUT_MS": "soon"}')
    outcome = start("--config_file", "c.json", WORKER_COUNT="x", WORKER_TIMEOUT="-1", AZUREML_LOG_LEVEL="LOUD")
    assert (outcome.code, outcome.out, outcome.settings) == (1, "", None)
    seconds = "a whole number of seconds, 0 or more (0 means no limit), at most 1000000000000000"
    assert outcome.err.splitlines() == [
        f"azmlinfsrv: error: WORKER_COUNT='x' is not allowed: {WORKERS[1:-1]} (environment variable WORKER_COUNT)",
        f"azmlinfsrv: error: WORKER_TIMEOUT='-1' is not allowed: it must be {seconds} "
        "(environment variable WORKER_TIMEOUT)",
        'azmlinfsrv: error: SCORING_TIMEOUT_MS="soon" is not allowed: it must be a whole number of milliseconds, 0 or '
        f"more (0 means no limit), at most 1000000000000000 (key SCORING_TIMEOUT_MS in {os.path.realpath('c.json')})",
    ]


def test_unusable_config_file(start: Start) -> None:
    Path("config.json").write_text("{")
    code, out, err, settings = start("--entry_script", "s.py")
    assert (code, err, settings) == (3, "", None)
    first, second = out.splitlines()
    assert first == "I azmlinfsrv - Loaded logging config from here"
    assert second == (
        f"C azmlinfsrv - Invalid config file!: {os.path.realpath('config.json')} is not JSON (Expecting property name "
        "enclosed in double quotes: line 1 column 2 (char 1)). It must be UTF-8 text with one JSON object, such as "
        '{"SCORING_TIMEOUT_MS": 60000}. Correct it, remove it, or name another file with --config_file.'
    )


def test_unusable_config_file_beside_a_wrong_variable(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("config.json").write_text("[]")
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    outcome = start("--entry_script", "s.py", WORKER_COUNT="x")
    assert outcome.code == 3
    assert "azmlinfsrv: error: WORKER_COUNT='x' is not allowed" in outcome.err
    assert [record.getMessage()[:21] for record in caplog.records] == ["Invalid config file!:"]


def test_unusable_logging_config(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def configure(settings: Settings) -> None:
        raise LogConfigError("logging.json is broken")

    monkeypatch.setattr(sys.modules[f"{package.__name__}.log_config"], "configure", configure)
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    outcome = start("--entry_script", "s.py")
    assert (outcome.code, outcome.settings) == (3, None)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("CRITICAL", "Invalid config file!: logging.json is broken")


@pytest.mark.parametrize("arguments", [(), ("--entry_script=",), ("--config_file", "", "--port", "7000")])
def test_neither_script_nor_config_file(start: Start, arguments: tuple[str, ...]) -> None:
    outcome = start(*arguments, AZUREML_ENTRY_SCRIPT="s.py", AZUREML_CONFIG_FILE="c.json")
    assert (outcome.code, outcome.err, outcome.settings) == (1, "", None)
    assert outcome.out.splitlines() == [
        "I azmlinfsrv - Loaded logging config from here",
        "E azmlinfsrv - Error!",
        "E azmlinfsrv - Either provide an entry_script using --entry_script or provide a path to the configuration "
        "file using --config_file",
    ]


def test_current_folder_is_gone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    assert start("--entry_script", "s.py")[:3] == (
        1,
        "",
        "azmlinfsrv: error: the current folder does not exist any more: change to one that does\n",
    )


# ---- A start


def test_order_of_a_start(start: Start) -> None:
    Path("config.json").write_text('{"SERVICE_NAME": "s", "foo": 1}')
    code, out, err, settings = start("--entry_script", "s.py", "--port", "7001", "--appin", KEY)
    assert (code, err) == (42, "")
    assert settings is not None
    lines = [line for line in out.splitlines() if line]
    assert lines[:5] == [
        "I azmlinfsrv - Loaded logging config from here",
        "The environment variable 'AZUREML_MODEL_DIR' has not been set.",
        "Use the --model_dir command line argument to set it.",
        "Valid Application Insights instrumentation key provided.",
        "Azure ML Inferencing HTTP server v9.8.7",
    ]
    config = os.path.realpath("config.json")
    assert lines[-4:] == [
        "Score:          POST  127.0.0.1:7001/score",
        f"I azmlinfsrv - Settings read from {config}: SERVICE_NAME",
        f"W azmlinfsrv - Keys in {config} that have no effect: 'foo'",
        "processes start 7001",
    ]
    assert out.count("Azure ML Inferencing HTTP server") == 1


def test_a_port_that_was_taken_in_place_of_0_is_the_one_everybody_sees(start: Start) -> None:
    outcome = start("--entry_script", "s.py", "--port", "0")
    assert outcome.settings is not None
    assert outcome.settings.port == 54321
    assert "Server Port: 54321\n" in outcome.out
    assert "Score:          POST  127.0.0.1:54321/score\n" in outcome.out
    assert "processes start 54321" in outcome.out


def test_a_listener_that_cannot_be_opened_is_told_on_one_line(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings) -> None:
        raise ListenError("port 1 is in use")

    monkeypatch.setattr(sys.modules[f"{launch.__name__}.listeners"], "open_all", fail)
    outcome = start("--entry_script", "s.py")
    assert (outcome.code, outcome.err) == (1, "azmlinfsrv: error: port 1 is in use\n")


def test_threads_take_over_where_they_are_asked_for(start: Start) -> None:
    outcome = start("--entry_script", "s.py", "--worker_class", "thread")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (43, "threads start")


def test_a_missing_native_module_is_told_on_one_line(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{package.__name__}._core", None)
    monkeypatch.delattr(package, "_core", raising=False)
    outcome = start("--entry_script", "s.py")
    assert outcome.code == 1
    assert outcome.err.startswith("azmlinfsrv: error: the native module is missing.")
    assert len(outcome.err.splitlines()) == 1


def test_nothing_extra_is_said_without_reason(start: Start) -> None:
    os.mkdir("m")
    out = start("--entry_script", "s.py", AZUREML_MODEL_DIR="m", AML_APP_ROOT=os.getcwd()).out
    assert out.splitlines()[0] == "I azmlinfsrv - Loaded logging config from here"
    assert out.splitlines()[1:3] == ["", "Azure ML Inferencing HTTP server v9.8.7"]
    assert out.endswith("/score\n\nprocesses start 5001\n")


def test_folders_that_do_not_exist_are_named(start: Start) -> None:
    out = start("--entry_script", "s.py", "--model_dir", "no/models", AML_APP_ROOT="/no/app").out.splitlines()
    assert [line for line in out if line.startswith("W ")] == [
        "W azmlinfsrv - The folder no/models does not exist (--model_dir).",
        "W azmlinfsrv - The folder /no/app does not exist (AML_APP_ROOT).",
    ]


def test_environment_is_set_for_the_script_and_the_file_stays_out_of_it(start: Start) -> None:
    Path("config.json").write_text('{"SERVICE_NAME": "s", "AZUREML_MODEL_DIR": "m"}')
    settings = start("--entry_script", "s.py", "--rest", "--worker_count", "2").settings
    assert settings is not None
    assert (settings.service_name, settings.model_dir) == ("s", "m")
    assert os.environ["AZUREML_ENTRY_SCRIPT"] == os.path.realpath("s.py")
    assert (os.environ["WORKER_COUNT"], os.environ["TRANSPORT_PROTOCOL"]) == ("2", "rest")
    assert os.environ["SERVER_SOFTWARE"] == "azmlinfsrv/9.8.7"
    assert "SERVICE_NAME" not in os.environ
    assert "AZUREML_MODEL_DIR" not in os.environ


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        (("--worker_count", "2"), "4"),
        (("--worker_count", "2", "--thread_pools", "off"), None),
        (("--worker_count", "2", "--worker_class", "thread"), None),
        (("--worker_count", "2", "--worker_env", "OMP_NUM_THREADS=2"), None),
        (("--worker_count", "2", "--worker_env", "OMP_NUM_THREADS={worker}"), None),
        (("--worker_count", "2", "--worker_env", "A=2"), "4"),
        ((), None),
    ],
)
def test_thread_pools_get_their_share_of_the_cores(
    start: Start, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], threads: str | None
) -> None:
    monkeypatch.setattr(cores, "usable", lambda: cores.Cores(8, "a test"))
    start("--entry_script", "s.py", *options)
    assert {os.environ.get(name) for name in thread_pools.NAMES} == {threads}


def test_thread_pools_that_are_too_large_are_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable", lambda: cores.Cores(4, "a test"))
    outcome = start("--entry_script", "s.py", "--worker_count", "2", OMP_NUM_THREADS="4")
    assert "OMP_NUM_THREADS=4 lets 2 workers compute with 8 threads on 4 cores (a test)" in outcome.out
    assert "MKL_NUM_THREADS" not in os.environ


def test_thread_pools_of_worker_variables_count_as_the_users_own(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable", lambda: cores.Cores(4, "a test"))
    options = ("--worker_count", "2", "--worker_env", "OMP_NUM_THREADS=4")
    outcome = start("--entry_script", "s.py", *options, OMP_NUM_THREADS="1")
    assert "OMP_NUM_THREADS=4 lets 2 workers compute with 8 threads on 4 cores (a test)" in outcome.out


def test_samples_must_be_in_a_folder(start: Start) -> None:
    outcome = start("--entry_script", "s.py", "--warmup_samples", "none")
    assert outcome.code == 1
    assert "--warmup_samples: there is no folder " in outcome.err


def test_refused_start_leaves_the_environment_alone(start: Start) -> None:
    before = dict(os.environ)
    start("--entry_script", "s.py", WORKER_COUNT="x")
    start("--port", "7000")
    assert dict(os.environ) == before
