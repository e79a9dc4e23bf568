"""Fixtures that resolve settings and that start the command."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from resolving import Load
from starting import ListenError, LogConfigError, Outcome, Start

import azureml_inference_server_http as package
from azureml_inference_server_http import launch, supervise
from azureml_inference_server_http.launch import cli, settings
from azureml_inference_server_http.launch.settings import RawSettings, Settings
from azureml_inference_server_http.scripting.watch import Watch


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Resolve options, variables and the text of config.json in the current folder."""
    monkeypatch.setattr(package, "__version__", "9.8.7", raising=False)

    def resolve(
        flags: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        file: Any = None,
    ) -> Settings:
        if file is not None:
            (tmp_path / "config.json").write_text(file if isinstance(file, str) else json.dumps(file))
        return settings.load(RawSettings(flags or {}, environment or {}, str(tmp_path)))

    return resolve


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
        assert frozen, "the collector still looks at the objects of the start"
        started.append(settings)
        print("processes start", os.environ.get("SERVER_PORT"))
        return 42

    def threads_run(settings: Settings, clients: list[Any], watch: Watch) -> int:
        assert frozen, "the collector still looks at the objects of the start"
        started.append(settings)
        print("threads start")
        return 43

    # Not the true one, because the objects of pytest would never be collected again.
    frozen: list[bool] = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(True))
    log_config, start, threads = ModuleType("log_config"), ModuleType("start"), ModuleType("start_threads")
    listeners = ModuleType("listeners")
    listeners.open_all, listeners.ListenError = open_all, ListenError  # type: ignore[attr-defined]
    log_config.configure, log_config.LogConfigError = configure, LogConfigError  # type: ignore[attr-defined]
    start.run, threads.run = process_run, threads_run  # type: ignore[attr-defined]
    places = ((package, log_config), (supervise, start), (supervise, threads), (launch, listeners))
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
