"""A receiver of telemetry that runs in the test process, records what it gets, and answers as it is told.

Owns the HTTP server and its answers. Does not own what is expected of what it gets. ``Receiver.url`` is where it
listens; ``items`` are the items of Application Insights that it was sent, ``requests`` everything as it came.
"""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from harness import PATIENCE, eventually

# What a receiver may answer: status, headers, body.
Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {}, b"{}")


class Received(NamedTuple):
    """One request as it came; ``body`` without its compression."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Listens on a free port of loopback. ``answer`` makes the answer to a request; None means that it never answers,
    and bytes are written as they are, whether they are HTTP or not.

    Use it in a ``with`` statement.
    """

    def __init__(self, answer: Callable[[Received], Answer | bytes | None] = lambda received: OK) -> None:
        self.answer = answer
        self.requests: list[Received] = []
        self._closing = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                received = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                receiver.requests.append(received)
                answer = receiver.answer(received)
                if answer is None:
                    receiver._closing.wait()
                    self.close_connection = True
                    return
                if isinstance(answer, bytes):
                    self.wfile.write(answer)
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nothing: pytest shows what a test needs."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)

    # ---- Application Insights

    @property
    def items(self) -> list[dict[str, Any]]:
        """All items that came, also those that were not accepted."""
        return [item for received in list(self.requests) for item in json.loads(received.body)]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The items of a kind: ``Request``, ``Message``, ``Exception``, ``Event``."""
        return [item for item in self.items if item["name"] == f"Microsoft.ApplicationInsights.{kind}"]

    def wait_for(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """The items of a kind, as soon as there are ``count`` of them."""
        return eventually(lambda: (found := self.of_kind(kind)) and len(found) >= count and found, f"{count} {kind}")


def data(item: dict[str, Any]) -> dict[str, Any]:
    """The item's own data."""
    found: dict[str, Any] = item["data"]["baseData"]
    return found
