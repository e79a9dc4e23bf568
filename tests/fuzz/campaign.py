"""Sends cases over several kept-alive connections, compares, and makes what differs as small as it
can.

Owns the loop and its figures. Knows neither what is sent nor what is right (``subjects.py``). Runs
in the test process.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from harness import Connection

from .subjects import Case, Subject

CONNECTIONS = 12
# Differences of one subject that are minimised and reported. Further ones are only counted.
MOST_EXAMPLES = 12
# Limit for the requests that minimise one difference.
MOST_ATTEMPTS = 3000

Reply = tuple[int, bytes]


class Client:
    """Keeps as many requests in flight as it has connections."""

    def __init__(self, port: int, connections: int = CONNECTIONS) -> None:
        self._port = port
        self._connections = [Connection(port) for _ in range(connections)]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def ask(self, requests: Sequence[bytes]) -> list[Reply | str]:
        """Send the requests. Returns the replies in order, with a description in place of a missing
        reply."""
        replies: list[Reply | str] = []
        for start in range(0, len(requests), len(self._connections)):
            batch = requests[start : start + len(self._connections)]
            for connection, request in zip(self._connections, batch):
                connection.send(request)
            replies += [self._read(index) for index in range(len(batch))]
        return replies

    def _read(self, index: int) -> Reply | str:
        try:
            response = self._connections[index].read()
        except OSError as error:
            self._reopen(index)
            return f"no reply: {error!r}"
        if response["connection"] == "close":
            self._reopen(index)
        marks = response["content-type"], response["x-ms-run-function-failed"]
        if marks != ("application/json", "False"):
            return f"{response.status} {response.body[:200]!r} with content type and failure flag {marks}"
        return response.status, response.body

    def _reopen(self, index: int) -> None:
        self._connections[index].close()
        self._connections[index] = Connection(self._port)


@dataclasses.dataclass
class Difference:
    """An input that got another reply than it should have."""

    seed: int
    input: Any
    case: Case
    reply: Reply | str

    def __str__(self) -> str:
        accepted = "\n            or ".join(f"{status} {shown(body)}" for status, body in sorted(self.case.accepted))
        got = self.reply if isinstance(self.reply, str) else f"{self.reply[0]} {shown(self.reply[1])}"
        return f"seed {self.seed}: {shown(self.input)}\n      expected {accepted}\n           got {got}"


def shown(value: object) -> str:
    """A value in at most a few hundred characters."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that contains itself"
    return text if len(text) <= 300 else f"{text[:200]} … {text[-80:]}"


@dataclasses.dataclass
class Report:
    """The figures of one run over one subject."""

    subject: Subject
    cases: int = 0
    bytes: int = 0
    seconds: float = 0.0
    differing: int = 0
    examples: list[Difference] = dataclasses.field(default_factory=list)
    # How many cases expected each status.
    statuses: dict[int, int] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        rate = self.cases / max(self.seconds, 1e-9)
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        head = f"{self.subject.name}: {self.cases} cases ({statuses}), {rate:.0f}/s, {self.differing} differences"
        return "\n".join([head, *(f"  {example}" for example in self.examples)])


def run(subject: Subject, client: Client, seed: int, cases: int | None = None, seconds: float | None = None) -> Report:
    """Try ``cases`` cases, or as many as fit into ``seconds``. The same seed gives the same
    cases."""
    report = Report(subject)
    started = time.monotonic()
    while report.cases < (cases or float("inf")) and report.seconds < (seconds or float("inf")):
        # Each case has its own seed, so that a single case can be repeated.
        seeds = [seed * 1_000_000_000 + report.cases + index for index in range(4 * CONNECTIONS)]
        inputs = [subject.draw(Random(one), True) for one in seeds]
        drawn = [subject.case(one) for one in inputs]
        replies = client.ask([case.request for case in drawn])
        for found in map(Difference, seeds, inputs, drawn, replies):
            _count(report, found, client)
        report.seconds = time.monotonic() - started
    return report


def _count(report: Report, found: Difference, client: Client) -> None:
    report.cases += 1
    report.bytes += len(found.case.request)
    for status, _ in found.case.accepted:
        report.statuses[status] = report.statuses.get(status, 0) + 1
    if found.reply in found.case.accepted:
        return
    report.differing += 1
    if len(report.examples) < MOST_EXAMPLES:
        small = minimise(report.subject, found, client)
        if all(small.case.request != known.case.request for known in report.examples):
            report.examples.append(small)


def minimise(subject: Subject, found: Difference, client: Client) -> Difference:
    """The simplest input that still gets a wrong reply of the same kind."""
    attempts = MOST_ATTEMPTS
    while attempts > 0:
        for simpler in subject.smaller(found.input):
            attempts -= 1
            case = subject.case(simpler)
            (reply,) = client.ask([case.request])
            if reply not in case.accepted and isinstance(reply, str) == isinstance(found.reply, str):
                found = Difference(found.seed, simpler, case, reply)
                break
            if attempts <= 0:
                return found
        else:
            return found
    return found
