"""What a process that loads the script reports for --reload."""

from __future__ import annotations

import importlib
import os
import sys
from types import SimpleNamespace

import pytest

from azureml_inference_server_http.scripting.load_reports import LoadReports
from azureml_inference_server_http.scripting.watch import IMPORT
from azureml_inference_server_http.supervise.watcher import fingerprint


@pytest.fixture
def loading(tmp_path, monkeypatch, pipe):
    """Reports about a script in ``tmp_path``; ``loading.lines()`` are those that were written."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    reader, writer = pipe
    os.set_blocking(reader, False)

    def lines():
        try:
            return os.read(reader, 65536).decode().splitlines()
        except BlockingIOError:
            return []

    settings = SimpleNamespace(app_root=str(tmp_path), entry_script="score.py", source_directory=None)
    reports = LoadReports(settings, writer)
    reports.begins(IMPORT)
    yield SimpleNamespace(reports=reports, lines=lines, writer=writer)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def imported(path):
    return f"imported {fingerprint(str(path))} {path}"


def test_own_modules_are_reported_once_and_no_others(loading, tmp_path):
    (tmp_path / "reload_helper.py").write_text("import wave\n")
    importlib.import_module("reload_helper")
    assert loading.lines() == [imported(tmp_path / "reload_helper.py")]
    del sys.modules["reload_helper"]
    importlib.import_module("reload_helper")
    assert loading.lines() == []


def test_a_module_is_reported_before_it_fails(loading, tmp_path):
    (tmp_path / "reload_broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("reload_broken")
    assert loading.lines() == [imported(tmp_path / "reload_broken.py")]


def test_a_module_of_a_package_is_reported(loading, tmp_path):
    (tmp_path / "reload_package").mkdir()
    (tmp_path / "reload_package" / "__init__.py").write_text("")
    (tmp_path / "reload_package" / "part.py").write_text("")
    importlib.import_module("reload_package.part")
    assert loading.lines() == [imported(tmp_path / "reload_package" / name) for name in ("__init__.py", "part.py")]


def test_files_that_would_be_a_missing_module_are_reported(loading, tmp_path):
    with pytest.raises(ImportError):
        importlib.import_module("reload_missing")
    files = (tmp_path / "reload_missing.py", tmp_path / "reload_missing" / "__init__.py")
    assert loading.lines() == [f"imported - {file}" for file in files]


def test_no_byte_code_is_written(loading, tmp_path):
    (tmp_path / "reload_helper.py").write_text("")
    importlib.import_module("reload_helper")
    assert not (tmp_path / "__pycache__").exists()


def test_a_failure_is_one_line_with_the_place_of_the_cause(loading, tmp_path):
    (tmp_path / "reload_broken.py").write_text("\nraise ValueError('two\\nlines')\n")
    failure = RuntimeError("the import failed")
    try:
        importlib.import_module("reload_broken")
    except ValueError as error:
        failure.__cause__ = error
    loading.lines()
    loading.reports.failed(failure)
    assert loading.lines() == [f"failed {os.getpid()} reload_broken.py:2 ValueError\ttwo lines"]


def test_a_message_that_cannot_be_made_is_the_name_of_the_error(loading):
    class Rude(Exception):
        def __str__(self):
            raise KeyError

    loading.reports.failed(Rude())
    assert loading.lines() == [f"failed {os.getpid()} Rude\tRude"]


def test_names_that_are_no_line_are_left_out(loading, tmp_path):
    loading.reports.imported(str(tmp_path / "a\nb.py"))
    loading.reports.imported(str(tmp_path / ("x" * 5000)))
    assert loading.lines() == []


def test_nothing_is_written_into_a_file_that_has_taken_the_place_of_the_pipe(loading, tmp_path):
    # The script has closed all descriptors and opened a file.
    kept = os.dup(loading.writer)
    with open(tmp_path / "own", "w") as own:
        os.dup2(own.fileno(), loading.writer)
    loading.reports.imported(str(tmp_path / "helper.py"))
    assert (tmp_path / "own").read_text() == ""
    os.close(loading.writer)
    loading.reports.imported(str(tmp_path / "other.py"))
    os.dup2(kept, loading.writer)
    os.close(kept)
    assert loading.lines() == []
