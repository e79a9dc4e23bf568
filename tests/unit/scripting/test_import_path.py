"""What the server adds to ``sys.path`` (contract section 4)."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from azureml_inference_server_http.scripting import import_path


@pytest.fixture
def path(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/console", "/lib"])
    return lambda: [folder for folder in sys.path if folder != import_path.SPAWNED]


def of(app_root, source_directory=None):
    return SimpleNamespace(app_root=app_root, source_directory=source_directory)


def test_app_root_and_source_directory_come_last_and_once(path):
    for _ in range(2):
        import_path.extend(of("/root", "src"))
    assert path() == ["/console", "/lib", "/root", "/root/src"]


def test_the_current_folder_comes_first_if_it_is_not_the_app_root(path):
    for _ in range(2):
        import_path.extend(of("/root", "src"), "/current")
    assert path() == ["/current", "/console", "/lib", "/root", "/root/src"]


def test_the_current_folder_stays_where_it_is(path):
    import_path.extend(of("/current", "src"), "/current")
    assert path() == ["/console", "/lib", "/current", "/current/src"]


def test_the_folder_for_spawned_processes_has_one_module(path):
    import_path.extend(of("/root"))
    assert sys.path == ["/console", "/lib", import_path.SPAWNED, "/root"]
    assert [name for name in os.listdir(import_path.SPAWNED) if name != "__pycache__"] == ["entry_module.py"]
