"""Debuggers: connects a worker to a debugger on AZUREML_DEBUG_PORT, and finds out if a debugger
holds a call of run().

debugpy is imported only here, and only if the port is set. A worker connects before it loads the
script, so that breakpoints at the top level of the script work. The server looks for a debugger
only when a time limit of a call is over. Runs in worker processes, and in the server with worker
threads.
"""

from __future__ import annotations

import logging
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import titles

if TYPE_CHECKING:
    from .settings import Settings


NO_LIMIT = "A debugger holds this call of run(): no time limit applies to it, and its worker is not killed."

_logger = logging.getLogger("azmlinfsrv")


class DebuggerError(Exception):
    """The worker cannot connect to the debugger of AZUREML_DEBUG_PORT. It exits with 3, because it
    serves no request without that debugger."""


def connect(settings: Settings) -> None:
    """Connect to the debugger and wait until it is ready. Does nothing if the debug port is not
    set, or is 0.

    Prints that this is not for production. Raises DebuggerError with the problem and the remedy.
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


def follows_forks(settings: Settings) -> bool:
    """True if debugpy will debug the processes that the supervisor forks.

    debugpy identifies a process by its parent, so a process that it debugs must fork each worker
    directly, with no other process between the two. Called in the supervisor.
    """
    return bool(settings.debug_port) or "debugpy" in sys.modules


def _say(line: str) -> None:
    print(line, flush=True)


def holds(frame: FrameType | None) -> bool:
    """True if a debugger has stopped this frame, steps through it, or is connected to the
    process."""
    return _is_traced() or _has_client() or any(_is_in_bdb(each) for each in _stack(frame))


def holds_thread(thread: int) -> bool:
    """True if a debugger holds the thread with this number. Then it also shows the front, by the
    name of the process, that no limit applies."""
    if not holds(sys._current_frames().get(thread)):
        return False
    titles.set_name(titles.DEBUGGED)
    _logger.warning(NO_LIMIT)
    return True


def released() -> None:
    """Note that the call that ``holds_thread`` found has returned."""
    titles.set_name(titles.COMMAND)


def _is_traced() -> bool:
    """True for debuggers such as gdb and strace, which the Linux kernel reports."""
    try:
        with open("/proc/self/status") as status:
            tracer = next((line for line in status if line.startswith("TracerPid:")), "")
    except OSError:
        return False
    return tracer.split()[1:] not in ([], ["0"])


def _has_client() -> bool:
    """True if an editor is connected through debugpy, or through pydevd without debugpy."""
    debugpy = sys.modules.get("debugpy")
    if debugpy is not None and hasattr(debugpy, "is_client_connected"):
        return bool(debugpy.is_client_connected())
    pydevd: Any = sys.modules.get("_pydevd_bundle.pydevd_constants")
    return pydevd is not None and pydevd.get_global_debugger() is not None


def _stack(frame: FrameType | None) -> list[FrameType]:
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _is_in_bdb(frame: FrameType) -> bool:
    """True for pdb, and other debuggers based on the standard library's bdb, if they are at their
    prompt or step through the frame."""
    if frame.f_globals.get("__name__") in ("bdb", "pdb"):
        return True
    bdb = sys.modules.get("bdb")
    tracer = getattr(frame.f_trace, "__self__", None)
    # After "continue" such a debugger keeps its trace function on the outermost frame
    # (``botframe``), but does not hold the call.
    return bdb is not None and isinstance(tracer, bdb.Bdb) and frame is not getattr(tracer, "botframe", None)
