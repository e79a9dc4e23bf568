"""Every request of /score has its line in the log, whenever its client leaves (contract section
13)."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest
from harness import eventually, request

pytestmark = pytest.mark.any_worker_class

WAITS = """
import pathlib, time
from azureml_inference_server_http.api.aml_response import AMLResponse
pathlib.Path("started").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.005)
"""
REPLIES = {
    "whole": (WAITS + "answer = 'done'", r"ms 6"),
    "stream": (WAITS + "answer = AMLResponse((part for part in ['a', 'b']), 200)", r"ms N/A"),
}


def reset(connection):
    """Close with a reset, as a client that died with unread bytes does."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close(connection):
    connection.close()


@pytest.mark.parametrize("leave", [reset, close], ids=["reset", "close"])
@pytest.mark.parametrize("kind", REPLIES)
def test_a_request_that_runs_is_logged_though_its_client_has_left(start, kind, leave):
    server = start("obey.py")
    text, ending = REPLIES[kind]
    connection = server.connect().send(request("POST", "/score?left", text.encode()))
    eventually((server.folder / "started").exists, "run() has begun")
    leave(connection)
    (server.folder / "go").touch()
    record = server.wait_for_record("POST /score?left 200", logger="azmlinfsrv")
    assert record.message.endswith(ending)
    assert server.score("answer = 1").json() == 1
    lines = [record for record in server.records() if "/score?left" in record.message]
    assert len(lines) == 1


@pytest.mark.parametrize("leave", [reset, close], ids=["reset", "close"])
def test_a_request_that_never_ran_is_logged_and_never_runs(start, leave):
    server = start("obey.py")
    running = server.connect().send(request("POST", "/score?runs", REPLIES["whole"][0].encode()))
    eventually((server.folder / "started").exists, "run() has begun")
    waiting = server.connect().send(request("POST", "/score?waits", b"open('ran', 'w')"))
    # Sent later and answered: so the front has read the one before.
    assert server.get("/livez").status == 200
    leave(waiting)
    server.wait_for_record("POST /score?waits 503", logger="azmlinfsrv")
    (server.folder / "go").touch()
    assert running.read().json() == "done"
    assert server.score("answer = 1").json() == 1
    assert not (server.folder / "ran").exists()


def test_an_upload_that_is_broken_off_is_logged(start):
    server = start("obey.py")
    connection = server.connect()
    connection.send(b"POST /score?half HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
    assert server.get("/livez").status == 200
    reset(connection)
    server.wait_for_record("POST /score?half ", logger="azmlinfsrv")


def test_a_request_whose_worker_dies_is_logged_though_its_client_has_left(start):
    server = start("obey.py")
    if server.has_threads:
        pytest.skip("a thread does not die alone")
    connection = server.connect().send(request("POST", "/score?dies", REPLIES["whole"][0].encode()))
    eventually((server.folder / "started").exists, "run() has begun")
    reset(connection)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_for_record("POST /score?dies 500", logger="azmlinfsrv")
