"""The judge of the chaos runs is judged: what must be a violation is one, and what has an excuse is
none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from metrics_text import Scrape

from . import orders, telemetry
from .evidence import Evidence
from .invariants import violations
from .journal import Journal, Start
from .monkey import FOR_EVER, Harm
from .subjects import Calls
from .traffic import Note

BEGAN = Start(pid=7, time=1.0)
KILLED = Harm("text", 7, 1.1, FOR_EVER)
STOPPED = Harm("text", 7, 0.5, 2.5)
OTHER = Harm("text", 8, 1.1, FOR_EVER)
EARLIER = Harm("text", 7, -5.0, -4.0)


def note(outcome: str, kind: str = "small", sent: float | None = 0.5, ended: float = 2.0) -> Note:
    return Note("a", kind, "text", opened=0.0, sent=sent, ended=ended, outcome=outcome, text="")


def found(one: Note, *starts: Start, **more: Any) -> list[str]:
    """The violations of a request with these starts. Every call ends after a second, except those in
    ``failed``. ``others`` are the starts of other requests."""
    failed, others = more.pop("failed", ()), more.pop("others", {})
    notes = [one, *(dataclasses.replace(note(orders.ANSWERED), id=id) for id in others if id != "x")]
    notes += [dataclasses.replace(note(orders.ANSWERED, kind="hang"), id=id) for id in others if id == "x"]
    begun = {id: list(began) for id, began in {"a": starts, **others}.items() if began}
    ends = {start.call: start.time + 1 for began in begun.values() for start in began if start.call not in failed}
    evidence = Evidence(notes, Journal(begun, ends), **{"harms": [], "front_deaths": [], **more})
    return [violation.promise for violation in violations(evidence)]


@pytest.mark.parametrize("outcome", [orders.ANSWERED, orders.FAILED, orders.CUT, orders.LEFT])
def test_nothing_runs_twice(outcome: str) -> None:
    harmed = {"harms": [KILLED], "front_deaths": [KILLED]}
    assert found(note(outcome), BEGAN, Start(8, 1.5), **harmed) == ["no request runs twice"]


def test_what_nobody_sent_does_not_run() -> None:
    evidence = Evidence([], Journal({"b": [BEGAN]}, {}), [], [])
    assert [violation.promise for violation in violations(evidence)] == ["only what was sent is run"]


@pytest.mark.parametrize("outcome", [orders.WRONG, orders.SILENT])
def test_some_outcomes_have_no_excuse(outcome: str) -> None:
    assert found(note(outcome), BEGAN, harms=[KILLED], front_deaths=[KILLED])


def test_answers_come_from_run_and_refusals_do_not() -> None:
    assert not found(note(orders.ANSWERED), BEGAN)
    assert found(note(orders.ANSWERED))
    assert not found(note(orders.REFUSED))
    assert found(note(orders.REFUSED), BEGAN)


@pytest.mark.parametrize(("harm", "is_excuse"), [(KILLED, True), (STOPPED, True), (OTHER, False), (EARLIER, False)])
def test_only_the_own_worker_is_an_excuse_to_fail(harm: Harm, is_excuse: bool) -> None:
    assert bool(found(note(orders.FAILED), BEGAN, harms=[harm])) is not is_excuse


def test_what_had_not_begun_may_fail_with_any_worker() -> None:
    assert not found(note(orders.FAILED), harms=[OTHER])
    assert found(note(orders.FAILED), harms=[EARLIER])
    assert found(note(orders.FAILED))


def test_connections_are_cut_with_their_front_only() -> None:
    assert not found(note(orders.CUT), front_deaths=[Harm("text", 1, 1.5, 1.6)])
    assert found(note(orders.CUT), front_deaths=[Harm("text", 1, 2.5, 2.6)])
    assert found(note(orders.CUT), harms=[KILLED])
    assert not found(note(orders.CUT, kind="streamed"), BEGAN, harms=[KILLED])


def test_who_left_is_not_served() -> None:
    assert not found(note(orders.LEFT, ended=0.5), BEGAN)
    assert found(note(orders.LEFT, ended=-0.5), BEGAN)
    assert found(note(orders.LEFT, sent=None), BEGAN)
    # The worker may have claimed the request just before it was stopped.
    late = Start(7, 2.4)
    assert not found(note(orders.LEFT, ended=0.6), late, harms=[STOPPED])
    assert found(note(orders.LEFT, ended=0.6), Start(8, 2.4), harms=[STOPPED])
    assert found(note(orders.LEFT, sent=0.2, ended=0.4), late, harms=[STOPPED])
    assert found(note(orders.LEFT, ended=0.6), Start(7, 2.6), harms=[STOPPED])


def test_who_left_while_there_was_no_front_may_be_served_late() -> None:
    late = Start(7, 2.4)
    for began, is_excuse in ((-4.0, False), (-2.0, True), (0.1, True), (0.7, False)):
        deaths = [Harm("text", 1, began, began)]
        assert (not found(note(orders.LEFT, ended=0.6), late, front_deaths=deaths)) == is_excuse


def test_an_answer_comes_from_a_call_that_has_ended() -> None:
    assert found(note(orders.ANSWERED), BEGAN, failed=[BEGAN.call])
    # A script error is the answer to who asks for it.
    assert not found(note(orders.ANSWERED, kind="script error"), BEGAN, failed=[BEGAN.call])


def test_an_async_call_is_cancelled_when_its_client_leaves() -> None:
    one = note(orders.LEFT, ended=0.9)
    assert found(one, BEGAN, calls=Calls.AT_ONCE)
    assert not found(one, BEGAN)
    assert not found(one, BEGAN, calls=Calls.AT_ONCE, failed=[BEGAN.call])
    assert not found(one, BEGAN, calls=Calls.AT_ONCE, harms=[STOPPED])


@pytest.mark.parametrize("calls", [calls for calls in Calls if calls is not Calls.ONE_BY_ONE])
def test_who_shares_a_worker_may_be_lost_with_it(calls: Calls) -> None:
    deadly = dataclasses.replace(note(orders.ANSWERED, kind="exit"), id="b")
    for pid, is_excuse in ((7, True), (8, False)):
        starts = {"a": [BEGAN], "b": [Start(pid, 1.0)]}
        evidence = Evidence([note(orders.FAILED), deadly], Journal(starts, {}), [], [], calls)
        assert (list(violations(evidence)) == []) == is_excuse
        evidence = Evidence([note(orders.FAILED), deadly], Journal(starts, {}), [], [])
        assert len(list(violations(evidence))) == 1


def test_who_shares_a_call_with_a_hanging_one_is_lost_with_the_thread_only() -> None:
    hanging = dataclasses.replace(note(orders.ANSWERED, kind="hang"), id="b")
    journal = Journal({"a": [BEGAN], "b": [BEGAN]}, {})
    for deadly, promises in ((orders.DEADLY, 1), (orders.DEADLY_FOR_THREADS, 0)):
        evidence = Evidence([note(orders.FAILED), hanging], journal, [], [], Calls.JOINED, deadly)
        assert len(list(violations(evidence))) == promises


JOINT, ALONE, LATER = Start(7, 1.0, 1), Start(7, 1.1, 2), Start(7, 6.0, 2)


@pytest.mark.parametrize("calls", [Calls.JOINED, Calls.BATCHED])
def test_a_request_runs_again_alone_after_a_call_that_failed(calls: Calls) -> None:
    answered = note(orders.ANSWERED)
    failed = {"calls": calls, "failed": [JOINT.call]}
    assert not found(answered, JOINT, ALONE, others={"x": [JOINT]}, **failed)
    # Nobody has made it fail: it has exceeded the time limit, or there is no reason.
    assert not found(answered, JOINT, LATER, others={"b": [JOINT, Start(7, 7.0, 3)]}, **failed)
    assert found(answered, JOINT, ALONE, others={"b": [JOINT, LATER]}, **failed)
    # A third time, again with others, in another worker, and twice alone.
    for starts in ((JOINT, ALONE, LATER), (JOINT, Start(8, 1.1, 2))):
        assert found(answered, *starts, others={"x": [JOINT]}, **failed)
    assert found(answered, JOINT, ALONE, others={"x": [JOINT, ALONE]}, **failed)
    assert found(answered, JOINT, ALONE, **failed)


def test_only_joined_calls_are_compared() -> None:
    assert not found(note(orders.ANSWERED), JOINT, ALONE, others={"b": [JOINT]}, calls=Calls.JOINED)
    assert found(note(orders.ANSWERED), JOINT, ALONE, others={"b": [JOINT]}, calls=Calls.BATCHED)


@pytest.mark.parametrize(
    ("joint", "again", "is_kept"), [(12, 12, True), (13, 13, False), (100, 14, True), (99, 14, False)]
)
def test_few_answers_are_compared(joint: int, again: int, is_kept: bool) -> None:
    starts, notes = {}, []
    for number in range(joint):
        pair = [Start(7, float(number), number)]
        alone = [Start(7, number + 0.5, number + 1000)] if number < again else []
        starts.update({f"a{number}": pair + alone, f"b{number}": pair})
        notes += [dataclasses.replace(note(orders.ANSWERED), id=f"{letter}{number}") for letter in "ab"]
    ends = {start.call: start.time + 0.1 for began in starts.values() for start in began}
    assert (list(violations(Evidence(notes, Journal(starts, ends), [], [], Calls.JOINED))) == []) == is_kept


@pytest.mark.parametrize(
    ("sent", "lost", "accepted", "is_kept"),
    [(40, 0, 40, True), (30, 10, 35, True), (30, 4, 35, False), (41, 0, 40, False), (2, 3, 2, False)],
)
@pytest.mark.parametrize("exporter", [telemetry.TRACES, telemetry.APP_INSIGHTS])
def test_items_that_vanish_are_a_violation(exporter: str, sent: int, lost: int, accepted: int, is_kept: bool) -> None:
    name = "azmlinfsrv_telemetry_items"
    count = "http_server_request_duration_seconds_count"
    page = Scrape(
        f'{name}_sent_total{{exporter="{exporter}"}} {sent}\n{name}_dropped_total{{exporter="{exporter}"}} {lost}\n'
        f'{count}{{http_route="/score",http_response_status_code="200"}} 10\n'
    )
    assert (telemetry.judge("text", page, {exporter: accepted}) == []) == is_kept


def test_other_items_of_application_insights_may_be_accepted_twice() -> None:
    name = "azmlinfsrv_telemetry_items"
    page = Scrape(f'{name}_sent_total{{exporter="app_insights"}} 15\n')
    for others, is_kept in [(4, False), (5, True), (9, True)]:
        found = telemetry.judge("text", page, {telemetry.APP_INSIGHTS: 10}, others)
        assert (found == []) == is_kept, others
