"""Sending samples: to the server of a session, over its socket, or to any server, by its URL.

Owns HTTP as a client speaks it, by way of Python's ``http.client``. Imported after the session has forked its server,
which must not find modules that it would not find in production. Runs in the command.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from typing import Callable, Union
from urllib.parse import urlsplit

from .comparing import Answer
from .samples import Sample

Address = Union[str, bytes]
Connect = Callable[[], http.client.HTTPConnection]


class _SocketConnection(http.client.HTTPConnection):
    """A connection over a Unix socket."""

    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


def to_socket(address: Address, timeout: float) -> Connect:
    """How to connect to a Unix socket. ``timeout``: seconds that nothing may come."""
    return lambda: _SocketConnection(address, timeout)


def to_url(url: str, timeout: float) -> tuple[Connect, str]:
    """How to connect to the server at a URL, and the path before that of a sample. Raises ValueError.

    ``http://host/score`` means the same as ``http://host``.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of a server: write it like http://127.0.0.1:5001")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    host, port = parts.hostname, parts.port
    prefix = parts.path.rstrip("/")
    if prefix.endswith("/score"):
        prefix = prefix[: -len("/score")]
    return lambda: kind(host, port, timeout=timeout), prefix


def _merged(*all_headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of which the later ones count, in whatever case their names are written."""
    merged = {name.lower(): (name, value) for headers in all_headers for name, value in headers.items()}
    return dict(merged.values())


def send(connect: Connect, sample: Sample, prefix: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """The answer to a sample. Raises OSError (of which TimeoutError) and http.client.HTTPException."""
    connection = connect()
    try:
        fields = _merged(sample.headers, headers or {}, {"Connection": "close"})
        connection.request(sample.method, prefix + sample.target, sample.body or None, fields)
        reply = connection.getresponse()
        named = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, named, reply.read())
    finally:
        connection.close()
