"""What the watcher of --reload sees of files, and what the supervisor makes of its lines; without a
process."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from azureml_inference_server_http.supervise import events, watcher, watching
from azureml_inference_server_http.supervise.file_changes import ABSENT


def test_a_file_that_is_replaced_by_one_of_the_same_time_and_size_differs(tmp_path):
    file, other = tmp_path / "a.py", tmp_path / "b.py"
    file.write_text("x = 1")
    other.write_text("x = 2")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    os.utime(other, ns=times)
    before = watcher.fingerprint(str(file))
    assert before == watcher.fingerprint(str(file))
    os.replace(other, file)
    assert watcher.fingerprint(str(file)) != before


@pytest.mark.parametrize("name", ["missing.py", "x" * 300, "a\0b"])
def test_a_file_that_cannot_be_looked_at_is_absent(tmp_path, name):
    assert watcher.fingerprint(str(tmp_path / name)) == ABSENT


def test_a_look_sees_named_files_and_those_of_folders_that_gitignore_leaves(tmp_path):
    for name in ("score.py", "src/a.py", "src/a.log", "src/.hidden", "src/.gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("*.log\n")
    seen = watcher.look([str(tmp_path / "score.py"), str(tmp_path / "missing")], [str(tmp_path / "src")])
    assert {os.path.relpath(path, tmp_path): value != ABSENT for path, value in seen.items()} == {
        "score.py": True,
        "missing": False,
        os.path.join("src", "a.py"): True,
    }


@pytest.fixture
def watched(tmp_path, pipe):
    """The supervisor's side; ``watched.watcher`` is the watcher's end of the socket, and
    ``watched.write`` writes to the pipe as a worker does."""
    settings = SimpleNamespace(
        app_root=str(tmp_path), entry_script="score.py", source_directory=None, reload_dir=None, config_file_read=None
    )
    made = watching.Watching(settings)
    ours, theirs = socket.socketpair()
    made.begin(os.getpid(), ours)
    yield SimpleNamespace(made=made, watcher=theirs, write=lambda line: os.write(made._writer, line))
    theirs.close()
    made.close_in_child()
    os.close(made._writer)


def test_lines_of_the_watcher_become_events(watched, records):
    watched.watcher.sendall(b"changed score.py and 1 other file\nsettings /x/config.json\nchanged a.")
    assert list(watched.made.read()) == [events.FilesChanged("score.py and 1 other file")]
    watched.watcher.sendall(b"py\n")
    assert list(watched.made.read()) == [events.FilesChanged("a.py")]
    assert records()[-1] == (
        "WARNING",
        "/x/config.json changed. Its settings are read once: restart the server to apply them.",
    )


def test_lines_of_workers_become_events_or_are_passed_on(watched):
    watched.write(b"imported 1:2:3 /x/a b.py\nfailed 12 score.py:1 ValueError\tno: such\n")
    assert list(watched.made.read()) == [events.LoadFailed(12, "score.py:1 ValueError", "no: such")]
    assert watched.watcher.recv(4096) == b"imported 1:2:3 /x/a b.py\n"


def test_a_watcher_that_does_not_read_blocks_nobody(watched, records):
    line = b"imported 1:2:3 /x/" + b"y" * 4000 + b"\n"
    while not any("the watcher is busy" in text for _, text in records()):
        watched.write(line)
        assert list(watched.made.read()) == []


def test_a_watcher_that_has_ended_is_polled_no_more(watched):
    assert len(watched.made.descriptors) == 2
    watched.watcher.close()
    assert list(watched.made.read()) == []
    assert len(watched.made.descriptors) == 1
    watched.write(b"imported 1:2:3 /x/a.py\n")
    assert list(watched.made.read()) == []
