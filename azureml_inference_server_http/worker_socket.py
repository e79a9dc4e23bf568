"""The pair of sockets through which worker processes connect to the front.

Owned by the supervisor, so that it outlives any front, and inherited by the children that it forks. A worker makes a
pair of stream sockets and sends one of them to the front (``src/worker/entrance.rs``). What is sent without a front
waits for the next one. The pair has no name: no folder is needed, nothing is left behind, and nobody else can connect.
Runs in the supervisor.
"""

from __future__ import annotations

import socket


class WorkerSocket:
    """Both ends, which never close in the supervisor. Raises OSError."""

    def __init__(self) -> None:
        # Datagrams: each is one connection, whole, whichever worker sends it.
        self.front_end, self.worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
