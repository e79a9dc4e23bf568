"""A supervisor that fails must not leave its children alone: failures are injected into a performer
that only plays."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World

from azureml_inference_server_http.supervise import control, events, supervising
from azureml_inference_server_http.supervise.children import EXIT_FAILED
from azureml_inference_server_http.supervise.events import Role
from azureml_inference_server_http.supervise.state import Supervisor
from azureml_inference_server_http.supervise.worker_kinds import PRELOADED_PROCESSES, PROCESSES, THREADS


class Injected(Exception):
    """The error that the tests inject."""


class Player:
    """A performer whose children start and end at once. ``fails(what)`` may raise an exception for
    an action, or for "wait"."""

    def __init__(self, fails=lambda what: None):
        self.fails = fails
        self.pid = 0
        self.living = {}
        self.happened = []
        self.performed = []
        self.abandoned = False

    def wait(self, until):
        self.fails("wait")
        happened, self.happened = self.happened, []
        yield from happened

    def perform(self, action):
        self.fails(action)
        self.performed.append(action)
        roles = {events.SpawnFront: Role.FRONT, events.SpawnTemplate: Role.TEMPLATE, events.SpawnWorker: Role.WORKER}
        if type(action) in roles:
            self.pid += 1
            role = self.living[self.pid] = roles[type(action)]
            if role is Role.TEMPLATE:
                self.happened.append(events.Loaded(self.pid))
            return events.Spawned(self.pid, role, getattr(action, "template", None))
        if isinstance(action, events.TellFront) and action.order in (control.Stop(), control.Drain()):
            self.end(Role.FRONT)
        elif isinstance(action, events.Kill) and action.pid in self.living:
            self.end(self.living[action.pid])
        elif isinstance(action, events.ReleaseTemplate):
            self.end(Role.TEMPLATE)
        return None

    def end(self, role):
        for pid in [pid for pid, other in self.living.items() if other is role]:
            del self.living[pid]
            self.happened.append(events.Exited(pid, 0))

    def abandon(self):
        self.abandoned = True
        self.living.clear()


@pytest.fixture(params=[PROCESSES, PRELOADED_PROCESSES, THREADS], ids=["processes", "preloaded", "threads"])
def state(request):
    return Supervisor(2, 30.0, request.param)


def once(match):
    """Make a function that raises the first time that ``match(what)`` is true."""
    left = [1]

    def fails(what):
        if left and match(what):
            left.pop()
            raise Injected

    return fails


def failures(records):
    return [text for level, text in records() if level == "CRITICAL"]


def test_without_a_failure_the_code_is_that_of_the_state(state, records):
    player = Player()
    player.happened.append(events.Signalled(signal.SIGTERM))
    assert supervising.run(state, player) == 0
    assert (player.living, failures(records)) == ({}, [])


STARTS = {
    "front": events.SpawnFront,
    # If no template is used, a worker is started in its place.
    "template": (events.SpawnTemplate, events.SpawnWorker),
    "worker": events.SpawnWorker,
}


@pytest.mark.parametrize("what", [*STARTS, "wait"])
def test_a_failure_ends_the_children_in_good_order(state, records, what):
    player = Player(once(lambda done: done == what or isinstance(done, STARTS.get(what, ()))))
    assert supervising.run(state, player) == EXIT_FAILED
    assert (player.living, player.abandoned) == ({}, False)
    assert failures(records) == ["The supervisor failed. The server ends."]
    told = [action.order for action in player.performed if isinstance(action, events.TellFront)]
    assert told[:1] == ([] if what == "front" else [control.Stop()])


def test_the_traceback_is_logged(state, caplog, records):
    supervising.run(state, Player(once(lambda what: what == "wait")))
    assert "Injected" in caplog.text
    assert failures(records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_failure_at_the_end_of_the_server_is_no_good_end(state, number):
    player = Player(once(lambda what: isinstance(what, events.TellFront)))
    player.happened.append(events.Signalled(number))
    assert supervising.run(state, player) == EXIT_FAILED
    assert player.living == {}


def test_a_failure_of_the_decisions_ends_the_children(state, records, monkeypatch):
    monkeypatch.setattr(Supervisor, "_ready", lambda *_: 1 / 0)
    player = Player()
    player.happened.append(events.Ready(2))
    assert supervising.run(state, player) == EXIT_FAILED
    assert (player.living, player.abandoned) == ({}, False)


def test_children_are_killed_if_it_fails_again(state, records):
    def fails(what):
        if what == "wait":
            raise Injected

    player = Player(fails)
    assert supervising.run(state, player) == EXIT_FAILED
    assert (player.living, player.abandoned) == ({}, True)
    assert failures(records) == [
        "The supervisor failed. The server ends.",
        "The supervisor failed again. It kills what is left.",
    ]


def test_children_are_killed_if_a_good_end_takes_too_long(state, records, monkeypatch):
    monkeypatch.setattr(supervising, "LAST_ATTEMPT", 0.0)
    player = Player(once(lambda what: what == "wait"))
    player.end = lambda role: None
    assert supervising.run(state, player) == EXIT_FAILED
    assert player.abandoned


def test_the_end_of_a_child_is_no_failure(state, records):
    def fails(what):
        if isinstance(what, events.SpawnFront):
            raise supervising.ChildEnded(7)

    with pytest.raises(supervising.ChildEnded) as caught:
        supervising.run(state, Player(fails))
    assert caught.value.code == 7
    assert failures(records) == []


@pytest.mark.parametrize("kind", [PROCESSES, PRELOADED_PROCESSES, THREADS])
def test_the_supervisor_stops_when_it_has_failed(kind):
    world = World(kind=kind)
    actions = world.tell(events.Failed())
    assert events.TellFront(control.Stop()) in actions
    assert world.state.exit_code == EXIT_FAILED
