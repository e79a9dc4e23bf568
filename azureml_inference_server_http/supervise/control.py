"""The messages between the supervisor and the front: their types, and their form as lines of text.

Each message is one line. The supervisor sends orders (``write``), the front sends reports
(``read``). The Rust file of the same name is the front's side, and has the same verbs. The tests of
both sides use ``tests/control_lines.txt``, which has an example of each message. Used in the
supervisor process, and in the server with worker threads.

With worker threads, the number of a worker stands for its pid.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Union

_logger = logging.getLogger("azmlinfsrv")

# Limit for a line, in bytes, with its newline. A longer text is cut.
MAX_LINE = 4096


def keep_apart(kinds: Iterable[type[Any]]) -> None:
    """Make messages of different types unequal. As plain tuples, ``Drain()`` would equal
    ``Stop()``."""

    def equal(self: Any, other: Any) -> bool:
        return type(self) is type(other) and tuple(self) == tuple(other)

    def differ(self: Any, other: Any) -> bool:
        return not equal(self, other)

    for kind in kinds:
        for name, method in (("__eq__", equal), ("__ne__", differ), ("__hash__", tuple.__hash__)):
            setattr(kind, name, method)


# ---- Orders: from the supervisor to the front


class Exited(NamedTuple):
    """``exited PID TEXT``: the worker has ended. The text says how, for the client whose request it
    was running."""

    pid: int
    how: str


class Stopped(NamedTuple):
    """``stopped PID``: a signal, for example SIGSTOP, has stopped the worker's process until it
    gets SIGCONT."""

    pid: int


class Continued(NamedTuple):
    """``continued PID``: SIGCONT has continued the worker's process."""

    pid: int


class Retire(NamedTuple):
    """``retire PID``: send this worker no more jobs, and tell it to exit when it has answered those
    that it has."""

    pid: int


class Outdated(NamedTuple):
    """``outdated TEXT``: the files of the script have changed, and could not be loaded. The text
    says why, for the header of replies."""

    reason: str


class Current(NamedTuple):
    """``current``: the workers have loaded the files as they are now."""


class Drain(NamedTuple):
    """``drain``: answer the requests that are queued or running, refuse new ones, then exit."""


class Stop(NamedTuple):
    """``stop``: answer all requests with 503 now, then exit."""


Order = Union[Exited, Stopped, Continued, Retire, Outdated, Current, Drain, Stop]
ORDERS: tuple[type[Order], ...] = (Exited, Stopped, Continued, Retire, Outdated, Current, Drain, Stop)


def write(order: Order) -> bytes:
    """An order as a line, with its newline."""
    verb = type(order).__name__.lower()
    text = " ".join([verb, *map(str, order)]).replace("\n", " ")
    return text.encode("utf-8", "replace")[: MAX_LINE - 1] + b"\n"


# ---- Reports: from the front to the supervisor


class Ready(NamedTuple):
    """``ready PID``: this worker takes jobs now."""

    pid: int


class Disconnected(NamedTuple):
    """``disconnected PID``: the front has ended its connection to this worker, which connects again."""

    pid: int


class Kill(NamedTuple):
    """``kill PID TEXT``: kill this worker and replace it. The text says why, for the log."""

    pid: int
    reason: str


class Recycle(NamedTuple):
    """``recycle PID KIND TEXT``: start a successor, and retire this worker when the successor is
    ready.

    The front asks once for each worker. ``kind`` is one of ``RECYCLE_KINDS``. The text says why,
    for the log.
    """

    pid: int
    kind: str
    reason: str


class Released(NamedTuple):
    """``released``: after ``drain`` every request has been answered, and the front has told the
    workers to exit."""


Report = Union[Ready, Disconnected, Kill, Recycle, Released]
REPORTS: tuple[type[Report], ...] = (Ready, Disconnected, Kill, Recycle, Released)
keep_apart((*ORDERS, *REPORTS))

# Reasons to replace a worker: it has served --max_requests requests; a TERM to the worker alone has
# told it to exit; it uses more memory than --max_worker_rss.
SERVED, LEAVING, LARGE = "served", "leaving", "large"
RECYCLE_KINDS = (SERVED, LEAVING, LARGE)


def read(line: str) -> Report | None:
    """Read a report from a line without its newline. Returns None for any other line."""
    verb, _, rest = line.partition(" ")
    if verb == "released":
        return Released()
    number, _, text = rest.partition(" ")
    if not (number.isascii() and number.isdigit()):
        return None
    if verb == "ready":
        return Ready(int(number))
    if verb == "disconnected":
        return Disconnected(int(number))
    if verb == "kill":
        return Kill(int(number), text)
    kind, _, reason = text.partition(" ")
    if verb == "recycle" and kind in RECYCLE_KINDS:
        return Recycle(int(number), kind, reason)
    return None


class Lines:
    """Splits received bytes into lines."""

    def __init__(self) -> None:
        # The beginning of a line whose newline has not arrived yet.
        self._rest = b""

    def add(self, received: bytes) -> list[str]:
        """Add received bytes. Returns the lines that are complete now, without their newlines."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def read_all(lines: Lines, received: bytes) -> Iterator[Report]:
    """The reports that are complete with these bytes. Logs any other line."""
    for line in lines.add(received):
        report = read(line)
        if report is None:
            _logger.error("The front sent a line that the supervisor does not understand: %r", line)
        else:
            yield report
