"""One sample: what is sent, how often, and what the answers show.

Owns which answers are compared with which. Sending is the caller's (``session.py``), the rules are in ``detection.py``.
Runs in the command.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

from . import comparing, detection, findings
from .comparing import Answer, Tolerance
from .detection import Event, Stack
from .findings import BY_NAME, Finding, Place
from .samples import Sample
from .session import Answered, Ended, Outcome


class Wanted(NamedTuple):
    """What the user asked for. ``tolerance``: for expected answers; ``same``: for two answers to equal requests;
    ``ignored``: parts of answers that may differ; ``limit``: seconds for a request."""

    tolerance: Tolerance
    same: Tolerance
    ignored: tuple[tuple[object, ...], ...]
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
    seconds = call["seconds"] if call else outcome.seconds
    return found + detection.of_budget(sample, seconds, wanted.budget_ms, run)


def _of_expected(sample: Sample, answer: Answer, wanted: Wanted) -> list[Finding]:
    if sample.expected is None:
        return []
    try:
        differences = comparing.with_expected(sample.expected, answer, wanted.tolerance, wanted.ignored)
    except comparing.PathError as error:
        place = Place(sample.expected.file, None)
        return [Finding(BY_NAME["sample-unusable"], str(error), findings.SAMPLE, place, sample.name)]
    return detection.of_expected(sample, differences)


def _ignored_by(sample: Sample) -> list[tuple[object, ...]]:
    """The parts that the expected answer leaves out; none if it is written wrongly, which is a finding by itself."""
    if sample.expected is None:
        return []
    try:
        return list(map(comparing.parse_path, sample.expected.ignore))
    except comparing.PathError:
        return []


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
    differences = comparing.between(first, outcome.answer, wanted.same, (*wanted.ignored, *_ignored_by(sample)))
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
    return f"status {outcome.answer.status}, {seconds * 1000:.1f} ms, {len(outcome.answer.body)} bytes"
