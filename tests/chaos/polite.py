"""The requests of a chaos run that are sent as they should be, whatever they ask of the script.

Each function is one kind: it sends, waits, and leaves a note (``traffic.Client.noted``). Runs in
the clients' threads.
"""

from __future__ import annotations

import time
from typing import Callable

from . import orders
from .orders import Order
from .traffic import Client, Kind, Line


def ask(client: Client, script: str, order: Order, send: Callable[[Line, bytes], None] | None = None) -> None:
    """Send an order on the kept-alive connection and wait for its answer."""
    with client.noted(script, order.id) as (line, [note]):
        data = orders.encode(order, script)
        if send is None:
            line.socket.sendall(data)
        else:
            send(line, data)
        note.sent = time.monotonic()
        client.read_answer(note, line, order)


def small(client: Client, script: str) -> None:
    ask(client, script, client.order("echo", padding="p" * client.random.randrange(2000)))


def brief(client: Client, script: str) -> None:
    ask(client, script, client.order("sleep", client.random.randrange(5, 50)))


def large_body(client: Client, script: str) -> None:
    ask(client, script, client.order("echo", padding="large " * client.random.randrange(200_000, 700_000)))


def large_reply(client: Client, script: str) -> None:
    ask(client, script, client.order("reply", client.random.randrange(1_000_000, 4_000_000)))


def streamed(client: Client, script: str) -> None:
    ask(client, script, client.order("stream", client.random.randrange(1, 40)))


def pipelined(client: Client, script: str) -> None:
    several = [client.order("echo", padding="p" * client.random.randrange(500)) for _ in range(3)]
    several += [client.order("sleep", client.random.randrange(10)) for _ in range(client.random.randrange(4))]
    with client.noted(script, *(order.id for order in several)) as (line, notes):
        line.socket.sendall(b"".join(orders.encode(order, script) for order in several))
        for note in notes:
            note.sent = time.monotonic()
        for note, order in zip(notes, several):
            client.read_answer(note, line, order)


def slow_upload(client: Client, script: str) -> None:
    pieces, pause = client.random.randrange(3, 10), client.random.uniform(0.005, 0.05)

    def send(line: Line, data: bytes) -> None:
        step = len(data) // pieces + 1
        for start in range(0, len(data), step):
            line.socket.sendall(data[start : start + step])
            time.sleep(pause)

    ask(client, script, client.order("echo", padding="slow " * client.random.randrange(20_000)), send)


def slow_reader(client: Client, script: str) -> None:
    pause = client.random.uniform(0.05, 0.5)

    def send(line: Line, data: bytes) -> None:
        line.socket.sendall(data)
        time.sleep(pause)

    ask(client, script, client.order("reply", client.random.randrange(1_000_000, 4_000_000)), send)


def deed(name: str) -> Kind:
    """A kind that asks the script for this deed, with an exit code that no other part of the system
    uses."""

    def kind(client: Client, script: str) -> None:
        ask(client, script, client.order(name, 77))

    return kind


# The kinds of requests: names, weights and functions.
KINDS: dict[str, tuple[int, Kind]] = {
    "small": (40, small),
    "brief": (15, brief),
    "large body": (4, large_body),
    "large reply": (4, large_reply),
    "streamed": (6, streamed),
    "pipelined": (4, pipelined),
    "slow upload": (3, slow_upload),
    "slow reader": (2, slow_reader),
    "script error": (3, deed("fail")),
    # Sent only when the monkey asks for it.
    "exit": (0, deed("exit")),
    "segfault": (0, deed("segfault")),
    "abort": (0, deed("abort")),
    "hang": (0, deed("hang")),
    "stuck": (0, deed("stuck")),
}
# The kind for scripts with @batched, whose run() may fail as a whole.
BATCHED_KINDS: dict[str, tuple[int, Kind]] = {"call error": (2, deed("fail_call"))}
