"""The judge of the chaos runs is judged: what must be a violation is one, and what has an excuse is
none."""

from __future__ import annotations

from typing import Any

import pytest
from metrics_text import Scrape

from . import orders, telemetry
from .invariants import Evidence, violations
from .journal import Start
from .monkey import FOR_EVER, Harm
from .traffic import Note

BEGAN = Start(pid=7, time=1.0)
KILLED = Harm("text", 7, 1.1, FOR_EVER)
STOPPED = Harm("text", 7, 0.5, 2.5)
OTHER = Harm("text", 8, 1.1, FOR_EVER)
EARLIER = Harm("text", 7, -5.0, -4.0)


def note(outcome: str, kind: str = "small", sent: float | None = 0.5, ended: float = 2.0) -> Note:
    return Note("a", kind, "text", opened=0.0, sent=sent, ended=ended, outcome=outcome, text="")


def found(one: Note, *starts: Start, **more: Any) -> list[str]:
    evidence = Evidence([one], {"a": list(starts)} if starts else {}, **{"harms": [], "front_deaths": [], **more})
    return [violation.promise for violation in violations(evidence)]


@pytest.mark.parametrize("outcome", [orders.ANSWERED, orders.FAILED, orders.CUT, orders.LEFT])
def test_nothing_runs_twice(outcome: str) -> None:
    harmed = {"harms": [KILLED], "front_deaths": [KILLED]}
    assert found(note(outcome), BEGAN, Start(8, 1.5), **harmed) == ["no request runs twice"]


def test_what_nobody_sent_does_not_run() -> None:
    evidence = Evidence([], {"b": [BEGAN]}, [], [])
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
