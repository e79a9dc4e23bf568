"""The command line: options, abbreviations, help, every error text and exit code, the order of a
start.

Needs no server: the module that would start processes is replaced, and so is logging.json, except
in one test.
"""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, NamedTuple

import pytest

import azureml_inference_server_http as package
from azureml_inference_server_http import launch, supervise
from azureml_inference_server_http.launch import cli
from azureml_inference_server_http.launch.settings import Settings
from azureml_inference_server_http.launch.settings_table import BOOLEAN, SETTINGS
from azureml_inference_server_http.scripting.watch import Watch

KEY = "0aaaaaaa-0000-0000-0000-000000000000"
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


class Outcome(NamedTuple):
    """The result of one start. ``settings`` are those with which the processes would have been
    started."""

    code: int
    out: str
    err: str
    settings: Settings | None


Start = Callable[..., Outcome]


class LogConfigError(Exception):
    """Replaces the exception class of log_config."""


class ListenError(Exception):
    """Replaces the exception class of listeners."""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Start]:
    """Run the command in an empty folder and environment, with log lines as ``L logger - message``
    on stdout."""
    monkeypatch.chdir(tmp_path)
    # Restored at the end, because a start adds folders.
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(package, "__version__", "9.8.7", raising=False)
    for name in list(os.environ):
        if name not in ("PATH", "HOME", "LANG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    logger = logging.getLogger("azmlinfsrv")
    before = logger.handlers[:], logger.level, logger.propagate
    environment_before = dict(os.environ)
    started: list[Settings] = []

    def configure(settings: Settings) -> None:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(levelname).1s %(name)s - %(message)s"))
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel("INFO")
        logger.info("Loaded logging config from here")

    def open_all(settings: Settings) -> tuple[Settings, list[Any]]:
        return settings._replace(port=settings.port or 54321), []

    def process_run(settings: Settings, clients: list[Any], watch: Watch) -> int:
        started.append(settings)
        print("processes start", os.environ.get("SERVER_PORT"))
        return 42

    def threads_run(settings: Settings, clients: list[Any], watch: Watch) -> int:
        started.append(settings)
        print("threads start")
        return 43

    log_config, processes, threads = ModuleType("log_config"), ModuleType("processes"), ModuleType("threads")
    listeners = ModuleType("listeners")
    listeners.open_all, listeners.ListenError = open_all, ListenError  # type: ignore[attr-defined]
    log_config.configure, log_config.LogConfigError = configure, LogConfigError  # type: ignore[attr-defined]
    processes.run, threads.run = process_run, threads_run  # type: ignore[attr-defined]
    places = ((package, log_config), (supervise, processes), (supervise, threads), (launch, listeners))
    for folder, module in places:
        name = module.__name__
        monkeypatch.setitem(sys.modules, f"{folder.__name__}.{name}", module)
        monkeypatch.setattr(folder, name, module, raising=False)

    def main(*arguments: str, **environment: str) -> Outcome:
        started.clear()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = cli.main(arguments)
        for name in environment:
            monkeypatch.delenv(name, raising=False)
        streams = capsys.readouterr()
        return Outcome(code, streams.out, streams.err, started[0] if started else None)

    yield main
    os.environ.clear()
    os.environ.update(environment_before)
    logger.handlers, logger.level, logger.propagate = before
    logger.setLevel(before[1])


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
COUNTS = "(it must be a whole number, 1 or more, at most 1000000000)"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port=-1"], f"argument --port: invalid validate_port value: '-1' {PORTS}"),
        (["--port", "65536"], f"argument --port: invalid validate_port value: '65536' {PORTS}"),
        (["--port=x"], f"argument --port: invalid validate_port value: 'x' {PORTS}"),
        (["--po", "7.0"], f"argument --port: invalid validate_port value: '7.0' {PORTS}"),
        (["--health_port=-1"], f"argument --health_port: invalid validate_port value: '-1' {PORTS}"),
        (["--worker_count", "abc"], f"argument --worker_count: invalid validate_worker_count value: 'abc' {COUNTS}"),
        (["--worker_count", "0"], f"argument --worker_count: invalid validate_worker_count value: '0' {COUNTS}"),
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
            "ambiguous option: --max could match --max_queue, --max_request_size, --max_buffered, --max_requests, "
            "--max_worker_rss",
        ),
    ],
)
def test_usage_errors(start: Start, arguments: list[str], text: str) -> None:
    assert_usage_error(start(*arguments), text)


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
    value = {"--worker_class": "process", "--metrics": "on"}.get(expected, "7123")
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


