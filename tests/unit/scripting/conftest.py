"""Fixtures for the tests that load a script."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import sys
from types import SimpleNamespace

import pytest
from async_world import World
from inference_schema import schema_util
from loading import load

from azureml_inference_server_http.scripting import async_calls, import_path


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings whose app root is an empty folder, and nothing that another script left behind."""
    from azureml_inference_server_http.api import aml_request

    monkeypatch.setattr(aml_request, "_raw_requested", False)
    for memory in (schema_util.__functions_schema__, schema_util.__versions__):  # keyed by "entry_module.run"
        memory.clear()
    root = tmp_path / "app"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != import_path.SPAWNED])
    monkeypatch.delitem(sys.modules, "entry_module", raising=False)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield SimpleNamespace(
        app_root=str(root),
        entry_script="score.py",
        source_directory=None,
        model_dir=None,
        scoring_timeout_ms=400,
        worker_timeout=300,
        worker_preload=False,
        max_concurrency=100,
        worker_threads=1,
        serves_v2=False,
        origins={"max_concurrency": SimpleNamespace(kind="default")},
        host="0.0.0.0",
        port=5001,
        worker_class="process",
        worker_count=1,
        server_version="azmlinfsrv/1.5.1",
        error_details=False,
        client_errors=False,
    )
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def log(caplog, monkeypatch):
    """What has been logged so far: level, logger and text."""
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    caplog.set_level(logging.DEBUG, "azmlinfsrv")
    return lambda: [(record.levelname[0], record.name, record.getMessage()) for record in caplog.records]


@pytest.fixture
def batching_settings(settings):
    settings.max_batch_size, settings.batch_wait_ms = 8, 0
    return settings


@pytest.fixture
def batches_of(batching_settings, log):
    """Loads a script, and returns it with its batches, or with the reason why it has none."""

    def batches_of(text):
        script = load(batching_settings, text)
        found = script.batches()
        if found is not None:
            return script, found
        return script, next(message for level, _, message in log() if level == "W")

    return batches_of


@pytest.fixture
def world(settings, monkeypatch):
    """Loads an async script, and returns its calls."""
    monkeypatch.setattr(async_calls, "LONGEST_RUN", 0.01)
    made = []

    def make(source, **changes):
        script = load(
            SimpleNamespace(**{**vars(settings), **changes}),
            "import asyncio, contextvars, time\n" + inspect.cleandoc(source),
        )
        script.initialize()
        made.append(World(script))
        return made[-1]

    yield make
    while made:
        each = made.pop()
        each.calls.abandon()
        each.script.close_loop()
        each.front.close()
        each.worker.close()
        asyncio.set_event_loop(None)
        del each
    # asyncio reports a task whose exception nobody took when the task is collected. To format that, Python 3.11 parses
    # source text, which fails if the collection happens to come while another test's file is parsed. So it comes here.
    gc.collect()
