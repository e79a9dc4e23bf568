"""A replica passes requests to its server as they are. Stands in for Serve: calls the ASGI application of a replica.

``tests/ray_cluster`` does the same with Ray. Both compare with the server alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from exchanges import EXCHANGES, JSON, Answer, Exchange, ask, chunked, comparable, request
from harness import SCRIPTS

from azureml_inference_server_http.replica.passing import application
from azureml_inference_server_http.testing import ScoringServer, serve

ORIGINS = "http://a.com"
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[bool, ScoringServer]]:
    with ExitStack() as stack:
        yield {
            is_raw: stack.enter_context(serve(SCRIPTS / "replica" / script, cors_origins=ORIGINS))
            for is_raw, script in {False: "score.py", True: "raw.py"}.items()
        }


class Replica:
    """What ``application`` knows of ``replica.server.Server``."""

    def __init__(self, port: int) -> None:
        self.port = port

    def stop(self) -> None:
        """The tests need it again."""


class Client:
    """A client of Serve. ``parts``: its body, as it comes. ``None`` among them: the client leaves."""

    def __init__(self, parts: list[bytes | None]) -> None:
        self._parts = list(parts) or [b""]
        self.left = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self._parts:
            part = self._parts.pop(0)
            if part is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def answer(self) -> Answer:
        start, *parts = self.sent
        fields: dict[str, list[str]] = {}
        for name, value in start["headers"]:
            fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [False]
        return Answer(f"HTTP/1.1 {start['status']}", fields, b"".join(part["body"] for part in parts), [])


def passed(app: Any, exchange: Exchange, parts: list[bytes]) -> Client:
    return run(app, passing(app, exchange, parts))


def run(app: Any, work: Coroutine[Any, Any, Found]) -> Found:
    """Run ``work`` in the life of a replica, at whose end the application closes its connections."""

    async def whole() -> Found:
        async def receive() -> dict[str, Any]:
            return {"type": "lifespan.shutdown"}

        try:
            return await work
        finally:
            await app({"type": "lifespan"}, receive, Client([]).send)
            await asyncio.sleep(0.01)  # the event loop closes the sockets

    return asyncio.run(whole())


async def passing(app: Any, exchange: Exchange, parts: list[bytes]) -> Client:
    client = Client([*parts])
    await asyncio.wait_for(app(scope_of(exchange), client.receive, client.send), 60)
    return client


def scope_of(exchange: Exchange) -> dict[str, Any]:
    head = exchange.request.partition(b"\r\n\r\n")[0]
    line, *lines = head.split(b"\r\n")
    method, target, _ = line.split(b" ")
    path, _, query = target.partition(b"?")
    fields = [(name.lower(), value) for name, value in (each.split(b": ", 1) for each in lines)]
    if not any(name == b"x-request-id" for name, _ in fields):
        fields.append((b"x-request-id", b"00000000-0000-0000-0000-000000000000"))  # as Serve does
    return {
        "type": "http",
        "method": method.decode(),
        "path": path.decode(),
        "raw_path": b"/prefix" + path,
        "root_path": "/prefix",
        "query_string": query,
        "headers": fields,
    }


def body_of(exchange: Exchange) -> bytes:
    head, _, body = exchange.request.partition(b"\r\n\r\n")
    if b"Transfer-Encoding" not in head:
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


@pytest.mark.parametrize("pieces", [1, 3], ids=["whole", "in parts"])
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_an_answer_is_that_of_the_server_alone(
    exchange: Exchange, pieces: int, servers: dict[bool, ScoringServer]
) -> None:
    server = servers[exchange.is_raw]
    body = body_of(exchange)
    size = max(1, -(-len(body) // pieces))
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    found = passed(application(Replica(server.port), 30), exchange, parts).answer()
    expected = ask(server.port, exchange, "")
    # Serve writes the ids into the reply, and frames a stream.
    reduced = exchange._replace(differs=("x-request-id", "x-ms-request-id", "transfer-encoding", *exchange.differs))
    assert comparable(found, reduced) == comparable(expected, reduced)


def test_connections_are_used_again_until_the_server_closes_them(servers: dict[bool, ScoringServer]) -> None:
    app = application(Replica(servers[False].port), 30)
    score = Exchange("", request("POST", "/score", JSON, b"{}"))
    closed = Exchange("", request("GET", "/nope"))

    async def several() -> list[int]:
        clients = [await passing(app, each, [b"{}"]) for each in (score, score, closed, score)]
        several_at_once = await asyncio.gather(*(passing(app, score, [b"{}"]) for _ in range(5)))
        return [client.sent[0]["status"] for client in (*clients, *several_at_once)]

    assert run(app, several()) == [200, 200, 404, 200, *[200] * 5]


def test_a_stream_comes_part_by_part(servers: dict[bool, ScoringServer]) -> None:
    exchange = Exchange("", request("GET", "/score?stream=1"), is_raw=True)
    client = passed(application(Replica(servers[True].port), 30), exchange, [b""])
    parts = [message["body"] for message in client.sent[1:]]
    assert parts == [b"part %d\n" % number for number in range(5)] + [b""]


def test_a_client_that_leaves_while_it_waits_is_passed_on(servers: dict[bool, ScoringServer]) -> None:
    server = servers[False]
    app = application(Replica(server.port), 30)
    body = json.dumps({"sleep": 5}).encode()
    exchange = Exchange("", request("POST", "/score", JSON, body))

    async def leave() -> Client:
        client = Client([body])
        task = asyncio.ensure_future(app(scope_of(exchange), client.receive, client.send))
        await asyncio.sleep(0.1)
        client.left.set()
        await asyncio.wait_for(task, 60)
        return client

    assert run(app, leave()).sent == []


def test_a_client_that_leaves_in_its_body_is_passed_on(servers: dict[bool, ScoringServer]) -> None:
    exchange = Exchange("", request("POST", "/score", JSON + "Content-Length: 100\r\n", b"", False))
    app = application(Replica(servers[False].port), 30)
    for parts in ([None], [b"{", None], [b"{", b'"a"', None]):

        async def leave(parts: list[bytes | None] = parts) -> Client:
            client = Client(parts)
            await asyncio.wait_for(app(scope_of(exchange), client.receive, client.send), 60)
            return client

        assert run(app, leave()).sent == []


def test_a_server_that_is_gone_is_a_readable_503() -> None:
    with serve(SCRIPTS / "replica" / "score.py") as server:
        port = server.port
    client = passed(application(Replica(port), 30), Exchange("", request("POST", "/score", JSON, b"{}")), [b"{}"])
    assert client.sent[0]["status"] == 503
    assert "was lost" in json.loads(client.sent[1]["body"])["message"]


def test_a_chunked_body_that_is_refused_early_does_not_reach_the_next_exchange(
    servers: dict[bool, ScoringServer],
) -> None:
    """The reply comes before the body has been sent."""
    app = application(Replica(servers[False].port), 30)
    exchange = Exchange("", request("POST", "/nope", JSON + "Transfer-Encoding: chunked\r\n", chunked(b"{}"), False))

    async def both() -> list[int]:
        client = Client([b"x", *[b"y" * 100_000] * 20])
        await asyncio.wait_for(app(scope_of(exchange), client.receive, client.send), 60)
        after = await passing(app, Exchange("", request("POST", "/score", JSON, b"{}")), [b"{}"])
        return [client.sent[0]["status"], after.sent[0]["status"]]

    assert run(app, both()) == [404, 200]
