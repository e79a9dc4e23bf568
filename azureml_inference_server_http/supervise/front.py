"""Starts the front: passes sockets and settings to the Rust core, which then serves
(``src/front``).

``run`` is the main function of the front process. With ``--worker_class thread`` the front is a
thread, which only calls ``serve``. No user code runs in the front, except the classes that a user's
logging.json names.
"""

from __future__ import annotations

import gc
import locale
import logging
import os
import platform
import signal
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable, NamedTuple

from .. import _core, log_config
from . import access_log

if TYPE_CHECKING:
    from ..launch.settings import Settings

# Descriptors that the front opens: six for the event loop, and two for the memory of large bodies.
_OWN_DESCRIPTORS = 8


class LogOutput(NamedTuple):
    """How the front writes its log. ``level``: the least severe level that is wanted. ``format``: text
    or json, or python for Python's ``logging``. ``access``: takes the fields of access records, None if
    they are not wanted. ``descriptor``: where JSON lines go, None for standard output; the front
    closes it."""

    level: int
    format: str
    access: Callable[[Mapping[str, str]], None] | None
    colour: bool
    descriptor: int | None


def run(
    settings: Settings,
    clients: list[socket.socket],
    workers: socket.socket,
    supervisor: socket.socket,
    reports: socket.socket | None = None,
) -> int:
    """The main function of a front process. Returns the exit code.

    Workers send what is exported through ``reports``; None if nothing is exported.
    """
    # Ctrl-C reaches the whole process group. The front ignores such signals, because the supervisor
    # decides what they mean, and sends orders through its socket.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The collector would only cost time: Python code in the front makes no reference cycles, only
    # log records.
    gc.disable()
    serve(settings, clients, workers.detach(), supervisor, reports)
    return 0


def serve(
    settings: Settings,
    clients: list[socket.socket],
    workers: int | _core.ThreadChannel,
    supervisor: socket.socket,
    reports: socket.socket | None = None,
) -> None:
    """Serve clients without the GIL until the supervisor ends the front. Closes the sockets then.
    Raises OSError."""
    _check_descriptors()
    _core.serve(
        settings,
        clients=[listener.detach() for listener in clients],
        workers=workers,
        supervisor=supervisor.detach(),
        reports=None if reports is None else reports.detach(),
        machine=(platform.node(), locale_name(os.environ)) if settings.exports_telemetry else None,
        log=_log_output(settings),
    )


def _log_output(settings: Settings) -> LogOutput:
    json_log = settings.display.json_log
    is_ours = log_config.find_user_config(settings) is None
    return LogOutput(
        logging.getLogger("azmlinfsrv").getEffectiveLevel(),
        "python" if not is_ours else "text" if json_log is None else "json",
        access_log.log if log_config.wants_access_lines() else None,
        settings.display.colour,
        None if json_log is None or sys.platform == "win32" else os.dup(json_log),
    )


def locale_name(environment: Mapping[str, str]) -> str | None:
    """Language and country of this machine, as Python names them: ``en_US``. None if nothing is set."""
    for variable in ("LC_ALL", "LC_CTYPE", "LANG", "LANGUAGE"):
        value = environment.get(variable, "").split(":")[0]
        if value:
            name = locale.normalize(value).split(".")[0].split("@")[0]
            return None if name in ("C", "POSIX") else name
    return None


def _check_descriptors() -> None:
    """Raise OSError if there are too few free descriptors, because the event loop would panic
    without a useful message."""
    opened: list[int] = []
    try:
        for _ in range(_OWN_DESCRIPTORS):
            opened.append(os.dup(0))
    finally:
        for descriptor in opened:
            os.close(descriptor)
