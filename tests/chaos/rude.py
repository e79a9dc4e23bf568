"""The requests of a chaos run whose clients leave, stall or do not speak HTTP.

Each function is one kind. A client that leaves notes when; what is not a request has to be refused
in JSON, and what it carries must never run (``invariants.py``). Runs in the clients' threads.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from strict_http import Malformed, explanation

from . import orders
from .traffic import Client, Kind, Line, Note

# The limits with which ``campaign.py`` starts the servers, in seconds and bytes. On a busy machine the clients, which
# share an interpreter, may be slow for some seconds.
CLIENT_TIMEOUT = 10
MAX_REQUEST_SIZE = 8_000_000
# Milliseconds of a call that is cancelled when its client leaves: less than the limit.
LONG_CALL = 3000

GARBAGE = (
    b"NONSENSE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nbad name: x\r\n\r\n",
    b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 200 + b"\r\n",
)


def leave(client: Client, line: Line, notes: list[Note]) -> None:
    """Close the connection, at random either normally or with a reset, as for a killed program."""
    if client.random.random() < 0.3:
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()
    for note in notes:
        note.settle(orders.LEFT)


def leave_soon(client: Client, script: str) -> None:
    """Disconnect while the request waits or runs, or just when its answer arrives."""
    _leave_call(client, script, client.random.randrange(5, 80))


def leave_long_call(client: Client, script: str) -> None:
    """Disconnect while the request runs, long before its end."""
    _leave_call(client, script, LONG_CALL)


def _leave_call(client: Client, script: str, milliseconds: int) -> None:
    order = client.order("sleep", milliseconds)
    pause = client.random.uniform(0, 0.1)
    with client.noted(script, order.id, fresh=True) as (line, [note]):
        line.socket.sendall(orders.encode(order, script))
        note.sent = time.monotonic()
        time.sleep(pause)
        leave(client, line, [note])


def leave_several(client: Client, script: str) -> None:
    """Disconnect with more requests on the connection, which hide the end of the stream from the
    server."""
    several = [client.order("sleep", client.random.randrange(5, 40)) for _ in range(4)]
    pause = client.random.uniform(0, 0.1)
    with client.noted(script, *(order.id for order in several), fresh=True) as (line, notes):
        line.socket.sendall(b"".join(orders.encode(order, script) for order in several))
        for note in notes:
            note.sent = time.monotonic()
        time.sleep(pause)
        leave(client, line, notes)


def leave_upload(client: Client, script: str) -> None:
    order = client.order("echo", padding="x" * client.random.randrange(10, 500_000))
    with client.noted(script, order.id, fresh=True) as (line, [note]):
        data = orders.encode(order, script)
        line.socket.sendall(data[: client.random.randrange(1, len(data))])
        leave(client, line, [note])


def leave_stream(client: Client, script: str) -> None:
    order = client.order("stream", 60)
    with client.noted(script, order.id, fresh=True) as (line, [note]):
        line.socket.sendall(orders.encode(order, script))
        note.sent = time.monotonic()
        line.socket.recv(1000)
        leave(client, line, [note])


def half_closed(client: Client, script: str) -> None:
    """Close the sending side. The server then probes for the client while the request waits, and
    answers it."""
    order = client.order("sleep", client.random.randrange(30))
    with client.noted(script, order.id, fresh=True) as (line, [note]):
        line.socket.sendall(orders.encode(order, script))
        line.socket.shutdown(socket.SHUT_WR)
        note.sent = time.monotonic()
        while (response := line.reader.response()).status == 102:
            continue
        expect_end(line)
        note.settle(*orders.judge(order, response, script))


def refused(client: Client, script: str, id: str, data: bytes, *statuses: int, half_close: bool = False) -> None:
    """Send data that the server must refuse with one of these statuses, after which it must close
    the connection."""
    with client.noted(script, id, fresh=True) as (line, [note]):
        # The server may close the connection before all data was sent. Its answer can still be
        # read.
        with contextlib.suppress(ConnectionError):
            line.socket.sendall(data)
        if half_close:
            line.socket.shutdown(socket.SHUT_WR)
        response = line.reader.response()
        if response.status not in statuses:
            raise Malformed(f"expected {statuses} and got {response}")
        explanation(response)
        expect_end(line)
        note.settle(orders.REFUSED, str(response.status))


def expect_end(line: Line) -> None:
    if not line.reader.is_at_end():
        raise Malformed("bytes after the last response")
    line.close()


def garbage(client: Client, script: str) -> None:
    refused(client, script, "", client.random.choice(GARBAGE), 400, 414, 431, 501)


def late_head(client: Client, script: str) -> None:
    refused(client, script, "", b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Le", 408)


def short_body(client: Client, script: str) -> None:
    order = client.order("echo", padding="short" * 100)
    data = orders.encode(order, script)
    cut = client.random.randrange(1, 500)
    refused(client, script, order.id, data[:-cut], 400, half_close=True)


def two_lengths(client: Client, script: str) -> None:
    order = client.order("echo")
    data = orders.encode(order, script)
    extra = client.random.choice([b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
    refused(client, script, order.id, data.replace(b"Content-Type", extra + b"Content-Type", 1), 400)


def too_large(client: Client, script: str) -> None:
    order = client.order("echo", padding="x" * (MAX_REQUEST_SIZE + 1))
    refused(client, script, order.id, orders.encode(order, script), 413)


# The kinds of requests: names, weights and functions.
KINDS: dict[str, tuple[int, Kind]] = {
    "leave soon": (6, leave_soon),
    "leave several": (2, leave_several),
    "leave upload": (3, leave_upload),
    "leave stream": (2, leave_stream),
    "half closed": (3, half_closed),
    "garbage": (2, garbage),
    "short body": (2, short_body),
    "two lengths": (2, two_lengths),
    "too large": (1, too_large),
    # Sent only when the monkey asks for it, because its client waits for the time limit.
    "late head": (0, late_head),
}
# Kinds for scripts whose calls the server can cancel.
ASYNC_KINDS: dict[str, tuple[int, Kind]] = {"leave long call": (4, leave_long_call)}
