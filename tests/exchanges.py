"""Exchanges with a server alone, and with the same script behind a replica of Ray Serve, as bytes.

``tests/scripts/replica`` has the scripts.
"""

from __future__ import annotations

import re
import socket
import time
from typing import NamedTuple

JSON = "Content-Type: application/json\r\n"
BYTES = "Content-Type: application/octet-stream\r\n"
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
# What is of one connection or one moment, or what Serve writes.
IGNORED = {"date", "server", "connection", "keep-alive", "x-ms-run-fn-exec-ms"}


class Exchange(NamedTuple):
    """A request; ``is_raw``: to the script raw.py. ``differs``: fields that may differ behind Serve, and why."""

    name: str
    request: bytes
    is_raw: bool = False
    differs: tuple[str, ...] = ()


class Answer(NamedTuple):
    """What came back. ``pauses``: seconds between its parts."""

    status: str
    fields: dict[str, list[str]]
    body: bytes
    pauses: list[float]


def request(method: str, target: str, fields: str = "", body: bytes = b"", length: bool = True) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}"
    head += f"Content-Length: {len(body)}\r\n" if length and (body or method == "POST") else ""
    return head.encode() + b"\r\n" + body


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def ask(port: int, exchange: Exchange, prefix: str) -> Answer:
    """Send it, and read until the other side closes."""
    words = exchange.request.split(b" ", 2)
    words[1] = prefix.encode() + words[1]
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(b" ".join(words))
        received, pauses, last = b"", [], time.monotonic()
        while part := client.recv(1 << 16):
            received += part
            pauses.append(time.monotonic() - last)
            last = time.monotonic()
    head, _, body = received.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100 "):
        head, _, body = body.partition(b"\r\n\r\n")
    # Without the words after the status, which each server chooses.
    status, *lines = head.decode("latin-1").split("\r\n")
    status = status[:12]
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip())
    if fields.get("transfer-encoding") == ["chunked"]:
        body = _joined(body)
    return Answer(status, fields, body, pauses)


def _joined(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return whole
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    raise AssertionError("the last chunk is missing")


def comparable(answer: Answer, exchange: Exchange) -> tuple[str, dict[str, list[str]], bytes]:
    """The parts of an answer that must be the same."""
    fields = {
        name: [UUID.sub("UUID", value) for value in values]
        for name, values in answer.fields.items()
        if name not in IGNORED and name not in exchange.differs
    }
    return answer.status, fields, answer.body


LARGE = bytes(range(256)) * 8192
# Serve adds an x-request-id to every reply; the server only to those of /score.
ID = ("x-request-id",)

EXCHANGES = [
    Exchange("JSON", request("POST", "/score", JSON, b'{"a": 1}')),
    Exchange(
        "ids of the caller",
        request("POST", "/score", JSON + "x-request-id: r1\r\nx-ms-client-request-id: c1\r\n", b"{}"),
    ),
    Exchange(
        "a trace of the caller",
        request("POST", "/score", JSON + f"traceparent: 00-{'1' * 32}-{'2' * 16}-01\r\n", b"{}"),
    ),
    Exchange(
        "an id that is too long", request("POST", "/score", JSON + f"x-request-id: {'r' * 101}\r\n", b"{}"), differs=ID
    ),
    Exchange(
        "two ids that differ", request("POST", "/score", JSON + "x-request-id: a\r\nx-ms-request-id: b\r\n", b"{}")
    ),
    Exchange(
        "the Flask context",
        request("POST", "/score?key=a%20b", JSON + "x-request-id: r2\r\n", b'{"flask": 1}'),
    ),
    Exchange("an error of run()", request("POST", "/score", JSON, b'{"boom": 1}')),
    Exchange("a worker that dies", request("POST", "/score", JSON, b'{"die": 1}')),
    Exchange("broken JSON", request("POST", "/score", JSON, b"{")),
    Exchange("not UTF-8", request("POST", "/score", JSON, b"\xff\xfe")),
    Exchange("an empty body", request("POST", "/score", JSON)),
    Exchange("a number", request("POST", "/score", JSON, b"1.50")),
    Exchange("text without a type", request("POST", "/score", "", b'{"b": [1, 2]}')),
    Exchange("a form", request("POST", "/score", "Content-Type: application/x-www-form-urlencoded\r\n", b'{"c": 1}')),
    Exchange(
        "a chunked body",
        request("POST", "/score", JSON + "Transfer-Encoding: chunked\r\n", chunked(b'{"a"', b": 1}"), False),
    ),
    Exchange("Expect", request("POST", "/score", JSON + "Expect: 100-continue\r\n", b'{"a": 2}')),
    Exchange("a query", request("GET", "/score?a=%20b&c=%C3%BC+d&a=2")),
    Exchange("two slashes", request("GET", "//score?a=1"), differs=ID),
    Exchange("HEAD /score", request("HEAD", "/score"), differs=ID),
    Exchange("PUT /score", request("PUT", "/score", "", b"x"), differs=ID),
    Exchange(
        "a preflight",
        request("OPTIONS", "/score", "Origin: http://a.com\r\nAccess-Control-Request-Method: POST\r\n"),
        differs=ID,
    ),
    Exchange("another origin", request("POST", "/score", JSON + "Origin: http://b.com\r\n", b"{}")),
    Exchange("a known origin", request("POST", "/score", JSON + "Origin: http://a.com\r\n", b"{}")),
    Exchange("no such path", request("GET", "/nope"), differs=ID),
    Exchange("health", request("GET", "/"), differs=ID),
    Exchange("liveness", request("GET", "/livez"), differs=ID),
    Exchange("readiness", request("GET", "/readyz"), differs=ID),
    Exchange("swagger", request("GET", "/swagger.json?version=3"), differs=ID),
    Exchange("no such swagger", request("GET", "/swagger.json?version=9"), differs=ID),
    Exchange(
        "keys of the caller",
        request("POST", "/score", BYTES + "Authorization: Bearer abc\r\nX-Api-Key: def\r\n", b"x"),
        is_raw=True,
    ),
    Exchange("raw bytes", request("POST", "/score", BYTES + "User-Agent: me/1\r\n", LARGE), is_raw=True),
    Exchange(
        "raw bytes in chunks",
        request("POST", "/score", BYTES + "Transfer-Encoding: chunked\r\n", chunked(LARGE, b"y"), False),
        is_raw=True,
    ),
    Exchange("a large reply", request("GET", "/score?large=3000000"), is_raw=True),
    Exchange("an empty reply", request("GET", "/score?large=0"), is_raw=True),
    Exchange("a status and fields", request("GET", "/score?status=418"), is_raw=True),
    Exchange("no content", request("GET", "/score?status=204"), is_raw=True),
    Exchange("a stream", request("GET", "/score?stream=1"), is_raw=True),
]
