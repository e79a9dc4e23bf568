"""One sample: what is sent, how often, and what the answers show.

Owns which answers are compared with which. Sending is the caller's (``session.py``), the rules are in ``detection.py``.
Runs in the command.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

from . import comparing, detection, findings
from .comparing import Answer, Tolerance
from .detection import Event, Stack
from .findings import Finding, Place
from .json_paths import Pattern
from .samples import Sample
from .session import Answered, Ended, Outcome


class Wanted(NamedTuple):
    """What the user asked for. ``tolerance``: for expected answers; ``same``: for two answers to equal requests;
    ``ignored``: parts of answers that may differ; ``limit``: seconds for a request."""

    tolerance: Tolerance
    same: Tolerance
    ignored: tuple[Pattern, ...]
    twice: bool
    budget_ms: float | None
    limit: float


class Checked(NamedTuple):
    """What came of a sample. ``seconds``: in run(); ``peak``: bytes of memory."""

    findings: list[Finding]
    detail: str
    seconds: float
    peak: int
    is_server_lost: bool


def check(
    sample: Sample,
    send: Callable[[Sample], Outcome],
    wanted: Wanted,
    run: Place | None,
    stack: Callable[[], Stack | None],
) -> Checked:
    """Send a sample, twice if that is wanted and the first answer is no error reply. ``stack`` finds the last
    stack in the log."""
    outcomes = [send(sample)]
    found = _of_first(sample, outcomes[0], wanted, run, stack)
    first = outcomes[0]
    if wanted.twice and isinstance(first, Answered) and first.answer.status < 400:
        outcomes.append(send(sample))
        found += _of_second(sample, first.answer, outcomes[1], wanted, run, stack)
    calls = [event for outcome in outcomes for event in outcome.events]
    return Checked(
        found,
        _told(outcomes[0]),
        sum(event.get("seconds", 0.0) for event in calls),
        max((event.get("peak", 0) for event in calls), default=0),
        not isinstance(outcomes[-1], Answered),
    )


def _of_first(
    sample: Sample, outcome: Outcome, wanted: Wanted, run: Place | None, stack: Callable[[], Stack | None]
) -> list[Finding]:
    if not isinstance(outcome, Answered):
        return [_of_loss(sample, outcome, wanted, stack)]
    call = _call_in(outcome)
    found = detection.of_call(sample, outcome.answer, call, run)
    if outcome.answer.status < 400 or not found:
        found += _of_expected(sample, outcome.answer, wanted)
    found += detection.of_lost_logging(outcome.events, findings.SAMPLE, sample.name)
    seconds = call["seconds"] if call else outcome.seconds
    return found + detection.of_budget(sample, seconds, wanted.budget_ms, run)


def _of_expected(sample: Sample, answer: Answer, wanted: Wanted) -> list[Finding]:
    if sample.expected is None:
        return []
    differences = comparing.with_expected(sample.expected, answer, wanted.tolerance, wanted.ignored)
    return detection.of_expected(sample, differences)


def _of_second(
    sample: Sample,
    first: Answer,
    outcome: Outcome,
    wanted: Wanted,
    run: Place | None,
    stack: Callable[[], Stack | None],
) -> list[Finding]:
    if not isinstance(outcome, Answered):
        return [_of_loss(sample, outcome, wanted, stack)]
    ignored = (*wanted.ignored, *(sample.expected.ignore if sample.expected else ()))
    differences = comparing.between(first, outcome.answer, wanted.same, ignored)
    return detection.of_second_call(sample, first, outcome.answer, _call_in(outcome), differences, run)


def _of_loss(sample: Sample, outcome: Outcome, wanted: Wanted, stack: Callable[[], Stack | None]) -> Finding:
    """The process ended or hangs."""
    if isinstance(outcome, Ended):
        exiting = next((event for event in outcome.events if event["event"] == "exiting"), None)
        return detection.of_end(findings.SAMPLE, outcome.how, exiting, stack(), sample.name)
    return detection.of_hang(findings.SAMPLE, wanted.limit, stack(), sample.name)


def _call_in(outcome: Answered) -> Event | None:
    return next((event for event in outcome.events if event["event"] == "called"), None)


def _told(outcome: Outcome) -> str:
    """How the answer came, in a few words."""
    if not isinstance(outcome, Answered):
        return ""
    call = _call_in(outcome)
    seconds = call["seconds"] if call else outcome.seconds
    size = comparing.counted(len(outcome.answer.body), "byte")
    return f"status {outcome.answer.status}, {seconds * 1000:.1f} ms, {size}"