# ---- Errors of settings


def test_wrong_settings_are_told_on_one_line_each(start: Start) -> None:
    Path("c.json").write_text('{"SCORING_TIMEOUT_MS": "soon"}')
    outcome = start("--config_file", "c.json", WORKER_COUNT="x", WORKER_TIMEOUT="-1", AZUREML_LOG_LEVEL="LOUD")
    assert (outcome.code, outcome.out, outcome.settings) == (1, "", None)
    seconds = "a whole number of seconds, 0 or more (0 means no limit), at most 1000000000000000"
    assert outcome.err.splitlines() == [
        f"azmlinfsrv: error: WORKER_COUNT='x' is not allowed: {COUNTS[1:-1]} (environment variable WORKER_COUNT)",
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


def test_refused_start_leaves_the_environment_alone(start: Start) -> None:
    before = dict(os.environ)
    start("--entry_script", "s.py", WORKER_COUNT="x")
    start("--port", "7000")
    assert dict(os.environ) == before


# ---- Entry points


@pytest.mark.parametrize("module", ["__main__", "amlserver"])
def test_modules_can_be_run(module: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/__main__.py", "--entry_script", "s.py"])
    monkeypatch.delitem(sys.modules, f"{package.__name__}.{module}", raising=False)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(f"{package.__name__}.{module}", run_name="__main__")
    assert caught.value.code == 42


def test_old_console_entry() -> None:
    from azureml_inference_server_http import __main__, amlserver

    assert amlserver.run is __main__.run


def python(*arguments: str) -> str:
    """Run a new interpreter, which finds the package under test even with -S. Returns its
    output."""
    folder = Path(package.__file__ or "").parents[1]
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, timeout=30, check=True
    ).stdout


def test_with_the_real_logging_config() -> None:
    """Runs in a process of its own, because logging is configured for a whole process."""
    code = f"""
import os, sys, types
from {package.__name__} import supervise
processes = types.ModuleType("processes")
processes.run = lambda settings, clients, watch: print("pid", os.getpid()) or 0
supervise.processes = sys.modules["{package.__name__}.supervise.processes"] = processes
from {package.__name__}.launch import cli
sys.exit(cli.main(["--entry_script", "s.py", "--model_dir", "m"]))
"""
    lines = python("-c", code).splitlines()
    pid = lines[-1].replace("pid ", "")
    assert f" I [{pid}] azmlinfsrv - Loaded logging config from " in lines[0]
    assert lines[2].startswith("Azure ML Inferencing HTTP server v")


def test_start_up_imports_nothing_heavy() -> None:
    heavy = [
        "inspect",
        "dataclasses",
        "importlib.metadata",
        "shutil",
        "logging.config",
        "asyncio",
        "email",
        "json",
        "flask",
    ]
    code = (
        f"import sys, {package.__name__}.launch.cli as cli; cli.build_parser().parse_args(['--entry_script', 's.py']); "
    )
    # With -S, because modules that a .pth file of another package imports do not count.
    loaded = python("-S", "-c", code + f"print([name for name in {heavy!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_version_of_the_package(tmp_path: Path) -> None:
    """The version is read from the metadata folder beside the package, and only when it is asked
    for."""
    copy = tmp_path / "azureml_inference_server_http"
    copy.mkdir()
    (copy / "__init__.py").write_bytes(Path(package.__file__ or "").read_bytes())
    (tmp_path / "azureml_inference_server_http-4.5.6.dist-info").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {package.__name__} as p; "
        "early = '__version__' in vars(p); print(early, p.__version__, p._HAS_DEBUGPY_SUPPORT, "
        "'importlib.metadata' in sys.modules)"
    )
    assert python("-S", "-c", code).strip() == "False 4.5.6 True False"


def test_unknown_names_of_the_package() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _: Any = package.nothing
