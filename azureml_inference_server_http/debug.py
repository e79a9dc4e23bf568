"""Connecting a worker to a debugger that listens on AZUREML_DEBUG_PORT.

Owns the one call into debugpy, which is imported only here and only when the port is set. Runs in worker processes,
before the script is loaded, so that breakpoints at the script's top level are met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings


class DebuggerError(Exception):
    """The debugger that was asked for cannot be reached. The worker exits with 3: without it nobody would be served."""


def connect(settings: Settings) -> None:
    """Connect to the debugger and wait until it is ready; nothing happens without a debug port, or with 0.

    Says on stdout that this is not for production. Raises DebuggerError with the problem and the remedy.
    """
    if not settings.debug_port:
        return
    _say("!! Starting the inference server in DEBUGGING mode because AZUREML_DEBUG_PORT is set.")
    _say("!! This environment variable should not be set in a production environment.")
    try:
        import debugpy
    except ImportError as exc:
        _say("** Cannot connect to a debugger because debugpy is not installed.")
        raise DebuggerError(
            "AZUREML_DEBUG_PORT is set, but debugpy is not installed. Install debugpy, or unset AZUREML_DEBUG_PORT."
        ) from exc
    try:
        debugpy.connect(("127.0.0.1", settings.debug_port))
        debugpy.wait_for_client()
    except Exception as exc:
        raise DebuggerError(
            f"No debugger answered on 127.0.0.1:{settings.debug_port} ({exc}). Start the debugger, listening there, "
            "before the server, or unset AZUREML_DEBUG_PORT."
        ) from exc
    _say(f"** Connected to the debugger on port {settings.debug_port}.")


def _say(line: str) -> None:
    print(line, flush=True)
