"""Sends made-up bytes to the server's port and looks whether it keeps its manners, whatever they
are.

For each case: an answer or the end of the connection within ten seconds; only well-formed
responses, errors as JSON with a message; no status that blames the server; nothing after the last
response; and whoever comes next is served. Owns the sockets and the judgement; ``http_grammar.py``
makes the cases. Runs in threads of the test process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

from harness import Response, Server
from strict_http import Cut, Malformed, Reader, explanation

from .http_grammar import ABORT, HALF_CLOSE, WAIT, Case, draw
from .subjects import smaller_bytes

SCRIPT = "echo.py"
OPTIONS = ("--client_timeout", "0.5", "--keep_alive", "1", "--max_request_size", "100000")
# Number of cases that run at the same time. Most of them wait.
PARALLEL = 24
# A connection that sends nothing and does not end for this many seconds counts as hanging.
HANG = 10.0
# The allowed statuses. 501 is among them: it answers an unknown transfer coding, which is the
# client's fault.
STATUSES = {100, 200, 400, 404, 405, 408, 413, 414, 417, 431, 501}
# Two more statuses for a client that closes its sending side while its request waits. With HTTP/1.1
# it gets a probe. With HTTP/1.0 it counts as gone, and gets an error in case it still reads.
ASKED = 102
LEFT = "The client closed the connection while the request was waiting."
# Limit for the requests that minimise one failing case.
MOST_ATTEMPTS = 60


class Failure(Exception):
    """The server has broken a rule. The text names it."""


class MixedUp(Failure):
    """Requests on one connection have affected each other's answers."""


