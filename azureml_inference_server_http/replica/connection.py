"""HTTP/1.1 connections from a replica to its own server, one exchange at a time on each.

Owns the bytes: heads, the framing of bodies in both directions, and which connection may be used again. Knows nothing
of Serve. A general HTTP client would take several times as much processor time; this one has a single peer, the server
of this package, on loopback. Runs in the event loop of the replica.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, cast

Fields = list[tuple[bytes, bytes]]

# Bytes of a reply that are read before they are passed on. More wait in the kernel, so the server waits for the client.
_MOST_BUFFERED = 1 << 18


class ServerLost(Exception):
    """The server cannot be reached, or has closed the connection before its reply was complete."""


class Head(NamedTuple):
    """The first part of a reply."""

    status: int
    fields: Fields


class _Framing(enum.Enum):
    """How the end of a reply's body is known (RFC 9112, section 6.3)."""

    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()


class Connection(asyncio.Protocol):
    """A connection that is open, or over. ``Connections`` makes them."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._is_over = False
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._framing = _Framing.LENGTH
        # Bytes of the body, or of the present chunk, that have not been returned yet.
        self._left = 0
        self._has_chunk = False
        self._is_complete = True
        self._may_stay = True

    # ---- What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because the transports of uvloop, on which Serve runs, are not of asyncio's class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > _MOST_BUFFERED and not self._is_paused:
            self._is_paused = True
            self._open_transport().pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._can_write.set()
        self._wake()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    # ---- The request

    def send(self, method: bytes, target: bytes, fields: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> None:
        """Send the head of a request, and the body or what is there of it. ``fields`` have its length."""
        self._is_complete = False
        lines = [b"%s: %s\r\n" % field for field in fields]
        self._open_transport().write(b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, target, b"".join(lines), body))

    async def send_parts(self, parts: AsyncIterator[bytes], is_chunked: bool) -> None:
        """Send the body part by part, no faster than the server reads it."""
        async for part in parts:
            await self._can_write.wait()
            self._open_transport().write(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)
        if is_chunked:
            self._open_transport().write(b"0\r\n\r\n")

    # ---- The reply

    async def head(self, method: bytes) -> Head:
        """The head of the reply to a request with this method. Raises ServerLost."""
        while True:
            lines = (await self._until(b"\r\n\r\n")).split(b"\r\n")
            status = int(lines[0].split(b" ", 2)[1])
            if status >= 200:
                break
        fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
        self._expect_body(method, status, {name.lower(): value.lower() for name, value in fields})
        return Head(status, fields)

    def _expect_body(self, method: bytes, status: int, values: dict[bytes, bytes]) -> None:
        length = values.get(b"content-length")
        self._may_stay = values.get(b"connection") != b"close"
        self._framing, self._left, self._has_chunk = _Framing.LENGTH, 0, False
        if method == b"HEAD" or status in (204, 304):
            pass
        elif values.get(b"transfer-encoding") == b"chunked":
            self._framing = _Framing.CHUNKED
        elif length is not None:
            self._left = int(length)
        else:
            self._framing, self._may_stay = _Framing.UNTIL_CLOSE, False
        self._is_complete = self._framing is _Framing.LENGTH and self._left == 0

    @property
    def is_complete(self) -> bool:
        """True if the whole reply has been returned."""
        return self._is_complete

    async def part(self) -> bytes:
        """The next part of the body as soon as it is there. Empty at the end. Raises ServerLost."""
        if self._is_complete:
            return b""
        if self._framing is _Framing.CHUNKED and self._left == 0:
            self._left = await self._next_chunk()
            if self._left == 0:
                self._is_complete = True
                return b""
        while not self._received:
            if self._is_over and self._framing is _Framing.UNTIL_CLOSE:
                self._is_complete = True
                return b""
            await self._more()
        if self._framing is _Framing.UNTIL_CLOSE:
            return self._take(len(self._received))
        found = self._take(min(self._left, len(self._received)))
        self._left -= len(found)
        self._is_complete = self._framing is _Framing.LENGTH and self._left == 0
        return found

    async def _next_chunk(self) -> int:
        """The size of the next chunk, without the line that ends the chunk before it. 0 at the end of the body."""
        if self._has_chunk:
            await self._until(b"\r\n")
        self._has_chunk = True
        size = int((await self._until(b"\r\n")).partition(b";")[0], 16)
        while size == 0 and await self._until(b"\r\n"):
            pass  # fields after the body, which the server never sends
        return size

    async def _until(self, end: bytes) -> bytes:
        """The bytes before ``end``, which is taken as well."""
        looked = 0
        while (at := self._received.find(end, looked)) < 0:
            looked = max(0, len(self._received) - len(end) + 1)
            await self._more()
        found = self._take(at + len(end))
        return found[:at]

    def _take(self, count: int) -> bytes:
        found = bytes(memoryview(self._received)[:count])
        del self._received[:count]
        if self._is_paused and not self._is_over and len(self._received) <= _MOST_BUFFERED:
            self._is_paused = False
            self._open_transport().resume_reading()
        return found

    async def _more(self) -> None:
        """Wait until more has come. Raises ServerLost if nothing will."""
        if self._is_over:
            raise ServerLost("the server has closed the connection")
        self._waiter = asyncio.get_running_loop().create_future()
        # A head may be larger than what is read ahead.
        if self._is_paused:
            self._is_paused = False
            self._open_transport().resume_reading()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # ---- The end of an exchange

    def may_be_used_again(self) -> bool:
        """True if the exchange is complete and both sides keep the connection."""
        return self._is_complete and self._may_stay and not self._is_over and not self._received

    def abort(self) -> None:
        """Close it at once. The server learns that its client has left."""
        self._is_over = True
        self._wake()
        if self._transport is not None:
            self._transport.abort()


class Connections:
    """Connections to one port of loopback that wait for their next exchange. ``idle``: seconds that one may wait, which
    must be less than the server waits."""

    def __init__(self, port: int, idle: float) -> None:
        self._port = port
        self._idle = idle
        self._waiting: list[tuple[float, Connection]] = []

    async def take(self) -> Connection:
        """A connection for one exchange. Raises ServerLost."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            since, connection = self._waiting.pop()
            if connection.may_be_used_again() and loop.time() - since < self._idle:
                return connection
            connection.abort()
        try:
            _, made = await loop.create_connection(Connection, "127.0.0.1", self._port)
        except OSError as error:
            raise ServerLost(str(error)) from error
        return made

    def give_back(self, connection: Connection) -> None:
        """After the exchange, whatever has become of it."""
        if connection.may_be_used_again():
            self._waiting.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.abort()

    def close(self) -> None:
        """Close those that wait."""
        for _, connection in self._waiting:
            connection.abort()
        self._waiting.clear()
