"""Time limits with one timer for all, on a loop whose time the test says."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.scripting.alarms import Alarms


class Timer:
    def __init__(self, due, act, arguments):
        self.due, self.act, self.arguments, self.is_cancelled = due, act, arguments, False

    def when(self):
        return self.due

    def cancel(self):
        self.is_cancelled = True


class Loop:
    """The part of an event loop that has to do with time."""

    def __init__(self):
        self.now = 100.0
        self.timers = []

    def time(self):
        return self.now

    def call_at(self, due, act, *arguments):
        self.timers.append(Timer(due, act, arguments))
        return self.timers[-1]

    def waiting(self):
        return [timer for timer in self.timers if not timer.is_cancelled]

    def go_on(self, seconds):
        """Let time pass, and call the timers that are due in their order."""
        self.now += seconds
        while due := sorted((timer for timer in self.waiting() if timer.due <= self.now), key=Timer.when):
            self.timers.remove(due[0])
            due[0].act(*due[0].arguments)


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def rung():
    return []


@pytest.fixture
def alarms(loop):
    return Alarms(loop)


def test_an_alarm_rings_once_when_it_is_due(loop, alarms, rung):
    alarms.set(1, 5, lambda due, what: rung.append((due, what)), "late")
    loop.go_on(4.9)
    assert rung == []
    loop.go_on(0.2)
    loop.go_on(60)
    assert rung == [(105.0, "late")]


def test_many_alarms_need_one_timer(loop, alarms, rung):
    for number in range(64):
        alarms.set(number, 60 + number, lambda due: rung.append(due))
    assert len(loop.waiting()) == 1
    for number in range(63):
        alarms.drop(number)
    assert len(loop.timers) == 1
    loop.go_on(61)
    assert rung == []
    assert [timer.due for timer in loop.waiting()] == [223.0]
    loop.go_on(63)
    assert rung == [223.0]
    assert loop.waiting() == []


def test_an_earlier_alarm_does_not_wait_for_a_later_one(loop, alarms, rung):
    alarms.set(1, 60, lambda due: rung.append("first"))
    alarms.set(2, 1, lambda due: rung.append("second"))
    loop.go_on(1)
    assert rung == ["second"]
    loop.go_on(59)
    assert rung == ["second", "first"]


def test_an_alarm_that_is_set_again_has_its_new_time(loop, alarms, rung):
    alarms.set(1, 1, lambda due: rung.append("old"))
    alarms.set(1, 3, lambda due: rung.append("new"))
    loop.go_on(2)
    assert rung == []
    loop.go_on(1)
    assert rung == ["new"]


def test_what_rings_may_set_and_drop_alarms(loop, alarms, rung):
    def first(due):
        rung.append("first")
        alarms.drop(2)
        alarms.set(1, 1, lambda due: rung.append("again"))

    alarms.set(1, 1, first)
    alarms.set(2, 1, lambda due: rung.append("dropped"))
    alarms.set(3, 1, lambda due: rung.append("third"))
    loop.go_on(1)
    assert rung == ["first", "third"]
    loop.go_on(1)
    assert rung == ["first", "third", "again"]


def test_an_alarm_that_fails_does_not_take_the_others_with_it(loop, alarms, rung):
    def fail(due):
        raise RuntimeError("no")

    alarms.set(1, 1, fail)
    alarms.set(2, 1, lambda due: rung.append("second"))
    with pytest.raises(RuntimeError):
        loop.go_on(1)
    loop.go_on(0)
    assert rung == ["second"]


def test_a_loop_may_call_a_little_early(loop, alarms, rung):
    """asyncio calls what is due within the resolution of its clock."""
    alarms.set(1, 1, lambda due: rung.append(due))
    [timer] = loop.timers
    loop.now = 100.999
    loop.timers.remove(timer)
    timer.act(*timer.arguments)
    assert rung == [101.0]
    assert loop.timers == []
