"""AZUREML_DEBUG_PORT: what the worker does before it loads the script (contract section 3)."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from azureml_inference_server_http import debug

WARNING = (
    "!! Starting the inference server in DEBUGGING mode because AZUREML_DEBUG_PORT is set.\n"
    "!! This environment variable should not be set in a production environment.\n"
)


@pytest.fixture
def debugpy(monkeypatch):
    """A debugpy that notes what was asked of it."""
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
    debug.connect(SimpleNamespace(debug_port=port))
    assert debugpy.calls == []
    assert capsys.readouterr().out == ""


def test_connects_and_waits(debugpy, capsys):
    debug.connect(SimpleNamespace(debug_port=5678))
    assert debugpy.calls == [("connect", ("127.0.0.1", 5678)), ("wait_for_client",)]
    assert capsys.readouterr().out.startswith(WARNING)


def test_debugpy_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "debugpy", None)
    with pytest.raises(debug.DebuggerError, match=r"not installed.*unset AZUREML_DEBUG_PORT"):
        debug.connect(SimpleNamespace(debug_port=5678))
    expected = WARNING + "** Cannot connect to a debugger because debugpy is not installed.\n"
    assert capsys.readouterr().out == expected


def test_no_debugger_listens(debugpy):
    def refuse(address):
        raise ConnectionRefusedError(111, "Connection refused")

    debugpy.connect = refuse
    with pytest.raises(debug.DebuggerError, match=r"127\.0\.0\.1:5678.*refused.*AZUREML_DEBUG_PORT"):
        debug.connect(SimpleNamespace(debug_port=5678))
