"""HTTP byte by byte, for end-to-end tests: requests, connections and responses.

Tests import it through ``harness.py``. Runs in the test process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

# Limit in seconds for anything that a test waits for. It is far longer than needed, because the
# machine may be busy. A server under Wine reads its modules slowly: beside other work, its start has taken 25 seconds.
PATIENCE = 60.0 if "windows_command.py" in os.environ.get("TEST_SERVER", "") else 20.0


@dataclasses.dataclass(frozen=True)
class Response:
    """A received HTTP response."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    # The parts of a chunked body, each as the server sent it; None for any other framing.
    chunks: list[bytes] | None = None

    def values(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str | None:
        """``response["content-type"]``: the value of a header that is there once, None if it is not
        there."""
        values = self.values(name)
        assert len(values) < 2, f"header {name} came {len(values)} times: {values}\n{self}"
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON, which its Content-Type must announce."""
        assert self["content-type"] == "application/json", str(self)
        return json.loads(self.body)

    def __str__(self) -> str:
        lines = [f"{self.version} {self.status} {self.reason}", *(f"{name}: {value}" for name, value in self.headers)]
        return "\n".join([*lines, "", repr(self.body[:2000])])


def request(
    method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, version: str = "1.1"
) -> bytes:
    """The bytes of a request. Content-Length is added for a body; a header of that name in
    ``headers`` replaces it."""
    fields = {"Host": "localhost", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Connection:
    """A client's connection: sends bytes and reads responses."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Connection:
        self.socket.sendall(data)
        return self

    def close_sending(self) -> Connection:
        """Close the sending side. Replies can still be read."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        self.socket.close()

    def read(self, method: str = "POST") -> Response:
        """The next response, interim ones included. ``method`` is that of the request, as HEAD has
        no body."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        version, status, reason = (*status_line.split(" ", 2), "")[:3]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        response = Response(version, int(status), reason, headers, b"")
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            return response
        if "chunked" in (response["transfer-encoding"] or ""):
            chunks = list(self._chunks())
            return dataclasses.replace(response, body=b"".join(chunks), chunks=chunks)
        length = response["content-length"]
        body = self.rest() if length is None else self.exactly(int(length))
        return dataclasses.replace(response, body=body)

    def read_head_of_stream(self) -> Response:
        """Read the head of a chunked response. ``next_chunk`` reads its parts."""
        response = self.read(method="HEAD")
        assert response["transfer-encoding"] == "chunked", str(response)
        return response

    def next_chunk(self) -> bytes:
        """The next part of a chunked body; empty at its end."""
        length = int(self._until(b"\r\n").strip(), 16)
        data = self.exactly(length + 2)
        assert data[-2:] == b"\r\n"
        return data[:-2]

    def exchange(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
        """Send one request and read its response."""
        return self.send(request(method, target, body, headers)).read(method)

    def is_silent(self, seconds: float) -> bool:
        """True if nothing arrives, not even the end of the stream, in this time."""
        assert not self._received, f"unread: {self._received!r}"
        self.socket.settimeout(seconds)
        try:
            self._received = self.socket.recv(65536)
        except socket.timeout:
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        return False

    def assert_closed(self) -> None:
        """Check that the server closes the connection and sends nothing before that."""
        rest = self.rest()
        assert rest == b"", f"unexpected bytes before the end of the connection: {rest!r}"

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self.next_chunk():
            yield chunk

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._more(f"{end!r}")
        at = self._received.index(end) + len(end)
        found, self._received = self._received[:at], self._received[at:]
        return found

    def exactly(self, length: int) -> bytes:
        """Read this many bytes."""
        while len(self._received) < length:
            self._more(f"{length} bytes")
        found, self._received = self._received[:length], self._received[length:]
        return found

    def rest(self) -> bytes:
        """Read everything until the server closes the connection."""
        found, self._received = self._received, b""
        while data := self.socket.recv(65536):
            found += data
        return found

    def _more(self, wanted: str) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended while waiting for {wanted}, after {self._received!r}")
        self._received += data


class Background:
    """One request in a thread of its own, for tests that do something while it waits."""

    def __init__(self, send: Callable[[], Response]) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(send,), daemon=True)
        self._thread.start()

    def _run(self, send: Callable[[], Response]) -> None:
        try:
            self._outcome.append(send())
        except BaseException as error:
            self._outcome.append(error)

    @property
    def is_done(self) -> bool:
        return bool(self._outcome)

    def result(self, timeout: float = PATIENCE) -> Response:
        """Wait for the response and return it."""
        self._thread.join(timeout)
        assert self._outcome, f"no answer within {timeout} s"
        if isinstance(self._outcome[0], BaseException):
            raise self._outcome[0]
        response: Response = self._outcome[0]
        return response


@contextlib.contextmanager
def clients(work: Callable[[threading.Event], None], count: int) -> Iterator[None]:
    """Call ``work`` in this many threads, each of which works until the event it gets is set: at
    the end of the block, which waits for them."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
