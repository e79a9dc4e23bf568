"""A receiver of telemetry that accepts everything and looks at nothing.

Runs in threads of the benchmark process, which waits while wrk loads the server. The time that it takes counts against
the server, as that of the load generator does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_HEAD_ENDS = b"\r\n\r\n"
_BUFFER_BYTES = 1 << 20


def _length(head: bytes) -> int:
    """The length of the body that follows this head."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"A request without Content-Length: {head!r}")


def _serve(connection: socket.socket) -> None:
    """Reads requests until the client leaves. One buffer takes all bodies, so that reading costs little."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with connection:
        filled = 0
        while True:
            received = connection.recv_into(buffer[filled:])
            if not received:
                return
            filled += received
            head, ends, rest = bytes(buffer[:filled]).partition(_HEAD_ENDS)
            if not ends:
                continue
            left = _length(head) - len(rest)
            while left > 0:
                received = connection.recv_into(buffer, min(left, _BUFFER_BYTES))
                if not received:
                    return
                left -= received
            connection.sendall(_ANSWER)
            filled = 0


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            # The listener is closed.
            return
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """The URL of a receiver, for as long as the block takes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            # Closing alone does not wake a thread that waits for a connection.
            listener.shutdown(socket.SHUT_RDWR)
