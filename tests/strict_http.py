"""Reads responses as strictly as RFC 9112 writes them: an octet out of place is an error, not
something to guess about.

Owns what "well formed" means to the chaos runs and to the fuzzer of the HTTP surface.
``harness.Connection`` reads leniently, so that its tests can show what is wrong; here being wrong
is all there is to find. Runs in the test process.
"""

from __future__ import annotations

import json
import re
import socket

from harness import Response

_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
# Limit for a head or a chunk's line, in bytes. A longer one is an error.
_LONGEST_HEAD = 200_000


class Malformed(Exception):
    """The server sent something that is not HTTP, or an error that does not explain itself."""


class Cut(ConnectionError):
    """The connection ended in the middle of a response, or before one."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"the connection ended after {received[:200]!r}")
        self.received = received


class Reader:
    """The responses of one connection, in order."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._buffer = bytearray()

    def response(self, method: str = "POST") -> Response:
        """The next response, interim ones included. Raises ``Malformed``, ``Cut`` or what the
        socket raises."""
        head = self._until(b"\r\n\r\n")
        status_line, *lines = head[:-4].split(b"\r\n")
        matched = _STATUS_LINE.fullmatch(status_line)
        if not matched:
            raise Malformed(f"status line {status_line!r}")
        version, status, reason = (part.decode("latin-1") for part in matched.groups())
        headers = [_field(line) for line in lines]
        response = Response(version, int(status), reason, headers, b"")
        body, chunks = self._body(method, response)
        return Response(version, int(status), reason, headers, body, chunks)

    def is_at_end(self) -> bool:
        """Waits for the server to close the connection; False if it says something more instead."""
        if not self._buffer:
            self._buffer += self._source.recv(262_144)
        return not self._buffer

    def _body(self, method: str, response: Response) -> tuple[bytes, list[bytes] | None]:
        lengths, codings = response.values("content-length"), response.values("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Malformed(f"framed more than once: {response.headers}")
        if lengths and not re.fullmatch("[0-9]{1,15}", lengths[0]):
            raise Malformed(f"Content-Length {lengths[0]!r}")
        if codings and (codings[0] != "chunked" or response.version == "HTTP/1.0"):
            raise Malformed(f"{response.version} with Transfer-Encoding {codings[0]!r}")
        if response.status < 200 or response.status in (204, 304):
            if codings or (lengths and response.status != 304):
                raise Malformed(f"{response.status} with a body: {response.headers}")
            return b"", None
        if method == "HEAD":
            return b"", None
        if codings:
            chunks = self._chunks()
            return b"".join(chunks), chunks
        if lengths:
            return self._exactly(int(lengths[0])), None
        if "close" not in [value.lower() for value in response.values("connection")] and response.version != "HTTP/1.0":
            raise Malformed(f"no framing, and no end of the connection: {response.headers}")
        return self._rest(), None

    def _chunks(self) -> list[bytes]:
        chunks: list[bytes] = []
        while True:
            line = self._until(b"\r\n")[:-2]
            if not _CHUNK_SIZE.fullmatch(line):
                raise Malformed(f"chunk size {line!r}")
            size = int(line, 16)
            data = self._exactly(size + 2)
            if data[-2:] != b"\r\n":
                raise Malformed(f"a chunk of {size} bytes ends in {data[-2:]!r}")
            if size == 0:
                return chunks
            chunks.append(data[:-2])

    def _until(self, end: bytes) -> bytes:
        searched = 0
        while (at := self._buffer.find(end, searched)) < 0:
            searched = max(0, len(self._buffer) - len(end))
            if len(self._buffer) > _LONGEST_HEAD:
                raise Malformed(f"no {end!r} within {_LONGEST_HEAD} bytes")
            self._more()
        return self._take(at + len(end))

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more()
        return self._take(length)

    def _rest(self) -> bytes:
        while received := self._source.recv(262_144):
            self._buffer += received
        return self._take(len(self._buffer))

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def _more(self) -> None:
        received = self._source.recv(262_144)
        if not received:
            raise Cut(bytes(self._buffer))
        self._buffer += received


def _field(line: bytes) -> tuple[str, str]:
    matched = _FIELD.fullmatch(line)
    if not matched:
        raise Malformed(f"header field {line!r}")
    name, value = matched.groups()
    return name.decode(), value.decode("latin-1").strip(" \t")


def explanation(response: Response) -> str:
    """The message of an error reply. Raises ``Malformed`` unless it is JSON with a message."""
    if response.values("content-type") != ["application/json"]:
        raise Malformed(f"{response.status} is not JSON: {response}")
    try:
        body = json.loads(response.body)
    except ValueError:
        raise Malformed(f"{response.status} has a body that is not JSON: {response}") from None
    if not (isinstance(body, dict) and isinstance(body.get("message"), str) and body["message"]):
        raise Malformed(f"{response.status} has no message: {response}")
    return str(body["message"])
