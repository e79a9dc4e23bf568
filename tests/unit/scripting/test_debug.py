"""AZUREML_DEBUG_PORT and --debug_port: what the worker does before it loads the script (contract
section 3)."""

from __future__ import annotations

import bdb
import os
import socket
import sys
from types import SimpleNamespace

import pytest

from azureml_inference_server_http.scripting import debug

WARNING = (
    "!! Starting the inference server in DEBUGGING mode because AZUREML_DEBUG_PORT is set.\n"
    "!! This environment variable should not be set in a production environment.\n"
)


@pytest.fixture
def debugpy(monkeypatch):
    """A fake debugpy that records its calls."""
    calls = []
    fake = SimpleNamespace(
        calls=calls,
        connect=lambda address: calls.append(("connect", address)),
        wait_for_client=lambda: calls.append(("wait_for_client",)),
    )
    monkeypatch.setitem(sys.modules, "debugpy", fake)
    return fake


@pytest.mark.parametrize("port", [None, 0])
def test_nothing_happens_without_a_port(debugpy, capsys, port):
    debug.prepare(SimpleNamespace(debug_port=None, debugger_port=port))
    assert debugpy.calls == []
    assert capsys.readouterr().out == ""


def test_connects_and_waits(debugpy, capsys):
    debug.prepare(SimpleNamespace(debug_port=None, debugger_port=5678))
    assert debugpy.calls == [("connect", ("127.0.0.1", 5678)), ("wait_for_client",)]
    assert capsys.readouterr().out.startswith(WARNING)


def test_debugpy_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "debugpy", None)
    with pytest.raises(debug.DebuggerError, match=r"not installed.*unset AZUREML_DEBUG_PORT"):
        debug.prepare(SimpleNamespace(debug_port=None, debugger_port=5678))
    expected = WARNING + "** Cannot connect to a debugger because debugpy is not installed.\n"
    assert capsys.readouterr().out == expected


def test_no_debugger_listens(debugpy):
    def refuse(address):
        raise ConnectionRefusedError(111, "Connection refused")

    debugpy.connect = refuse
    with pytest.raises(debug.DebuggerError, match=r"127\.0\.0\.1:5678.*refused.*AZUREML_DEBUG_PORT"):
        debug.prepare(SimpleNamespace(debug_port=None, debugger_port=5678))


# ---- Noticing a debugger


class Debugger(bdb.Bdb):
    """A debugger that records, at each line where it stops, if the server notices it."""

    def __init__(self, then):
        super().__init__()
        self.then, self.noticed = then, []

    def user_line(self, frame):
        self.noticed.append((debug.holds(sys._getframe()), debug.holds(frame)))
        self.then()


def step(debugger):
    sys_trace = sys.gettrace()
    debugger.set_trace()
    noticed = debug.holds(sys._getframe())
    sys.settrace(sys_trace)
    # The debugger has put its trace function on the frames of pytest too, where tests that come later would find it.
    frame = sys._getframe()
    while frame is not None:
        frame.f_trace = None
        frame = frame.f_back
    return noticed


@pytest.fixture(autouse=True)
def no_editor(monkeypatch):
    """Hide the debugger of an editor that may run these tests."""
    for name in ("debugpy", "_pydevd_bundle.pydevd_constants"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_no_debugger_is_none():
    assert not debug.holds(sys._getframe())
    assert not debug.holds(None)


def test_a_debugger_is_noticed_while_it_stops_or_steps():
    debugger = Debugger(lambda: None)
    assert step(debugger)
    assert debugger.noticed[0] == (True, True)


def test_a_debugger_that_was_told_to_continue_is_gone():
    debugger = Debugger(lambda: debugger.set_continue())
    # A function in which it has stopped counts as held until the function ends.
    assert step(debugger)
    assert debugger.noticed == [(True, True)]
    assert not debug.holds(sys._getframe())


@pytest.mark.parametrize("connected", [True, False])
def test_debugpy_holds_while_a_client_is_connected(monkeypatch, connected):
    monkeypatch.setitem(sys.modules, "debugpy", SimpleNamespace(is_client_connected=lambda: connected))
    assert debug.holds(sys._getframe()) == connected


# ---- --debug_port


@pytest.fixture
def listening(debugpy):
    """The same debugpy, at a port of its own."""
    debugpy.listen = lambda address: debugpy.calls.append(("listen", address)) or ("127.0.0.1", 5678)
    return debugpy


@pytest.mark.parametrize("wait", [False, True])
def test_listens_and_waits_if_it_is_asked_to(listening, capsys, monkeypatch, wait):
    monkeypatch.delenv("PYDEVD_DISABLE_FILE_VALIDATION", raising=False)
    debug.prepare(SimpleNamespace(debug_port=0, debug_wait=wait, debugger_port=None))
    assert listening.calls == [("listen", ("127.0.0.1", 0)), *([("wait_for_client",)] if wait else [])]
    out = capsys.readouterr().out
    assert "** A debugger can attach to 127.0.0.1:5678.\n" in out
    assert ("The script is loaded when it has" in out) == wait
    assert "PYDEVD_DISABLE_FILE_VALIDATION" not in os.environ


def test_listening_needs_debugpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "debugpy", None)
    with pytest.raises(debug.DebuggerError, match="pip install debugpy"):
        debug.prepare(SimpleNamespace(debug_port=0, debug_wait=False, debugger_port=None))


def test_a_port_that_stays_taken_is_an_error(listening, monkeypatch):
    monkeypatch.setattr(debug, "PORT_PATIENCE", 0.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(debug.DebuggerError, match=rf"--debug_port {port} cannot be opened: .*in use"):
            debug.prepare(SimpleNamespace(debug_port=port, debug_wait=False, debugger_port=None))
    assert listening.calls == []
