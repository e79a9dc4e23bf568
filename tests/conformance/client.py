"""One raw HTTP request on a connection of its own, and its reply as it came over the wire.

Owns reading replies: framing by Content-Length, chunks or close, interim replies, a missing or cut
reply. Does not judge or normalise anything. No HTTP library, because what is sent is often wrong on
purpose and what comes back must stay as it is.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field


class _Closed(Exception):
    """The peer closed before the reply was complete."""


@dataclass
class Reply:
    """A reply. If there was none, `outcome` says why."""

    outcome: str = "no reply"
    version: str = ""
    status: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: list[bytes] | None = None
    interim: list[str] = field(default_factory=list)


class _Reader:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._more()
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.rstrip(b"\r")

    def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def rest(self) -> bytes:
        with contextlib.suppress(_Closed):
            while True:
                self._more()
        taken, self._buffer = self._buffer, b""
        return taken

    def left(self) -> bytes:
        taken, self._buffer = self._buffer, b""
        return taken

    def _more(self) -> None:
        try:
            data = self._connection.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise _Closed
        self._buffer += data


def exchange(port: int, request: bytes, method: str, *, shutdown: bool = False, timeout: float = 15.0) -> list[Reply]:
    """Sends `request` and reads one reply. `shutdown` ends the sending side after it."""
    return _exchange(port, request, method, shutdown, timeout, until_close=False)


def exchange_all(port: int, request: bytes, method: str, timeout: float = 15.0) -> list[Reply]:
    """Sends `request`, which may be several, and reads replies until the server closes the
    connection."""
    return _exchange(port, request, method, False, timeout, until_close=True)


def _exchange(port: int, request: bytes, method: str, shutdown: bool, timeout: float, until_close: bool) -> list[Reply]:
    replies: list[Reply] = []
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    except ConnectionRefusedError:
        return [Reply()]
    with connection:
        # A server may answer and close before it has read the whole request. Then that answer
        # counts.
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
            if shutdown:
                connection.shutdown(socket.SHUT_WR)
        reader = _Reader(connection)
        while True:
            reply = _reply(reader, method)
            if replies and reply.outcome == "no reply":
                return replies
            replies.append(reply)
            if not until_close or reply.outcome != "reply":
                return replies


def _reply(reader: _Reader, method: str) -> Reply:
    reply = Reply()
    try:
        _head(reader, reply)
        reply.outcome = "cut short"
        _body(reader, reply, method)
        reply.outcome = "reply"
    except _Closed:
        reply.body = b"".join(reply.chunks) if reply.chunks is not None else reply.body + reader.left()
    except TimeoutError:
        reply.outcome = "timed out"
    except ValueError as error:
        reply.outcome = f"not HTTP: {error}"
    return reply


def _head(reader: _Reader, reply: Reply) -> None:
    while True:
        reply.version, _, rest = reader.line().decode("latin-1").partition(" ")
        reply.status = rest[:3]
        if not reply.version.startswith("HTTP/") or not reply.status.isdigit():
            raise ValueError(f"status line {reply.version} {rest}")
        headers: list[tuple[str, str]] = []
        while line := reader.line():
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise ValueError(f"header line {line!r}")
            headers.append((name, value.strip()))
        if not reply.status.startswith("1"):
            reply.headers = headers
            return
        reply.interim.append(reply.status)


def _body(reader: _Reader, reply: Reply, method: str) -> None:
    headers = [(name.lower(), value) for name, value in reply.headers]
    if method == "HEAD" or reply.status in ("204", "304"):
        return
    if ("transfer-encoding", "chunked") in headers:
        reply.chunks = []
        while size := int(reader.line().split(b";")[0], 16):
            reply.chunks.append(reader.exactly(size))
            reader.line()
        while reader.line():
            pass
        reply.body = b"".join(reply.chunks)
        return
    # With several lengths (which the published server can be made to send) the first one frames the
    # reply.
    lengths = [value for name, value in headers if name == "content-length"]
    reply.body = reader.exactly(int(lengths[0])) if lengths else reader.rest()
