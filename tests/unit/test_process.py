"""The private folder and the front's line, without forking; ``e2e/test_processes.py`` has the rest."""

from __future__ import annotations

import logging
import os
import socket
import stat
from types import SimpleNamespace

import pytest

from azureml_inference_server_http import events, process


@pytest.fixture
def records(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    caplog.set_level(logging.DEBUG, "azmlinfsrv")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def settings(**changed):
    return SimpleNamespace(
        **{
            "host": "127.0.0.1",
            "port": 0,
            "health_port": 0,
            "separate_health": False,
            "worker_count": 1,
            "graceful_timeout": 30,
            "worker_preload": False,
            **changed,
        }
    )


# ---- Starting


def test_a_listener_error_is_one_line_and_exit_code_1(taken, capsys):
    assert process.run(settings(port=taken)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"azmlinfsrv: error: port {taken} on 127.0.0.1 is in use")


# ---- The private folder


def test_the_folder_is_private_and_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "MAX_SOCKET_PATH", 1000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = process._private_folder()
    assert os.path.dirname(folder) == str(tmp_path)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert process._private_folder() != folder


@pytest.mark.parametrize("name", ["missing", "n" * 100], ids=["missing", "too long for a socket"])
def test_an_unusable_temporary_folder_is_replaced(tmp_path, monkeypatch, name):
    if name != "missing":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    folder = process._private_folder()
    try:
        assert os.path.dirname(folder) == "/tmp"
    finally:
        os.rmdir(folder)


def test_no_folder_at_all_is_told(monkeypatch):
    monkeypatch.setattr(process, "MAX_SOCKET_PATH", 10)
    with pytest.raises(SystemExit, match="Set TMPDIR"):
        process._private_folder()


def test_the_folder_is_removed_with_its_socket(tmp_path, records):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "workers").touch()
    process._remove_folder(str(folder))
    assert not folder.exists()
    process._remove_folder(str(folder))
    assert records() == []


def test_a_folder_with_something_else_in_it_stays(tmp_path, records):
    (tmp_path / "precious").touch()
    process._remove_folder(str(tmp_path))
    assert (tmp_path / "precious").exists()
    ((level, text),) = records()
    assert (level, text.startswith(f"Cannot remove {tmp_path}: ")) == ("WARNING", True)


# ---- The loop


@pytest.fixture
def loop(tmp_path_factory, monkeypatch):
    """A loop that collects its events instead of handling them, with a front that the test plays."""
    monkeypatch.setattr(process._Loop, "_handle", lambda self, event: self.events.append(event))
    monkeypatch.chdir(tmp_path_factory.mktemp("loop"))
    os.mkdir("f")
    made = process._Loop(settings(), [], "f")
    made.events = []
    made._wake_reader.setblocking(False)
    made._front, made.front_side = socket.socketpair()
    made._front.setblocking(False)
    yield made
    for open_socket in (made._front, made.front_side, made._workers, made._wake_reader, made._wake_writer):
        if open_socket is not None:
            open_socket.close()


def test_lines_of_the_front_become_events(loop):
    loop.front_side.sendall(b"ready 12\nkill 13 did not return\nrecycle 14 has served 5 requests\n")
    loop._read_front()
    assert loop.events == [
        events.Ready(12),
        events.KillWanted(13, "did not return"),
        events.RecycleWanted(14, "has served 5 requests", too_large=False),
    ]


def test_lines_may_arrive_in_pieces(loop):
    for piece in (b"re", b"ady 1", b"2\nready 1"):
        loop.front_side.sendall(piece)
        loop._read_front()
    assert loop.events == [events.Ready(12)]
    loop.front_side.sendall(b"3\n")
    loop._read_front()
    assert loop.events == [events.Ready(12), events.Ready(13)]


@pytest.mark.parametrize("line", [b"", b"ready", b"ready x", b"kill -1 x", b"dance 12", b"\xff 12"])
def test_lines_without_sense_are_logged_and_skipped(loop, records, line):
    loop.front_side.sendall(line + b"\nready 12\n")
    loop._read_front()
    assert loop.events == [events.Ready(12)]
    ((level, text),) = records()
    assert level == "ERROR"
    assert "makes no sense" in text


def test_the_end_of_the_front_closes_its_line(loop):
    loop.front_side.sendall(b"ready 12\n")
    loop.front_side.close()
    loop._read_front()
    loop._read_front()
    assert loop.events == [events.Ready(12)]
    assert loop._front is None
    loop._read_front()
    loop._tell_front("stop")


def test_nothing_to_read_is_no_end(loop):
    loop._read_front()
    assert loop._front is not None
    assert loop.events == []


def test_orders_are_lines(loop):
    loop._tell_front("exited 12 exited with code 0")
    loop._tell_front("drain")
    assert loop.front_side.recv(100) == b"exited 12 exited with code 0\ndrain\n"


def test_a_front_that_is_gone_or_stuck_does_not_stop_the_supervisor(loop):
    for _ in range(100_000):
        loop._tell_front("exited 12 " + "x" * 100)
    loop.front_side.close()
    loop._tell_front("stop")


def test_signals_arrive_in_their_order(loop, monkeypatch):
    monkeypatch.setattr(loop, "_reap", lambda: loop.events.append("reap"))
    loop._wake_writer.send(bytes([15, 17, 2, 1]))
    loop._read_signals()
    loop._read_signals()
    assert loop.events == [
        events.Signalled(15),
        "reap",
        events.Signalled(2),
        events.Signalled(1),
    ]


def test_reaping_without_children_is_fine(loop, monkeypatch):
    def none(*_):
        raise ChildProcessError

    monkeypatch.setattr(os, "waitpid", none)
    loop._reap()
    assert loop.events == []


def test_reaped_children_are_told_after_what_the_front_said(loop, monkeypatch):
    loop.front_side.sendall(b"ready 12\n")
    ended = iter([(12, 9), (13, 3 << 8), (0, 0)])
    monkeypatch.setattr(os, "waitpid", lambda *_: next(ended))
    loop._reap()
    assert loop.events == [events.Ready(12), events.Exited(12, -9), events.Exited(13, 3)]
