"""Passes requests of Serve to the server of a replica, and its replies back, as they are.

Owns what is not passed: the fields of one connection, and those that Serve writes itself. Bodies pass part by part in
both directions. A client that leaves is passed on, by closing the connection to the server. Runs in the event loop of
the replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Callable

import aiohttp
import yarl

from .server import Server

# The fields of one connection (RFC 9110, section 7.6.1), and Expect, which the proxy has answered.
_OF_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
# What Serve writes into each reply. Its x-request-id is that of the request, which the server has got as well.
_OF_SERVE = frozenset((b"date", b"server", b"x-request-id"))
# What aiohttp would add to requests.
_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# Bytes that a line of a reply's head may have; the server has no limit for the fields of a script.
_LONGEST_LINE = 1 << 20
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
    """Connections to one server."""

    def __init__(self, server: Server, idle: float) -> None:
        self._server = server
        self._idle = idle
        self._connections: aiohttp.ClientSession | None = None

    # ---- The life of the replica

    async def live(self, receive: Receive, send: Send) -> None:
        """Start and end with the replica."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # Serve has finished all requests by now.
                await asyncio.get_running_loop().run_in_executor(None, self._server.stop)
                if self._connections is not None:
                    await self._connections.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def _session(self) -> aiohttp.ClientSession:
        # Made by the first request, because it belongs to the event loop of the requests.
        if self._connections is None:
            self._connections = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._idle),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=_LONGEST_LINE,
                max_field_size=_LONGEST_LINE,
            )
        return self._connections

    # ---- One request

    async def serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Pass one request, until it is answered or its client has left."""
        body = _Body(receive, scope["headers"])
        exchange = asyncio.ensure_future(self._exchange(scope, body, send))
        leaving = asyncio.ensure_future(body.client_leaves())
        try:
            await asyncio.wait((exchange, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also when Serve cancels this task, which is its other way to say that the client has left.
            leaving.cancel()
            exchange.cancel()
            with contextlib.suppress(asyncio.CancelledError, _ClientLeft):
                await exchange

    async def _exchange(self, scope: dict[str, Any], body: _Body, send: Send) -> None:
        has_begun = False
        try:
            async with self._session().request(
                scope["method"],
                self._url(scope),
                headers=_fields(scope["headers"]),
                data=await body.data(),
                allow_redirects=False,
                skip_auto_headers=_ADDED,
            ) as reply:
                has_begun = True
                await _send(reply, scope["method"], send)
        except aiohttp.ClientError as error:
            if body.has_left:
                raise _ClientLeft from error
            if has_begun:
                raise  # the client must see that the reply is not complete
            await _send_lost(send)

    def _url(self, scope: dict[str, Any]) -> yarl.URL:
        path = scope.get("raw_path") or scope["path"].encode()
        prefix = scope.get("root_path", "").encode()
        if prefix and path.startswith(prefix):
            path = path[len(prefix) :] or b"/"
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        return yarl.URL(f"http://127.0.0.1:{self._server.port}{(path + query).decode('latin-1')}", encoded=True)


class _Body:
    """The body of a request, and the news that its client has left, which come the same way."""

    def __init__(self, receive: Receive, fields: list[tuple[bytes, bytes]]) -> None:
        self._receive = receive
        self._is_complete = asyncio.Event()
        self._exists = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in fields)
        self.has_left = False

    async def data(self) -> bytes | AsyncIterator[bytes] | None:
        """The body as aiohttp takes it: none, all of it if it is there already, or its parts."""
        if not self._exists:
            self._is_complete.set()
            return None
        first, is_last = await self._part()
        return first if is_last else self._parts(first)

    async def _parts(self, first: bytes) -> AsyncIterator[bytes]:
        part, is_last = first, False
        while True:
            if part:
                yield part
            if is_last:
                return
            part, is_last = await self._part()

    async def _part(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.has_left = True
            raise _ClientLeft
        is_last = not message.get("more_body")
        if is_last:
            self._is_complete.set()
        return message.get("body", b""), is_last

    async def client_leaves(self) -> None:
        """Return when the client has left after its body was complete."""
        await self._is_complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True


def _fields(given: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    dropped = _OF_CONNECTION | {
        name.strip().lower() for key, value in given if key.lower() == b"connection" for name in value.split(b",")
    }
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in given if name.lower() not in dropped]


async def _send(reply: aiohttp.ClientResponse, method: str, send: Send) -> None:
    dropped = _OF_CONNECTION | _OF_SERVE
    fields = [(name, value) for name, value in reply.raw_headers if name.lower() not in dropped]
    await send({"type": "http.response.start", "status": reply.status, "headers": fields})
    length = reply.headers.get("Content-Length")
    left = -1 if length is None else int(length)
    if method == "HEAD" or reply.status in (204, 304):
        left = 0
    while left != 0:
        part = await reply.content.readany()
        if not part:
            break
        left -= len(part) if left > 0 else 0
        # The last part of a known length is sent as such, because each message of Serve costs.
        await send({"type": "http.response.body", "body": part, "more_body": left != 0})
        if left == 0:
            return
    await send({"type": "http.response.body", "body": b""})


async def _send_lost(send: Send) -> None:
    """The server has closed the connection without a reply: it has died, or its front has."""
    message = {"message": "The server of this replica was lost while it had this request. It will be replaced."}
    body = json.dumps(message).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": fields})
    await send({"type": "http.response.body", "body": body})
