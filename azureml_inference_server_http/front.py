"""The front process: Python only sets it up, then the Rust core serves (``src/front``).

Owns nothing but the hand-over of descriptors and what signals mean here. No user code ever runs in this process.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings


def run(settings: Settings, clients: list[socket.socket], workers: socket.socket, supervisor: socket.socket) -> int:
    """Serve clients until the supervisor ends it. Returns the exit code."""
    from . import _core, log_config

    # Ctrl-C reaches the whole process group. Only the supervisor decides; it tells the front over its socket.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The front has two threads and no garbage of its own; log records are freed by counting references.
    gc.disable()
    logger = logging.getLogger("azmlinfsrv")
    _core.serve(
        settings,
        clients=[listener.detach() for listener in clients],
        workers=workers.detach(),
        supervisor=supervisor.detach(),
        log_level=logger.getEffectiveLevel(),
        log_to_python=log_config.find_user_config(settings) is not None,
    )
    return 0
