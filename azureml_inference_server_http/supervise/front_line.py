"""The supervisor's end of the socket to a front process. ``control.py`` has the messages.

Runs in the supervisor process.
"""

from __future__ import annotations

import logging
import socket

from . import control

_logger = logging.getLogger("azmlinfsrv")


class FrontLine:
    """Orders to one front process, and reports from it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._lines = control.Lines()

    def tell(self, order: control.Order) -> None:
        """Send an order."""
        try:
            self.socket.sendall(control.write(order))
        except OSError as error:
            # The front is ending, which SIGCHLD reports, or it is stuck and is killed when its time
            # is over.
            _logger.debug("Cannot tell the front %r: %s", order, error)

    def read(self) -> list[control.Report]:
        """What the front has reported since the last call. Closes the socket when the front has closed
        its end: the front is ending, and SIGCHLD follows."""
        try:
            received = self.socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            received = b""
        if not received:
            self.socket.close()
        return list(control.read_all(self._lines, received))
