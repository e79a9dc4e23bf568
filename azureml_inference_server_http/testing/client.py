"""Public: ``TestClient``, which sends requests to a running server, and ``Reply``, what it gets back.

Owns how a test's values become a request. Does not own the server (``server.py``): the client may call any server that
listens. Each request has a connection of its own, so clients may be used by several threads at once. Runs in the test
process.
"""

from __future__ import annotations

import http.client
import json as json_module
from collections.abc import Mapping
from email.message import Message
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

_NOT_GIVEN: Any = object()


class Reply(NamedTuple):
    """A response of the server. ``headers["content-type"]`` finds a header in any case, None if it is not there."""

    status: int
    reason: str
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, by the charset of its Content-Type, else UTF-8."""
        return self.body.decode(self.headers.get_content_charset("utf-8"))

    def json(self) -> Any:
        """The body as JSON. Raises ValueError, with status and body, if it is none."""
        try:
            return json_module.loads(self.body)
        except ValueError as error:
            raise ValueError(f"the body of this reply is not JSON ({error}): {self}") from error

    def __repr__(self) -> str:
        # Tests show it when they fail.
        return f"<Reply {self.status} {self.reason}: {self.body[:2000].decode('utf-8', 'backslashreplace')}>"


class TestClient:
    """Sends requests to the server at ``url``, such as ``http://127.0.0.1:5001``.

    ``timeout``: the longest pause in seconds while a reply is awaited; OSError is raised after it.
    """

    __test__ = False  # not a class of tests, although pytest might take the name for one

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not the address of a server: write http://HOST:PORT")
        self.url = url.rstrip("/")
        self._host, self._port, self._timeout = parts.hostname, parts.port or 80, timeout

    def __repr__(self) -> str:
        return f"TestClient({self.url!r})"

    def score(
        self,
        *,
        json: Any = _NOT_GIVEN,
        data: bytes | str = b"",
        method: str = "POST",
        query: Mapping[str, Any] | str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Call the script. ``json`` is sent as JSON with its Content-Type, ``data`` as it is, without one."""
        own = dict(headers or {})
        if json is not _NOT_GIVEN:
            if data:
                raise TypeError("score() takes json or data, not both")
            data = json_module.dumps(json)
            if not any(name.lower() == "content-type" for name in own):
                own["Content-Type"] = "application/json"
        text = query if isinstance(query, str) else urlencode(query, doseq=True)
        return self.request(method, f"/score?{text}" if text else "/score", data, own)

    def health(self) -> Reply:
        """Ask ``GET /``: 200 if at least one worker is ready."""
        return self.request("GET", "/")

    def swagger(self, version: str | int = 2) -> Any:
        """The swagger document of the script: version 2, 3 or 3.1. Raises ValueError if it has none of this version."""
        reply = self.request("GET", f"/swagger.json?version={version}")
        if reply.status != 200:
            raise ValueError(f"there is no such swagger document: {reply}")
        return reply.json()

    def request(
        self, method: str, target: str, data: bytes | str = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send any request and read the whole response."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            body = data.encode() if isinstance(data, str) else data
            connection.request(method, target, body or None, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.reason, response.headers, response.read())
        finally:
            connection.close()
