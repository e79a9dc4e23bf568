"""Which files are the user's own, and what they are called."""

from __future__ import annotations

import ntpath
from types import SimpleNamespace

from azureml_inference_server_http.scripting import own_files


def test_the_name_is_relative_to_the_nearest_folder():
    assert own_files.name_of("/app/src/a/b.py", ("/app/src/", "/app/")) == "a/b.py"
    assert own_files.name_of("/APP/src/a.py", ("/app/",)) is None


def test_case_does_not_count_on_windows(monkeypatch):
    monkeypatch.setattr(own_files, "os", SimpleNamespace(path=ntpath, sep="\\"))
    assert own_files.name_of("c:\\App\\sub\\score.py", ("C:\\app\\",)) == "sub/score.py"
    assert own_files.name_of("C:\\other\\score.py", ("C:\\app\\",)) is None
