"""The pair of sockets through which worker processes connect to the front.

The supervisor opens the pair, so that it stays open when a front dies. Its children inherit both
ends. A worker makes a pair of stream sockets, and sends one of them through this pair to the front
(``src/worker/transport/entrance.rs``). If no front runs, it waits there for the next front. The
pair has no name in the file system. So it needs no folder and leaves no file, and only children of
the supervisor can connect. Runs in the supervisor.
"""

from __future__ import annotations

import socket


class WorkerSocket:
    """Both ends of the pair. They stay open in the supervisor. The constructor raises OSError."""

    def __init__(self) -> None:
        # Datagram sockets, because several workers send through the same end, and each datagram
        # arrives whole.
        self.front_end, self.worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
