"""The pair of sockets through which worker processes report to the front what its exporters send.

Owned by the supervisor, so that it outlives any front, and inherited by the children that it forks. What is sent
without a front waits for the next one. It is separate from the connections of workers because any thread of a script
reports, also before the worker has connected, and when it never will because its script cannot be loaded. Runs in the
supervisor, and only if something is exported. Worker threads report through the hub.
"""

from __future__ import annotations

import contextlib
import socket

# Bytes of reports that may wait for the front. The kernel may allow less.
_ROOM = 1 << 20


class ReportSocket:
    """Both ends, which never close in the supervisor. Raises OSError."""

    def __init__(self) -> None:
        # Each message is one report, whole, whichever worker sends it.
        try:
            self.front_end, self.worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # macOS has no such sockets
            self.front_end, self.worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            self.worker_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        self.front_end.setblocking(False)
        # A worker decides by itself how long it waits.
        self.worker_end.setblocking(False)
