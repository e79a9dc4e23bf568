"""Passes requests of Serve to the server of a replica, and its replies back, as they are.

Owns what is not passed: the fields of one connection, and those that Serve writes itself. Bodies pass part by part in
both directions. If the client leaves, the connection to the server is closed, so the server learns of it.
``connection.py`` has the bytes. Runs in the event loop of the replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Callable
from urllib.parse import quote

from .connection import Connection, Connections, Fields, ServerLost
from .server import Server

# The fields of one connection (RFC 9110, section 7.6.1), and Expect, which the proxy has answered.
_OF_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
# What Serve writes into each reply. Its x-request-id is that of the request, which the server has got as well.
_NOT_RETURNED = _OF_CONNECTION | {b"date", b"server", b"x-request-id"}
# Seconds that an idle connection to the server is kept, if the server keeps it longer than that.
_IDLE = 15.0

Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]


class _ClientLeft(Exception):
    """The client has left before its request was complete."""


def application(server: Server, keep_alive: float) -> Callable[..., Any]:
    """The ASGI application of a replica. ``keep_alive``: how long the server keeps an idle connection."""
    passing = _Passing(server, min(_IDLE, keep_alive / 2))

    # A function, because Serve takes a bound method for an application of the old ASGI 2.
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await passing.live(receive, send)
        elif scope["type"] == "http":
            await passing.serve(scope, receive, send)
        else:
            raise RuntimeError(f"the server speaks HTTP only, not {scope['type']}")

    return app


class _Passing:
    """Exchanges with one server."""

    def __init__(self, server: Server, idle: float) -> None:
        self._server = server
        self._connections = Connections(server.port, idle)

    async def live(self, receive: Receive, send: Send) -> None:
        """Start and end with the replica."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # Serve has finished all requests by now.
                await asyncio.get_running_loop().run_in_executor(None, self._server.stop)
                self._connections.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Pass one request, until it is answered or its client has left."""
        body = _Body(receive, scope["headers"])
        try:
            connection = await self._connections.take()
        except ServerLost:
            await _send_lost(send)
            return
        leaving = asyncio.ensure_future(_close_when_client_leaves(body, connection))
        has_begun = False
        try:
            async with _sending(scope, body, connection):
                method = scope["method"].encode("latin-1")
                head = await connection.head(method)
                has_begun = True
                await _send_reply(head.status, head.fields, connection, send)
        except ServerLost:
            # After the client has left, nobody waits for an answer.
            if not body.has_left:
                if has_begun:
                    raise  # the client must see that the reply is not complete
                await _send_lost(send)
        except _ClientLeft:
            pass
        finally:
            leaving.cancel()
            self._connections.give_back(connection)


async def _close_when_client_leaves(body: _Body, connection: Connection) -> None:
    await body.client_leaves()
    connection.abort()


@contextlib.asynccontextmanager
async def _sending(scope: dict[str, Any], body: _Body, connection: Connection) -> AsyncIterator[None]:
    """Send the request. A body that has not come yet is sent while the reply may come already, because the server
    refuses some requests before it has read them."""
    method, target = scope["method"].encode("latin-1"), _target(scope)
    fields = _fields(scope["headers"])
    if not body.exists:
        body.has_come()
        connection.send(method, target, fields)
        yield
        return
    first, is_last = await body.part()
    if is_last:
        others = [field for field in fields if field[0].lower() != b"content-length"]
        connection.send(method, target, [*others, (b"content-length", b"%d" % len(first))], first)
        yield
        return
    is_chunked = not any(name.lower() == b"content-length" for name, _ in fields)
    connection.send(method, target, [*fields, (b"transfer-encoding", b"chunked")] if is_chunked else fields)
    sending = asyncio.ensure_future(_send_body(body, first, connection, is_chunked))
    try:
        yield
    finally:
        if not sending.done():
            # The rest of the body would be taken for another request.
            connection.abort()
            sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, _ClientLeft):
            await sending


async def _send_body(body: _Body, first: bytes, connection: Connection, is_chunked: bool) -> None:
    try:
        await connection.send_parts(body.parts(first), is_chunked)
    except _ClientLeft:
        connection.abort()
        raise


def _target(scope: dict[str, Any]) -> bytes:
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    prefix = scope.get("root_path", "").encode()
    if prefix and path.startswith(prefix):
        path = path[len(prefix) :] or b"/"
    return b"%s?%s" % (path, scope["query_string"]) if scope["query_string"] else path


class _Body:
    """The body of a request, and the news that its client has left, which come the same way."""

    def __init__(self, receive: Receive, fields: Fields) -> None:
        self._receive = receive
        self._is_complete = asyncio.Event()
        self.exists = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in fields)
        self.has_left = False

    def has_come(self) -> None:
        """Nothing more of the body will come."""
        self._is_complete.set()

    async def part(self) -> tuple[bytes, bool]:
        """The next part, and whether it is the last one. Raises _ClientLeft."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.has_left = True
            raise _ClientLeft
        is_last = not message.get("more_body")
        if is_last:
            self._is_complete.set()
        return message.get("body", b""), is_last

    async def parts(self, first: bytes) -> AsyncIterator[bytes]:
        """All parts, of which the first has come already. An empty one would end a chunked body."""
        part, is_last = first, False
        while True:
            if part:
                yield part
            if is_last:
                return
            part, is_last = await self.part()

    async def client_leaves(self) -> None:
        """Return when the client has left after its body was complete."""
        await self._is_complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True


def _fields(given: Fields) -> Fields:
    """The fields of a request that are passed on."""
    dropped = _OF_CONNECTION
    for key, value in given:
        if key.lower() == b"connection":
            dropped |= {name.strip().lower() for name in value.split(b",")}
    return [field for field in given if field[0].lower() not in dropped]


async def _send_reply(status: int, given: Fields, connection: Connection, send: Send) -> None:
    fields = [field for field in given if field[0].lower() not in _NOT_RETURNED]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    while True:
        part = await connection.part()
        # The last part of a known length is sent as such, because each message of Serve costs.
        is_last = connection.is_complete
        await send({"type": "http.response.body", "body": part, "more_body": not is_last})
        if is_last:
            return


async def _send_lost(send: Send) -> None:
    """The server has closed the connection without a reply: it has died, or its front has."""
    message = {"message": "The server of this replica was lost while it had this request. It will be replaced."}
    body = json.dumps(message).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": fields})
    await send({"type": "http.response.body", "body": body})
