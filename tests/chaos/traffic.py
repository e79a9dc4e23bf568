"""The clients of a chaos run: threads that send one kind of request after another and note what
becomes of each.

Owns the clients and their notes; ``polite.py`` and ``rude.py`` are what they do. Nothing is sent
twice: a request that was lost stays lost, so that the notes and the journal can be compared. Runs
in the test process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from random import Random
from typing import Callable

from strict_http import Malformed, Reader

from . import orders
from .orders import Order

CLIENTS = 16
# After this many seconds without a byte a client records that the server is silent.
PATIENCE = 40.0


@dataclasses.dataclass
class Note:
    """The history of one request. Times are those of the monotonic clock, which all processes
    share."""

    id: str
    kind: str
    script: str
    # When its connection was opened.
    opened: float
    # When its last byte had been handed to the system; None if the client did not get so far.
    sent: float | None = None
    # When the client had its answer, or left.
    ended: float = 0.0
    outcome: str = orders.WRONG
    text: str = "the client did not say what happened"

    def settle(self, outcome: str, text: str = "") -> None:
        self.outcome, self.text, self.ended = outcome, text, time.monotonic()


class Line:
    """A connection with its reader."""

    def __init__(self, port: int) -> None:
        self.opened = time.monotonic()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader(self.socket)

    def close(self) -> None:
        self.socket.close()


Kind = Callable[["Client", str], None]
Kinds = Mapping[str, "tuple[int, Kind]"]


class Client(threading.Thread):
    """One client: a random number generator, a kept-alive connection to each server, and its
    notes."""

    def __init__(self, name: str, traffic: Traffic, seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self.random = Random(seed)
        self.notes: list[Note] = []
        self._traffic = traffic
        self._lines: dict[str, Line] = {}
        self._kind = ""
        self._sent = 0

    def run(self) -> None:
        while not self._traffic.stopping.is_set():
            script = self.random.choice(list(self._traffic.ports))
            kinds = self._traffic.kinds[script]
            name = self.random.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
            with contextlib.suppress(IndexError):
                name, script = self._traffic.asked_for.popleft()
            self.act(name, script)
        for line in self._lines.values():
            line.close()

    def act(self, name: str, script: str) -> None:
        """Send one request of this kind, or a few together."""
        self._kind = name
        self._traffic.kinds[script][name][1](self, script)

    def order(self, deed: str, amount: int = 0, padding: str = "") -> Order:
        """Make an order with a new id."""
        self._sent += 1
        return Order(f"{self.name}.{self._sent}", deed, amount, padding)

    def _line(self, script: str) -> Line:
        """The kept-alive connection to this server. At random it is replaced by a new one."""
        if script in self._lines and self.random.random() < 0.05:
            self._lines.pop(script).close()
        if script not in self._lines:
            self._lines[script] = Line(self._traffic.ports[script])
        return self._lines[script]

    def drop(self, script: str, line: Line) -> None:
        """Close the connection and forget it."""
        line.close()
        if self._lines.get(script) is line:
            del self._lines[script]

    @contextlib.contextmanager
    def noted(self, script: str, *ids: str, fresh: bool = False) -> Iterator[tuple[Line, list[Note]]]:
        """Record the outcome of requests on one connection, a ``fresh`` one or the kept-alive one.
        An error of the connection is the outcome of each request that has none yet."""
        notes = [Note(id, self._kind, script, time.monotonic()) for id in ids]
        self.notes += notes
        line = None
        try:
            line = Line(self._traffic.ports[script]) if fresh else self._line(script)
            for note in notes:
                note.opened = line.opened
            yield line, notes
        except socket.timeout:
            self._settle(notes, orders.SILENT, f"nothing came for {PATIENCE} s")
        except (Malformed, AssertionError, ValueError) as error:
            self._settle(notes, orders.WRONG, str(error))
        except ConnectionRefusedError as error:
            self._settle(notes, orders.WRONG, repr(error))
        except OSError as error:
            self._settle(notes, orders.CUT, repr(error))
        else:
            return
        if line is not None:
            self.drop(script, line)

    def _settle(self, notes: list[Note], outcome: str, text: str) -> None:
        for note in notes:
            if not note.ended:
                note.settle(outcome, text)

    def read_answer(self, note: Note, line: Line, order: Order) -> None:
        """Read the answer to an order, and judge it. Closes the connection if the server does."""
        response = line.reader.response()
        verdict = orders.judge(order, response, note.script)
        if response["connection"] == "close":
            if not line.reader.is_at_end():
                raise Malformed("bytes after the last response")
            self.drop(note.script, line)
        note.settle(*verdict)


class Traffic:
    """All clients of one phase. ``kinds`` maps the names of request kinds, of each script, to weights
    and functions. A kind without a weight is sent only when the monkey asks for it."""

    def __init__(self, phase: str, ports: Mapping[str, int], kinds: Mapping[str, Kinds], seed: int) -> None:
        self.ports = ports
        self.kinds = kinds
        self.stopping = threading.Event()
        # The requests that the monkey has asked for: kind and script.
        self.asked_for: deque[tuple[str, str]] = deque()
        self._clients = [Client(f"{phase}{number}", self, f"{seed}/{number}") for number in range(CLIENTS)]

    def __enter__(self) -> Traffic:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for client in self._clients:
            client.join()

    def notes(self) -> list[Note]:
        return [note for client in self._clients for note in client.notes]
