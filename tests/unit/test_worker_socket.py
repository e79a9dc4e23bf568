"""The socket for workers and its private folder."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile

import pytest

from azureml_inference_server_http import worker_socket
from azureml_inference_server_http.worker_socket import WorkerSocket


@pytest.fixture
def short(monkeypatch):
    """A current folder with a short path, where sockets can be bound by a relative one."""
    with tempfile.TemporaryDirectory(prefix="azt-") as folder:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield folder


def test_the_folder_is_private_and_in_the_temporary_folder(short):
    made = WorkerSocket()
    folder = os.path.dirname(made.path)
    assert os.path.dirname(folder) == short
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    other = WorkerSocket()
    assert other.path != made.path
    for one in (made, other):
        one.listener.close()


def test_the_path_is_absolute_whatever_the_temporary_folder(short, monkeypatch):
    monkeypatch.setenv("TMPDIR", ".")
    made = WorkerSocket()
    made.listener.close()
    assert made.path.startswith(f"{short}/azmlinfsrv-")


@pytest.mark.parametrize("name", ["missing", "n" * 100], ids=["missing", "too long for a socket"])
def test_an_unusable_temporary_folder_is_replaced(tmp_path, monkeypatch, name):
    if name != "missing":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    made = WorkerSocket()
    made.listener.close()
    made.remove()
    assert made.path.startswith("/tmp/azmlinfsrv-")


def test_no_folder_at_all_is_told(monkeypatch):
    monkeypatch.setattr(worker_socket, "MAX_PATH", 10)
    with pytest.raises(SystemExit, match="Set TMPDIR"):
        WorkerSocket()


def test_the_folder_is_removed_with_its_socket(short, records):
    made = WorkerSocket()
    made.listener.close()
    made.remove()
    assert os.listdir(short) == []
    made.remove()
    assert records() == []


def test_a_folder_with_something_else_in_it_stays(short, records):
    made = WorkerSocket()
    made.listener.close()
    folder = os.path.dirname(made.path)
    os.mkdir(os.path.join(folder, "precious"))
    made.remove()
    assert "precious" in os.listdir(folder)
    ((level, text),) = records()
    assert (level, text.startswith(f"Cannot remove {folder}: ")) == ("WARNING", True)


def test_a_socket_that_was_deleted_is_made_again(short, records):
    made = WorkerSocket()
    assert not made.renew()
    shutil.rmtree(os.path.dirname(made.path))
    assert made.renew()
    ((level, text),) = records()
    assert (level, made.path in text) == ("ERROR", True)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(made.path)
    assert stat.S_IMODE(os.stat(os.path.dirname(made.path)).st_mode) == 0o700
    made.listener.close()
