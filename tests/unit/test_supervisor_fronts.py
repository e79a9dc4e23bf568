"""What the supervisor does when a front dies, rule by rule, without a process."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World, logs

from azureml_inference_server_http.back_off import CRASH_BACK_OFF, MAX_EARLY_DEATHS, STEADY
from azureml_inference_server_http.events import SpawnFront, TellFront, Tick

KILLED = -signal.SIGKILL


def test_the_first_death_of_a_front_is_made_good_at_once(two):
    front, workers = two.front, list(two.workers)
    actions = two.exit(front, KILLED)
    assert logs(actions, "error") == [
        f"The front process (pid:{front}) was killed by signal 9 (SIGKILL). Starting another one."
    ]
    assert two.state.next_wakeup() == two.now
    assert two.tell(Tick()) == [SpawnFront()]
    assert two.front != front
    assert two.workers == workers


def test_a_front_that_keeps_dying_is_started_ever_more_slowly(one):
    pauses = []
    for _ in range(MAX_EARLY_DEATHS):
        one.exit(one.front, 1)
        pauses.append(one.state.next_wakeup() - one.now)
        assert one.wake_up() == [SpawnFront()]
    assert pauses[0] == 0
    assert pauses == sorted(set(pauses))


def test_a_front_that_lives_is_trusted_again(one):
    for _ in range(MAX_EARLY_DEATHS):
        one.exit(one.front, 1)
        one.wake_up()
    one.now += STEADY
    one.exit(one.front, 1)
    assert one.state.next_wakeup() == one.now


def test_fronts_that_die_young_are_started_ever_more_slowly_though_workers_connect_to_them(one):
    pauses = []
    for _ in range(3 * MAX_EARLY_DEATHS):
        one.ready(*one.workers)
        one.now += STEADY / 2
        one.exit(one.front, KILLED)
        pauses.append(one.state.next_wakeup() - one.now)
        assert one.wake_up() == [SpawnFront()]
    assert pauses[: len(CRASH_BACK_OFF) + 1] == pytest.approx([0.0, *CRASH_BACK_OFF])
    assert pauses[-1] == pytest.approx(CRASH_BACK_OFF[-1])
    assert one.state.phase == "serving"


def test_a_front_that_never_works_ends_the_command():
    world = World()
    for _ in range(100):
        world.exit(world.front, 1)
        if world.state.phase == "stopping":
            break
        world.wake_up()
    assert world.state.phase == "stopping"
    assert world.state.exit_code != 0


def test_a_retiring_worker_is_told_again_by_a_new_front(two):
    # The order was given to the front that died; the worker has connected to the new one like any other.
    _, second = two.workers
    assert two.signal(signal.SIGTTOU) == [TellFront(f"retire {second}")]
    two.exit(two.front, KILLED)
    two.wake_up()
    assert TellFront(f"retire {second}") in two.ready(second)
