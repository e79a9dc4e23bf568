"""What the supervisor does when a front dies, and with workers that do not come to the next one,
without a process."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World, logs, without_logs

from azureml_inference_server_http._core import INTERRUPT_GRACE
from azureml_inference_server_http.supervise import control
from azureml_inference_server_http.supervise.children import KILL_AFTER, Phase
from azureml_inference_server_http.supervise.events import Disconnected, Kill, SpawnFront, SpawnWorker, TellFront, Tick
from azureml_inference_server_http.supervise.restart_delay import CRASH_BACK_OFF, MAX_EARLY_DEATHS, STEADY
from azureml_inference_server_http.supervise.workers import RECONNECT, longest_request

KILLED = -signal.SIGKILL
LONGEST = 20.0


@pytest.fixture
def limited():
    """A server with two workers that serve, and a limit for requests."""
    world = World(worker_count=2, longest_request=LONGEST)
    world.ready(*world.workers)
    return world


def lose_front(world):
    """Let the front die and another one start."""
    world.exit(world.front, KILLED)
    assert world.wake_up() == [SpawnFront()]


# ---- The next front


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
    assert one.state.phase is Phase.SERVING


def test_a_front_that_never_works_ends_the_command():
    world = World()
    for _ in range(100):
        world.exit(world.front, 1)
        if world.state.phase is Phase.STOPPING:
            break
        world.wake_up()
    assert world.state.phase is Phase.STOPPING
    assert world.state.exit_code != 0


def test_a_retiring_worker_is_told_again_by_a_new_front(two):
    # The front that got the order has died. The worker has connected to the new front as if there
    # had been no order.
    _, second = two.workers
    assert two.signal(signal.SIGTTOU) == [TellFront(control.Retire(second))]
    two.exit(two.front, KILLED)
    two.wake_up()
    assert TellFront(control.Retire(second)) in two.ready(second)


# ---- Workers that do not connect to it


def test_a_worker_that_does_not_come_back_in_time_is_killed_and_replaced(limited):
    stuck, fine = limited.workers
    lose_front(limited)
    limited.ready(fine)
    assert limited.wait(LONGEST) == []
    actions = limited.wait(RECONNECT)
    assert without_logs(actions) == [Kill(stuck, signal.SIGKILL)]
    (text,) = logs(actions, "critical")
    assert f"(pid:{stuck})" in text
    assert "WORKER_TIMEOUT" in text
    assert SpawnWorker() in limited.exit(stuck, KILLED)
    assert limited.state.next_wakeup() is None


def test_workers_that_come_back_are_left_alone(limited):
    lose_front(limited)
    limited.ready(*limited.workers)
    assert limited.state.next_wakeup() is None
    assert limited.wait(LONGEST + RECONNECT) == []


def test_a_worker_that_the_front_disconnects_must_connect_again_in_time(limited):
    stuck, fine = limited.workers
    for worker in (stuck, fine):
        assert limited.tell(Disconnected(worker)) == []
    limited.ready(fine)
    assert limited.wait(LONGEST) == []
    assert without_logs(limited.wait(RECONNECT)) == [Kill(stuck, signal.SIGKILL)]


def test_a_worker_that_is_gone_or_not_ready_is_not_expected_back(limited):
    limited.exit(limited.workers[0], KILLED)
    for pid in (4711, limited.workers[-1]):
        assert limited.tell(Disconnected(pid)) == []
    assert limited.state.next_wakeup() is None


def test_without_a_limit_for_requests_a_busy_worker_may_stay_away(two):
    lose_front(two)
    assert two.state.next_wakeup() is None


def test_the_time_for_a_request_goes_on_while_fronts_die_and_each_gives_time_to_connect(limited):
    lose_front(limited)
    limited.now += LONGEST - 1
    lose_front(limited)
    assert limited.state.next_wakeup() - limited.now == pytest.approx(1 + RECONNECT)
    limited.now += 2
    lose_front(limited)
    assert limited.state.next_wakeup() - limited.now == pytest.approx(RECONNECT)


def test_nobody_is_killed_for_want_of_a_front(limited):
    limited.exit(limited.front, KILLED)
    limited.now += LONGEST + RECONNECT
    assert limited.tell(Tick()) == [SpawnFront()]


def test_a_worker_that_is_not_ready_may_take_any_time():
    world = World(longest_request=LONGEST)
    lose_front(world)
    assert world.state.next_wakeup() is None


def test_a_worker_that_retires_when_the_front_dies_has_its_time_for_the_end_as_well(limited):
    first, stuck = limited.workers
    limited.signal(signal.SIGTTOU)
    lose_front(limited)
    limited.ready(first)
    assert limited.wait(LONGEST + limited.state.graceful_timeout) == []
    actions = limited.wait(RECONNECT)
    assert without_logs(actions) == [Kill(stuck, signal.SIGKILL)]
    (text,) = logs(actions, "critical")
    assert "--graceful_timeout" in text
    assert text.endswith("It is killed.")
    assert SpawnWorker() not in limited.exit(stuck, KILLED)
    assert limited.state.next_wakeup() is None


def test_a_worker_that_retires_and_has_connected_to_the_next_front_is_left_to_that(limited):
    limited.signal(signal.SIGTTOU)
    lose_front(limited)
    limited.ready(*limited.workers)
    assert limited.state.next_wakeup() is None


def test_a_stuck_worker_that_is_to_retire_is_killed_and_not_replaced(limited):
    first, stuck = limited.workers
    lose_front(limited)
    limited.ready(first)
    limited.signal(signal.SIGTTOU)
    assert without_logs(limited.wait(LONGEST + RECONNECT)) == [Kill(stuck, signal.SIGKILL)]
    assert SpawnWorker() not in limited.exit(stuck, KILLED)


def test_a_stuck_worker_is_not_killed_while_a_debugger_holds_it(limited):
    first, stuck = limited.workers
    debugged = {stuck}
    limited.state._is_debugged = debugged.__contains__
    lose_front(limited)
    limited.ready(first)
    assert limited.wait(LONGEST + RECONNECT) == []
    assert limited.wake_up() == []
    debugged.clear()
    assert without_logs(limited.wake_up()) == [Kill(stuck, signal.SIGKILL)]


def test_a_stop_has_limits_of_its_own(limited):
    lose_front(limited)
    limited.signal(signal.SIGINT)
    stuck = [Kill(pid, signal.SIGKILL) for pid in limited.workers]
    assert limited.wait(KILL_AFTER) == stuck
    assert Kill(limited.front, signal.SIGKILL) in limited.wait(LONGEST + RECONNECT)
    assert limited.state.next_wakeup() is None


@pytest.mark.parametrize(
    ("worker_timeout", "scoring_timeout_ms", "longest"),
    [(0, 0, None), (300, 0, 300), (0, 500, 0.5 + INTERRUPT_GRACE), (300, 500, 0.5 + INTERRUPT_GRACE), (1, 500, 1)],
)
def test_the_earlier_limit_of_a_request_counts(worker_timeout, scoring_timeout_ms, longest):
    assert longest_request(worker_timeout, scoring_timeout_ms) == longest
