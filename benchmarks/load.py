"""Clients: wrk for many connections, one socket for exact times, and requests at given moments for
queues.

Owns how requests are sent and timed; not which, nor what the answers should be. Everything is
closed loop except ``open_loop``. Runs in the benchmark process, wrk beside it, on the same cores as
the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .queueing import Arrival

SCRIPT = Path(__file__).resolve().with_name("post.lua")
PATIENCE = 60.0
MISSING = """\
wrk was not found. It is the load generator of these benchmarks; install it with `apt-get install wrk` (Debian, Ubuntu),
`dnf install wrk` (Fedora) or `brew install wrk` (macOS)."""


class LoadFailed(Exception):
    """A measurement that does not count: answers were refused, broken or wrong."""


class Request(NamedTuple):
    """The request that a load generator sends again and again. wrk does not send ``headers``."""

    file: Path
    content_type: str = "application/json"
    path: str = "/score"
    # More header fields.
    headers: tuple[tuple[str, str], ...] = ()


class Load(NamedTuple):
    """The result of a run of wrk."""

    rps: float
    p50_ms: float
    p99_ms: float
    requests: int
    bad_status: int
    broken: int
    # Median of the number that ``tell`` names in the answers.
    told: float


def find_wrk() -> str:
    """The path of wrk. SystemExit, with how to get it, if it is not there."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit(MISSING)
    return found


def wrk(
    port: int,
    request: Request,
    connections: int,
    seconds: float,
    keep_alive: bool = True,
    tell: str | None = None,
) -> Load:
    """Have wrk send requests on this many connections. Each sends its next request after the answer
    to the last. ``tell`` is the name of a number in the answers, which are JSON."""
    # wrk accepts only whole seconds. It gets one thread, because it shares the cores with the
    # server.
    command = [
        *(find_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"),
        *("-s", str(SCRIPT), f"http://127.0.0.1:{port}{request.path}", "--"),
        *(str(request.file), request.content_type, "keep-alive" if keep_alive else "close"),
        *([tell] if tell else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + PATIENCE)
    load = parse_outcome(done.stdout + done.stderr)
    if load.requests == 0:
        raise LoadFailed(f"no request of {connections} connections was answered within {seconds:g} s")
    if load.bad_status:
        raise LoadFailed(f"{load.bad_status} of {load.requests} requests were answered with an error")
    if tell and not load.told:
        raise LoadFailed(f"no answer had the number {tell}")
    return load


def parse_outcome(output: str) -> Load:
    """Read the result from wrk's output: the line that post.lua writes, in microseconds."""
    for line in output.splitlines():
        if line.startswith("outcome "):
            told = json.loads(line[len("outcome ") :])
            return Load(
                rps=told["requests"] / (told["microseconds"] / 1e6),
                p50_ms=told["p50"] / 1000,
                p99_ms=told["p99"] / 1000,
                requests=told["requests"],
                bad_status=told["bad_status"],
                broken=told["broken"],
                told=told["told"],
            )
    raise LoadFailed(f"wrk gave no outcome: {output.strip()[-200:]}")


def first_answer(port: int, request: Request) -> bytes:
    """The body of one answer, however it is framed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        headers = {"Content-Type": request.content_type, **dict(request.headers)}
        connection.request("POST", request.path, request.file.read_bytes(), headers)
        response = connection.getresponse()
        body = response.read()
    if response.status != 200:
        raise LoadFailed(f"answered {response.status}: {body[:200]!r}")
    return body


class Caller:
    """One client with one request at a time. Keeps its connection if the server does; if not,
    connecting is part of the time, as it is for everybody who calls such a server."""

    def __init__(self, port: int, request: Request) -> None:
        self._port = port
        body = request.file.read_bytes()
        head = f"POST {request.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.content_type}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in request.headers)
        self._message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._socket: socket.socket | None = None
        self._buffer = bytearray(1 << 20)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def call(self) -> tuple[float, bytes]:
        """Seconds from before connecting or sending to the last byte received, and the body."""
        started = time.perf_counter()
        reused = self._socket is not None
        try:
            keep, body = self._exchange()
        except (ConnectionError, EOFError):
            # The server may have closed a connection that was kept open. On a new connection this
            # is an error.
            self._close()
            if not reused:
                raise
            keep, body = self._exchange()
        elapsed = time.perf_counter() - started
        if not keep:
            self._close()
        return elapsed, memoryview(self._buffer)[body].tobytes()

    def _exchange(self) -> tuple[bool, slice]:
        """Send the request and read the answer. Returns whether the connection stays open, and the
        range of the body in the buffer."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self._message)
        received, end = 0, -1
        while end < 0:
            received += self._receive(received)
            end = self._buffer.find(b"\r\n\r\n", 0, received)
        head = bytes(self._buffer[:end]).lower()
        last = end + 4 + _content_length(head)
        if last > len(self._buffer):
            self._buffer.extend(bytes(last - len(self._buffer)))
        while received < last:
            received += self._receive(received)
        return b"\r\nconnection: close" not in head, slice(end + 4, last)

    def _receive(self, at: int) -> int:
        assert self._socket is not None
        count = self._socket.recv_into(memoryview(self._buffer)[at:])
        if count == 0:
            raise EOFError("the server closed the connection")
        return count

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _content_length(head: bytes) -> int:
    """Read Content-Length from the head of a response, which is in lower case and must have status
    200."""
    status, _, fields = head.partition(b"\r\n")
    if b" 200" not in status:
        raise LoadFailed(f"answered {status.decode('latin-1')}")
    for line in fields.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    raise LoadFailed("answered without a Content-Length")


def closed_loop(port: int, request: Request, seconds: float, at_least: int = 5) -> list[tuple[float, bytes]]:
    """Send one request after the other for ``seconds``, after three that do not count."""
    with Caller(port, request) as caller:
        for _ in range(3):
            caller.call()
        calls: list[tuple[float, bytes]] = []
        until = time.perf_counter() + seconds
        while len(calls) < at_least or time.perf_counter() < until:
            calls.append(caller.call())
        return calls


class Served(NamedTuple):
    """One request of ``open_loop``: when it was sent, how long its ``run()`` took, and how many
    seconds the client waited."""

    arrival: Arrival
    seconds: float


def open_loop(port: int, arrivals: Sequence[Arrival]) -> list[Served]:
    """Send each of ``arrivals`` at its time on a connection of its own, even if others still wait.
    Returns the results in the order of sending. The answers contain the time that ``run()`` took
    (`scripts/sleeping.py`)."""
    return sorted(asyncio.run(_send_all(port, arrivals)))


async def _send_all(port: int, arrivals: Sequence[Arrival]) -> list[Served]:
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.1

    async def send(arrival: Arrival) -> Served:
        await asyncio.sleep(start + arrival.at - loop.time())
        sent = loop.time()
        body = json.dumps({"ms": arrival.ms}).encode()
        head = "POST /score HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        told = await reader.readexactly(_content_length(answer[:-4]))
        elapsed = loop.time() - sent
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return Served(Arrival(sent - start, json.loads(told)["slept_ms"]), elapsed)

    return list(await asyncio.gather(*(send(arrival) for arrival in arrivals)))