class _Bytes:
    """Bytes that were received before, behind the interface of a socket."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def recv(self, size: int) -> bytes:
        taken, self.data = self.data[:size], self.data[size:]
        return taken


def responses(data: bytes, methods: tuple[str, ...]) -> list[Response]:
    """The responses in ``data``, if it holds nothing else. ``methods`` are those of their
    requests."""
    source = _Bytes(data)
    reader = Reader(source)  # type: ignore[arg-type]
    found = []
    expected = itertools.chain(methods, itertools.repeat("POST"))
    method = next(expected)
    while not reader.is_at_end():
        found.append(reader.response(method))
        if found[-1].status >= 200:
            method = next(expected)
    return found


def understand(data: bytes, may_have_head: bool) -> list[Response]:
    """The responses in ``data``. If a broken request may be a HEAD request, each response may be
    without a body."""
    first_error: Exception | None = None
    tries = itertools.product(("POST", "HEAD"), repeat=4) if may_have_head else [("POST",)]
    for methods in tries:
        try:
            return responses(data, methods)
        except (Malformed, Cut) as error:
            first_error = first_error or error
    raise Failure(f"not HTTP: {first_error}") from first_error


def exchange(port: int, case: Case) -> bytes:
    """Send the case; everything that came back until the end of the connection."""
    received = b""
    deadline = time.monotonic() + HANG
    with socket.create_connection(("127.0.0.1", port), timeout=HANG) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # OSError: the server has refused the request and closed the connection. Its answer can
        # still be read.
        with contextlib.suppress(OSError):
            for piece in case.pieces:
                client.sendall(piece)
            if case.ending == ABORT:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            if case.ending == HALF_CLOSE:
                client.shutdown(socket.SHUT_WR)
        try:
            while data := client.recv(65536):
                received += data
                client.settimeout(max(0.1, deadline - time.monotonic()))
            if case.ending == WAIT and case.data and not received:
                raise Failure("the connection ended without a word to a client that waited")
        except socket.timeout:
            raise Failure(f"neither an answer nor an end within {HANG} s, after {received[-200:]!r}") from None
        except ConnectionResetError:
            # A client that sends more than the server reads may lose a part of the answer, but not
            # all of it.
            if case.expected is not None or not received:
                raise Failure(f"the connection was reset after {received!r}") from None
            return b""
    return received


def judge(case: Case, received: bytes) -> list[Response]:
    """The responses, if each of them is one that this case may get. Raises ``Failure``."""
    if case.methods:
        return _judge_pipelined(case, received)
    answers = understand(received, b"HEAD" in case.data.upper())
    for number, answer in enumerate(answers):
        may_be_asked = case.ending == HALF_CLOSE and (answer.status == ASKED or LEFT in answer.text)
        if answer.status not in STATUSES and not may_be_asked:
            raise Failure(f"status {answer.status}: {answer}")
        if answer.status >= 400 and answer.body:
            explanation(answer)
        if "close" in answer.values("connection") and number + 1 < len(answers):
            raise MixedUp(f"a response after the last one: {answers}")
    if case.expected is not None:
        found = tuple((answer.status, answer.body) for answer in answers)
        if found != case.expected:
            raise Failure(f"expected {_shown(case.expected)} and got {_shown(found)}")
    return answers


def _judge_pipelined(case: Case, received: bytes) -> list[Response]:
    try:
        answers = responses(received, case.methods)
    except (Malformed, Cut) as error:
        raise MixedUp(f"not HTTP: {error}") from error
    found = tuple((answer.status, answer.body) for answer in answers)
    expected = case.expected or ()
    if len(found) != len(expected) or not all(map(_fits, answers, expected)):
        raise MixedUp(f"expected {_shown(expected)} and got {_shown(found)}")
    closing = [_ends_connection(answer) for answer in answers]
    if any(closing[:-1]) or closing[-1] != case.closes:
        raise MixedUp(f"Connection: close is in the responses {closing}")
    return answers


def _ends_connection(answer: Response) -> bool:
    if answer.version == "HTTP/1.0":
        return "keep-alive" not in answer.values("connection")
    return "close" in answer.values("connection")


def _fits(answer: Response, expected: tuple[int, bytes | None]) -> bool:
    status, body = expected
    return answer.status == status and (bool(explanation(answer)) if body is None else answer.body == body)


def _shown(answers: tuple[tuple[int, bytes | None], ...]) -> str:
    return ", ".join(f"{status} {body if body is None else body[:50]!r}" for status, body in answers)


def check(port: int, case: Case) -> list[Response]:
    """Try one case, and a good request after it. Raises ``Failure``."""
    try:
        answers = judge(case, exchange(port, case))
        after = exchange(port, GOOD)
        if [(answer.status, answer.body) for answer in judge(GOOD, after)] != [(200, b'"good"')]:
            raise Failure(f"a good request after it got {after!r}")
    except (Malformed, OSError) as error:
        raise Failure(repr(error)) from error
    return answers


GOOD = Case(
    (b"POST /score HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood",),
    WAIT,
    ((200, b'"good"'),),
)


@dataclasses.dataclass
class Report:
    """The figures of one run."""

    seed: int
    name: str = "HTTP surface"
    cases: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    failures: list[str] = dataclasses.field(default_factory=list)
    # Failures of the type ``MixedUp``.
    mixed_up: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        rate = self.cases / max(self.seconds, 1e-9)
        failures = [*self.failures, *self.mixed_up]
        head = f"{self.name}: {self.cases} cases ({statuses}), {rate:.0f}/s, {len(failures)} failures"
        return "\n".join([head, *failures[:10]])


def run(
    server: Server,
    seed: int,
    cases: int | None = None,
    seconds: float | None = None,
    draw: Callable[[Random], Case] = draw,
    name: str = "HTTP surface",
) -> Report:
    """Try ``cases`` cases, or as many as fit into ``seconds``. The same seed gives the same
    cases."""
    report = Report(seed, name)
    front, workers = server.front(), server.workers()
    began = time.monotonic()
    with ThreadPoolExecutor(PARALLEL) as pool:
        for number in itertools.count():
            if report.cases >= (cases or float("inf")) or report.seconds >= (seconds or float("inf")):
                break
            # Each case has its own seed, so that a single case can be repeated.
            seeds = range(number * 10 * PARALLEL, (number + 1) * 10 * PARALLEL)
            drawn = [draw(Random(f"{seed}/{one}")) for one in seeds]
            for case, outcome in zip(drawn, pool.map(lambda case: _outcome(server.port, case), drawn)):
                _count(report, server.port, case, outcome)
            report.seconds = time.monotonic() - began
            if (server.front(), server.workers()) != (front, workers):
                report.failures.append(f"a process died within the cases {seeds} of seed {seed}")
                break
    report.failures += [f"the log says: {record.message}" for record in server.records(level="E")]
    return report


def _outcome(port: int, case: Case) -> list[Response] | Failure:
    try:
        return check(port, case)
    except Failure as failure:
        return failure


def _count(report: Report, port: int, case: Case, outcome: list[Response] | Failure) -> None:
    report.cases += 1
    if isinstance(outcome, Failure):
        found = report.mixed_up if isinstance(outcome, MixedUp) else report.failures
        small = minimise(port, case, outcome) if len(found) < 2 else case
        found.append(f"  {outcome}\n  for {small}")
    else:
        report.statuses.update(answer.status for answer in outcome)


def minimise(port: int, case: Case, failure: Failure) -> Case:
    """The smallest case in one piece that fails in the same way; the case itself if none does."""

    def fails_alike(other: Case) -> bool:
        outcome = _outcome(port, other)
        return isinstance(outcome, Failure) and str(outcome)[:20] == str(failure)[:20]

    attempts = itertools.count()
    small = dataclasses.replace(case, pieces=(case.data,), expected=None, methods=())
    if not fails_alike(small):
        return case
    progress = True
    while progress:
        progress = False
        for less in _smaller(small):
            if next(attempts) > MOST_ATTEMPTS:
                return small
            if fails_alike(less):
                small, progress = less, True
                break
    return small


def _smaller(case: Case) -> Iterator[Case]:
    for data in smaller_bytes(case.data):
        yield dataclasses.replace(case, pieces=(data,))
