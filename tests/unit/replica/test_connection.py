"""The connection from a replica to its server, against bytes that come in every possible split."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from azureml_inference_server_http.replica.connection import Connection, Connections, Head, ServerLost

REPLIES = {
    "a length": (b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello", True),
    "no body": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\n\n\r\n0\r\n\r\n",
        200,
        b"abc\n",
        True,
    ),
    "a head before the head": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1",
        200,
        b"1",
        True,
    ),
    "the last reply": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\nok",
        200,
        b"ok",
        False,
    ),
}


class Transport:
    """Keeps what is written. Like uvloop's transports, it is not of asyncio's class."""

    def __init__(self) -> None:
        self.written = b""
        self.is_reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def read(connection: Connection, method: bytes = b"POST") -> tuple[Head, bytes]:
    head = await connection.head(method)
    body = b""
    while not connection.is_complete:
        body += await connection.part()
    return head, body


def connected() -> Connection:
    connection = Connection()
    connection.connection_made(Transport())
    connection.send(b"POST", b"/score", [])
    return connection


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_that_is_cut_anywhere_is_the_same(name: str) -> None:
    data, status, body, may_stay = REPLIES[name]

    async def cut_at(at: int) -> None:
        connection = connected()
        reading = asyncio.ensure_future(read(connection))
        for part in (data[:at], data[at:]):
            await asyncio.sleep(0)
            connection.data_received(part)
        head, found = await reading
        assert (head.status, found) == (status, body)
        assert connection.may_be_used_again() is may_stay

    async def everywhere() -> None:
        for at in range(len(data) + 1):
            await cut_at(at)

    asyncio.run(everywhere())


@pytest.mark.parametrize("name", sorted(set(REPLIES) - {"no body", "no content"}))
def test_a_reply_that_ends_early_is_lost(name: str) -> None:
    data = REPLIES[name][0]

    async def end_at(at: int) -> None:
        connection = connected()
        connection.data_received(data[:at])
        connection.connection_lost(None)
        with pytest.raises(ServerLost):
            await read(connection)
        assert not connection.may_be_used_again()

    async def everywhere() -> None:
        for at in range(len(data)):
            await end_at(at)

    asyncio.run(everywhere())


def test_a_reply_without_a_length_ends_with_the_connection() -> None:
    async def run() -> None:
        connection = connected()
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nab")
        reading = asyncio.ensure_future(read(connection))
        await asyncio.sleep(0)
        connection.data_received(b"c")
        await asyncio.sleep(0)
        connection.connection_lost(None)
        assert (await reading)[1] == b"abc"
        assert not connection.may_be_used_again()

    asyncio.run(run())


def test_a_reply_to_head_has_no_body() -> None:
    async def run() -> None:
        connection = connected()
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        head, body = await read(connection, b"HEAD")
        assert (head.fields, body) == ([(b"content-length", b"5")], b"")
        assert connection.may_be_used_again()

    asyncio.run(run())


def test_a_large_reply_is_not_read_ahead_of_the_client() -> None:
    async def run() -> None:
        connection = Connection()
        transport = Transport()
        connection.connection_made(transport)
        connection.send(b"GET", b"/", [])
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 290_000)
        assert not transport.is_reading
        await connection.head(b"GET")
        assert len(await connection.part()) == 290_000
        assert transport.is_reading

    asyncio.run(run())


def test_the_bytes_of_a_request() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a" * 17
        yield b"b"

    async def run() -> None:
        connection = Connection()
        transport = Transport()
        connection.connection_made(transport)
        connection.send(b"POST", b"/score?a=%20", [(b"host", b"x"), (b"transfer-encoding", b"chunked")])
        await connection.send_parts(parts(), is_chunked=True)
        assert transport.written == (
            b"POST /score?a=%20 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            b"11\r\naaaaaaaaaaaaaaaaa\r\n1\r\nb\r\n0\r\n\r\n"
        )

    asyncio.run(run())


def test_a_connection_waits_for_no_longer_than_it_may() -> None:
    async def run() -> None:
        made = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.append(writer)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            kept, short = Connections(port, 60), Connections(port, 0)
            first = await kept.take()
            kept.give_back(first)
            assert await kept.take() is first
            second = await short.take()
            short.give_back(second)
            third = await short.take()
            assert third is not second
            first.abort()
            kept.give_back(first)
            fourth = await kept.take()
            assert fourth is not first
            for each in (third, fourth):
                each.abort()
            await asyncio.sleep(0.05)  # the event loop closes the sockets

    asyncio.run(run())


def test_a_port_without_a_server_is_a_lost_server() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(ServerLost):
            await Connections(port, 60).take()

    asyncio.run(run())
