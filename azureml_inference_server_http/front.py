"""The front: Python only sets it up, then the Rust core serves (``src/front``).

Owns nothing but the hand-over of sockets, and what signals mean in a front process, where no user code ever runs. With
``--worker_class thread`` it is a thread, which calls ``serve`` alone.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from . import _core, access_log, log_config

if TYPE_CHECKING:
    from .settings import Settings

# What the event loop opens for itself: six descriptors, and two for the memory of large bodies.
_OWN_DESCRIPTORS = 8


def run(
    settings: Settings,
    clients: list[socket.socket],
    workers: socket.socket,
    supervisor: socket.socket,
) -> int:
    """The whole life of a front process. Returns the exit code."""
    # Ctrl-C reaches the whole process group. Only the supervisor decides; it tells the front over its socket.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The front has two threads and no garbage of its own; log records are freed by counting references.
    gc.disable()
    serve(settings, clients, workers.detach(), supervisor)
    return 0


def serve(
    settings: Settings,
    clients: list[socket.socket],
    workers: int | _core.Hub,
    supervisor: socket.socket,
) -> None:
    """Serve clients until the supervisor ends it; the sockets are closed then. Without the GIL. Raises OSError."""
    _check_descriptors()
    logger = logging.getLogger("azmlinfsrv")
    _core.serve(
        settings,
        clients=[listener.detach() for listener in clients],
        workers=workers,
        supervisor=supervisor.detach(),
        log=(
            logger.getEffectiveLevel(),
            log_config.find_user_config(settings) is not None,
            access_log.log if log_config.wants_access_lines() else None,
        ),
    )


def _check_descriptors() -> None:
    """The event loop panics if it cannot open what it needs; an OSError names the shortage."""
    opened: list[int] = []
    try:
        for _ in range(_OWN_DESCRIPTORS):
            opened.append(os.dup(0))
    finally:
        for descriptor in opened:
            os.close(descriptor)
