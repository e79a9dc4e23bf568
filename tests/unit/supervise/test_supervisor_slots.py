"""Slots of workers (``--worker_env``), and how many load the script at once (``--init_concurrency``)."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World, without_logs

from azureml_inference_server_http.supervise import control
from azureml_inference_server_http.supervise.events import RecycleWanted, SpawnWorker, TellFront
from azureml_inference_server_http.supervise.worker_kinds import PRELOADED_PROCESSES

KILLED = -signal.SIGKILL


# ---- Slots


def test_workers_have_the_slots_from_zero():
    assert World(worker_count=3).slots == [0, 1, 2]


def test_the_successor_of_a_dead_worker_has_its_slot():
    world = World(worker_count=3)
    world.ready(*world.workers)
    world.exit(world.workers[1], KILLED)
    assert world.slots == [0, 1, 2, 1]


def test_a_worker_that_replaces_another_shares_its_slot():
    world = World(worker_count=2)
    first, second = world.workers
    world.ready(first, second)
    world.signal(signal.SIGHUP)
    world.ready(world.workers[-1])
    world.exit(first)
    world.ready(world.workers[-1])
    world.exit(second)
    assert world.slots == [0, 1, 0, 1]
    world.exit(world.workers[0], KILLED)
    assert world.slots == [0, 1, 0, 1, 0]


def test_a_slot_stays_within_the_number_of_workers_though_old_ones_take_long_to_end():
    world = World(worker_count=2)
    world.ready(*world.workers)
    world.signal(signal.SIGTTOU)
    # The worker that retires has not ended, and its slot is given to another one already.
    world.signal(signal.SIGTTIN)
    assert world.slots == [0, 1, 1]
    world.signal(signal.SIGTTIN)
    assert world.slots == [0, 1, 1, 2]


def test_the_slot_is_kept_if_the_replaced_worker_dies_first():
    world = World(worker_count=2)
    first, second = world.workers
    world.ready(first, second)
    world.tell(RecycleWanted(second, control.SERVED, "has served 5 requests"))
    world.exit(second, KILLED)
    world.exit(first, KILLED)
    world.wake_up()
    assert world.slots == [0, 1, 1, 0]


# ---- How many load at once


@pytest.fixture
def four():
    return World(worker_count=4, init_concurrency=1)


def test_one_worker_loads_after_the_other(four):
    assert four.started[1:] == [SpawnWorker()]
    assert four.ready(four.workers[0]) == [SpawnWorker()]
    assert four.state.starting_workers == 3
    for number in (1, 2):
        assert four.ready(four.workers[number]) == [SpawnWorker()]
    assert four.ready(four.workers[3]) == []
    assert four.slots == [0, 1, 2, 3]


def test_as_many_load_as_the_setting_says():
    world = World(worker_count=4, init_concurrency=3)
    assert len(world.workers) == 3
    world.ready(world.workers[0])
    assert len(world.workers) == 4
    assert len(World(worker_count=4).workers) == 4


def test_a_worker_that_dies_while_it_loads_makes_room_when_its_pause_is_over(four):
    four.ready(four.workers[0])
    assert SpawnWorker() not in four.exit(four.workers[1], KILLED)
    assert SpawnWorker() in four.wake_up()
    assert len(four.workers) == 2


def test_a_missing_worker_is_started_before_one_is_replaced(four):
    for number in range(4):
        four.ready(four.workers[number])
    first = four.workers[0]
    four.signal(signal.SIGHUP)  # the successor of the first worker loads
    four.exit(four.workers[2], KILLED)
    assert len(four.workers) == 4, "there is no room for another one yet"
    # The place of the dead worker is filled before the next worker is replaced.
    assert four.ready(four.workers[-1]) == [TellFront(control.Retire(first)), SpawnWorker()]
    assert four.slots[-2:] == [0, 2]
    four.exit(first)
    four.ready(four.workers[-1])
    assert four.slots[-1] == 1
    assert without_logs(four.wait(1)) == []


def test_a_successor_that_is_ended_while_it_loads_makes_room_when_it_is_gone(four):
    for number in range(4):
        four.ready(four.workers[number])
    four.signal(signal.SIGHUP)
    ended = four.workers[-1]
    assert SpawnWorker() not in four.signal(signal.SIGHUP), "the successor of the first worker still loads"
    assert SpawnWorker() in four.exit(ended, -signal.SIGTERM)


def test_a_worker_that_is_not_wanted_any_more_makes_room_when_it_is_gone():
    world = World(worker_count=2, init_concurrency=1)
    world.ready(world.workers[0])
    unwanted = world.workers[-1]
    world.signal(signal.SIGTTOU)
    assert SpawnWorker() not in world.signal(signal.SIGTTIN), "the worker still loads"
    assert SpawnWorker() in world.exit(unwanted, 0)


def test_preloaded_workers_do_not_wait_for_each_other():
    world = World(worker_count=4, init_concurrency=1, kind=PRELOADED_PROCESSES)
    world.load()
    assert len(world.workers) == 4


def test_a_server_that_stops_starts_no_more(four):
    four.signal(signal.SIGINT)
    assert SpawnWorker() not in four.exit(four.workers[0], KILLED)
