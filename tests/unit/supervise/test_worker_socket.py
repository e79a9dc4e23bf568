"""The pair of sockets through which workers connect."""

from __future__ import annotations

import os
import socket

import pytest

from azureml_inference_server_http.supervise.worker_socket import WorkerSocket


@pytest.fixture
def made():
    made = WorkerSocket()
    yield made
    made.front_end.close()
    made.worker_end.close()


def test_it_has_no_name_and_programs_do_not_inherit_it(made):
    for end in (made.front_end, made.worker_end):
        assert not end.getsockname()
        assert not end.get_inheritable()


def test_a_connection_waits_for_a_front(made):
    ours, theirs = socket.socketpair()
    socket.send_fds(made.worker_end, [b"\n"], [theirs.fileno()])
    theirs.close()
    ours.sendall(b"hello")
    _, (received,), _, _ = socket.recv_fds(made.front_end, 1, 1)
    with ours, socket.socket(fileno=received) as connection:
        assert connection.recv(5) == b"hello"


def test_no_folder_is_used(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = WorkerSocket()
    other.front_end.close()
    other.worker_end.close()
    assert os.listdir(tmp_path) == []
