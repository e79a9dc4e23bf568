"""What the supervisor and the front say to each other, as values and as lines of text.

Each message is one line. The supervisor sends orders (``write``), the front sends reports (``read``).
``src/control.rs`` is the front's side and has the same verbs; ``tests/control_lines.txt`` has an example of each, which
both sides are tested with. Used in the supervisor process, and in the server with worker threads.

A worker's pid is its number if workers are threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Union

# Longest line that either side may send, in bytes, its newline included. A longer text is cut.
MAX_LINE = 4096


def keep_apart(kinds: Iterable[type[Any]]) -> None:
    """Let messages of these kinds be equal only to those of the same kind. As tuples, ``drain`` would be ``stop``."""

    def equal(self: Any, other: Any) -> bool:
        return type(self) is type(other) and tuple(self) == tuple(other)

    def differ(self: Any, other: Any) -> bool:
        return not equal(self, other)

    for kind in kinds:
        for name, method in (("__eq__", equal), ("__ne__", differ), ("__hash__", tuple.__hash__)):
            setattr(kind, name, method)


# ---- Orders: what the supervisor tells the front


class Exited(NamedTuple):
    """``exited PID TEXT``: the worker has ended; the text says how, for the client whose request it was running."""

    pid: int
    how: str


class Stopped(NamedTuple):
    """``stopped PID``: the worker does nothing until it is continued (SIGSTOP)."""

    pid: int


class Continued(NamedTuple):
    """``continued PID``: the worker goes on (SIGCONT)."""

    pid: int


class Retire(NamedTuple):
    """``retire PID``: send this worker no more jobs and let it exit."""

    pid: int


class Drain(NamedTuple):
    """``drain``: stop accepting, finish what is queued and running, then return."""


class Stop(NamedTuple):
    """``stop``: answer everything 503 now, then return."""


Order = Union[Exited, Stopped, Continued, Retire, Drain, Stop]
ORDERS: tuple[type[Order], ...] = (Exited, Stopped, Continued, Retire, Drain, Stop)


def write(order: Order) -> bytes:
    """An order as a line, with its newline."""
    verb = type(order).__name__.lower()
    text = " ".join([verb, *map(str, order)]).replace("\n", " ")
    return text.encode("utf-8", "replace")[: MAX_LINE - 1] + b"\n"


# ---- Reports: what the front tells the supervisor


class Ready(NamedTuple):
    """``ready PID``: this worker takes jobs now."""

    pid: int


class Kill(NamedTuple):
    """``kill PID TEXT``: end this worker and replace it; the text says why, for the log."""

    pid: int
    reason: str


class Recycle(NamedTuple):
    """``recycle PID KIND TEXT``: start a successor, and let this worker go when the successor is ready.

    The front asks once for each worker. ``kind`` is one of ``RECYCLE_KINDS``; the text says why, for the log.
    """

    pid: int
    kind: str
    reason: str


class Released(NamedTuple):
    """``released``: every request has been answered after ``drain``, and the front lets the workers go."""


Report = Union[Ready, Kill, Recycle, Released]
REPORTS: tuple[type[Report], ...] = (Ready, Kill, Recycle, Released)
keep_apart((*ORDERS, *REPORTS))

# A worker has served as many requests as it may; a signal to it alone told it to end; it is larger than it may be.
SERVED, LEAVING, LARGE = "served", "leaving", "large"
RECYCLE_KINDS = (SERVED, LEAVING, LARGE)


def read(line: str) -> Report | None:
    """The report in a line without its newline; None if it is none."""
    verb, _, rest = line.partition(" ")
    if verb == "released":
        return Released()
    number, _, text = rest.partition(" ")
    if not (number.isascii() and number.isdigit()):
        return None
    if verb == "ready":
        return Ready(int(number))
    if verb == "kill":
        return Kill(int(number), text)
    kind, _, reason = text.partition(" ")
    if verb == "recycle" and kind in RECYCLE_KINDS:
        return Recycle(int(number), kind, reason)
    return None


class Lines:
    """Cuts what arrives on a stream into lines."""

    def __init__(self) -> None:
        # What does not end in a newline yet.
        self._rest = b""

    def add(self, received: bytes) -> list[str]:
        """The lines that are complete now, without their newlines."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]
