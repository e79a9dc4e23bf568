"""How the supervisor ends (TERM, INT, QUIT), rule by rule, without a process."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World, logs, without_logs

from azureml_inference_server_http.supervise import control
from azureml_inference_server_http.supervise.children import KILL_AFTER, Phase
from azureml_inference_server_http.supervise.events import (
    Exited,
    Finish,
    HungUp,
    Kill,
    RecycleWanted,
    Released,
    Role,
    Signalled,
    Spawned,
    SpawnFront,
    SpawnWorker,
    Started,
    TellFront,
    Tick,
)
from azureml_inference_server_http.supervise.state import (
    FRONT_GRACE,
    Supervisor,
)
from azureml_inference_server_http.supervise.worker_kinds import PROCESSES, describe_exit

KILLED = -signal.SIGKILL


# ---- TERM


def test_term_drains_and_then_stops(two):
    first, second = two.workers
    assert without_logs(two.signal(signal.SIGTERM)) == [TellFront(control.Drain())]
    assert two.signal(signal.SIGTERM) == []
    # The front returns when everything is answered.
    assert two.exit(two.front) == [Kill(first, signal.SIGTERM), Kill(second, signal.SIGTERM)]
    assert two.exit(first) == []
    assert two.exit(second, -signal.SIGTERM) == [Finish(0)]


def test_a_worker_that_is_let_go_before_the_front_is_gone_is_not_replaced(one):
    (worker,) = one.workers
    one.signal(signal.SIGTERM)
    assert one.tell(Released()) == [Kill(worker, signal.SIGTERM)]
    assert without_logs(one.exit(worker)) == [TellFront(control.Exited(worker, "exited with code 0"))]
    assert one.exit(one.front) == [Finish(0)]


@pytest.mark.parametrize(("used", "left"), [(1.0, 29.0), (28.0, 2.0), (31.0, KILL_AFTER)])
def test_scripts_have_the_rest_of_the_graceful_timeout_for_their_end(used, left):
    world = World(graceful_timeout=30.0)
    (worker,) = world.workers
    world.ready(worker)
    world.signal(signal.SIGTERM)
    world.now += used
    assert world.exit(world.front) == [Kill(worker, signal.SIGTERM)]
    assert world.state.time_to_clean_up(world.now) == pytest.approx(left)
    assert world.state.next_wakeup() - world.now == pytest.approx(left)
    hurried = world.wake_up()
    assert without_logs(hurried) == [Kill(worker, signal.SIGQUIT)]
    assert f"--graceful_timeout (30 s) is over, and these still run: workers {worker}." in logs(hurried, "warning")[0]
    assert world.state.next_wakeup() - world.now == pytest.approx(PROCESSES.last_words)
    assert world.wake_up() == [Kill(worker, signal.SIGKILL)]
    assert world.exit(worker, KILLED) == [Finish(0)]


def test_int_does_not_wait_for_the_end_of_scripts(two):
    first, second = two.workers
    two.signal(signal.SIGTERM)
    two.exit(two.front)
    two.exit(first)
    assert two.signal(signal.SIGINT) == [Kill(second, signal.SIGQUIT)]
    assert two.state.time_to_clean_up(two.now) is None
    assert two.wait(KILL_AFTER) == [Kill(second, signal.SIGKILL)]
    assert two.exit(second, KILLED) == [Finish(0)]


def test_a_worker_that_has_retired_has_no_more_time_than_others_after_term(two):
    first, second = two.workers
    two.signal(signal.SIGTTOU)
    two.signal(signal.SIGTERM)
    assert two.exit(two.front) == [Kill(first, signal.SIGTERM), Kill(second, signal.SIGTERM)]
    assert Kill(second, signal.SIGQUIT) in two.wake_up()


def test_a_worker_that_is_not_ready_has_nothing_to_end():
    world = World()
    (new,) = world.workers
    world.signal(signal.SIGTERM)
    world.exit(world.front)
    assert world.wait(KILL_AFTER) == [Kill(new, signal.SIGKILL)]


def test_a_worker_that_dies_while_draining_is_replaced(one):
    # The requests in its queue must still be answered.
    one.signal(signal.SIGTERM)
    assert SpawnWorker() in one.exit(one.workers[0], KILLED)


def test_a_front_that_does_not_drain_in_time_is_killed():
    world = World(graceful_timeout=5.0)
    world.ready(*world.workers)
    front = world.front
    world.signal(signal.SIGTERM)
    assert world.wait(5.0) == []
    assert without_logs(world.wait(FRONT_GRACE)) == [Kill(front, signal.SIGKILL)]
    assert world.exit(front, KILLED) == [Kill(world.workers[0], signal.SIGTERM)]
    assert world.exit(world.workers[0]) == [Finish(0)]


def test_term_without_a_front_stops_at_once(one):
    one.exit(one.front, KILLED)
    assert one.signal(signal.SIGTERM) == [Kill(one.workers[0], signal.SIGTERM)]
    assert one.exit(one.workers[0]) == [Finish(0)]
    assert one.state.next_wakeup() is None or SpawnFront() not in one.wait(60)


def test_a_front_that_dies_while_draining_is_not_replaced(one):
    one.signal(signal.SIGTERM)
    assert SpawnFront() not in one.exit(one.front, KILLED)
    assert one.exit(one.workers[0]) == [Finish(0)]


# ---- The terminal


def test_a_lost_terminal_is_like_term(one):
    actions = one.tell(HungUp(is_ignored=False))
    assert TellFront(control.Drain()) in actions
    assert "The terminal is gone" in logs(actions, "warning")[0]
    assert one.tell(HungUp(is_ignored=False)) == []


def test_a_lost_terminal_means_nothing_to_a_server_that_is_to_outlive_it(one):
    assert one.tell(HungUp(is_ignored=True)) == []
    assert one.state.phase is Phase.SERVING


# ---- INT and QUIT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_stops_at_once(two, number):
    first, second = two.workers
    assert two.signal(number) == [Kill(first, signal.SIGQUIT), Kill(second, signal.SIGQUIT), TellFront(control.Stop())]
    assert two.exit(two.front) == []
    assert two.exit(first) == []
    assert two.exit(second) == [Finish(0)]


def test_int_overtakes_term(one):
    one.signal(signal.SIGTERM)
    assert one.signal(signal.SIGINT) == [Kill(one.workers[0], signal.SIGQUIT), TellFront(control.Stop())]
    one.exit(one.workers[0])
    assert one.exit(one.front) == [Finish(0)]


def test_workers_that_do_not_end_are_killed(two):
    first, second = two.workers
    two.signal(signal.SIGINT)
    two.exit(first)
    assert two.wait(KILL_AFTER) == [Kill(second, signal.SIGKILL)]
    two.exit(two.front)
    assert two.exit(second, KILLED) == [Finish(0)]


def test_a_front_that_does_not_stop_is_killed(one):
    one.signal(signal.SIGINT)
    one.exit(one.workers[0])
    assert Kill(one.front, signal.SIGKILL) in one.wait(FRONT_GRACE)
    assert one.exit(one.front, KILLED) == [Finish(0)]


def test_nothing_is_started_or_reported_after_the_stop(two):
    two.signal(signal.SIGINT)
    first, second = two.workers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        assert two.signal(number) == []
    assert two.tell(RecycleWanted(first, "served", "x")) == []
    assert two.exit(first, KILLED) == [TellFront(control.Exited(first, "was killed by signal 9 (SIGKILL)"))]
    two.exit(two.front)
    assert two.exit(second, 1) == [Finish(0)]
    assert two.state.next_wakeup() is None or two.wait(3600) == []


def test_a_fork_that_was_asked_for_before_the_stop_is_killed():
    state = Supervisor(1, 30.0)
    state.handle(Started(), 0.0)
    state.handle(Spawned(1, Role.FRONT), 0.0)
    state.handle(Signalled(signal.SIGINT), 0.0)
    assert state.handle(Spawned(2, Role.WORKER), 0.0) == [Kill(2, signal.SIGKILL)]
    assert state.handle(Exited(1, 0), 0.0) == []
    assert state.handle(Exited(2, KILLED), 0.0) == [Finish(0)]


def test_a_planned_start_is_forgotten_at_the_stop():
    world = World()
    world.exit(world.workers[0], 1)
    world.signal(signal.SIGINT)
    assert SpawnWorker() not in world.wait(3600)


def test_the_command_finishes_once(one):
    one.signal(signal.SIGINT)
    one.exit(one.front)
    assert one.exit(one.workers[0]) == [Finish(0)]
    assert one.tell(Tick()) == []


@pytest.mark.parametrize(("code", "text"), [(0, "exited with code 0"), (-9, "was killed by signal 9 (SIGKILL)")])
def test_how_a_process_ended_in_words(code, text):
    assert describe_exit(code) == text
