"""Debuggers: letting one attach to the worker (``--debug_port``), connecting the worker to one that listens
(AZUREML_DEBUG_PORT), and noticing any that holds a call.

Owns the calls into debugpy, which is imported only here and only when one of the ports is set. That happens before the
script is loaded, so that breakpoints at the script's top level are met. Whether a debugger holds a call of run() is
asked only when a limit of that call is over. Runs in worker processes, and in the server with worker threads.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..supervise import titles

if TYPE_CHECKING:
    from ..launch.settings import Settings


# Seconds that --debug_port may be taken by others until that is an error, and between two looks.
PORT_PATIENCE = 10.0
_LOOK_AGAIN = 0.1
_QUIET = "PYDEVD_DISABLE_FILE_VALIDATION"
NO_LIMIT = "A debugger holds this call of run(): no time limit applies to it, and its worker is not killed."

_logger = logging.getLogger("azmlinfsrv")


class DebuggerError(Exception):
    """The worker cannot be debugged as it was asked to. It exits with 3, because it serves no request then."""


def prepare(settings: Settings) -> None:
    """Make this process ready for the debugger that the settings name; nothing happens without one.

    Prints that this is not for production. Raises DebuggerError with the problem and the remedy.
    """
    if settings.debug_port is not None:
        _listen(settings.debug_port, settings.debug_wait)
    elif settings.debugger_port:
        _connect(settings.debugger_port)


def _listen(port: int, wait: bool) -> None:
    """Let a debugger attach; with ``wait``, return when one has."""
    _say("!! Starting the inference server in DEBUGGING mode because of --debug_port.")
    _say("!! Whoever can connect to that port can run any code here. Do not use it in production.")
    try:
        import debugpy
    except ImportError as exc:
        raise DebuggerError("--debug_port needs debugpy, which is not installed: pip install debugpy") from exc
    _wait_until_free(port)
    try:
        with _quiet():
            address = debugpy.listen(("127.0.0.1", port))
    except Exception as exc:
        raise DebuggerError(f"debugpy cannot listen on port {port} ({exc}). Choose another port.") from exc
    _say(f"** A debugger can attach to {address[0]}:{address[1]}.")
    if wait:
        _say("** The script is loaded when it has (--debug_wait).")
        debugpy.wait_for_client()
        _say("** A debugger has attached.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """debugpy warns at length about modules that are compiled into the interpreter; the script is none of them."""
    given = os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ[_QUIET]
        else:
            os.environ[_QUIET] = given


def _wait_until_free(port: int) -> None:
    """The port may be taken for a moment by the debug adapter of a worker that has just died."""
    deadline = time.monotonic() + PORT_PATIENCE
    while True:
        try:
            with socket.socket() as probe:
                if os.name != "nt":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
            return
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise DebuggerError(f"--debug_port {port} cannot be opened: {exc}. Choose another port.") from exc
            time.sleep(_LOOK_AGAIN)


def _connect(port: int) -> None:
    """Connect to a debugger and wait until it is ready."""
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
        debugpy.connect(("127.0.0.1", port))
        debugpy.wait_for_client()
    except Exception as exc:
        raise DebuggerError(
            f"No debugger answered on 127.0.0.1:{port} ({exc}). Start the debugger, listening there, "
            "before the server, or unset AZUREML_DEBUG_PORT."
        ) from exc
    _say(f"** Connected to the debugger on port {port}.")


def follows_forks(settings: Settings) -> bool:
    """True if debugpy will debug the processes that the supervisor forks.

    debugpy identifies a process by its parent, so a process that it debugs must fork each worker
    directly, with no other process between the two. Called in the supervisor.
    """
    return bool(settings.debugger_port or settings.debug_port is not None or "debugpy" in sys.modules)


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
