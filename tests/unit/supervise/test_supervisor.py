"""The supervisor's decisions, rule by rule, without a process (docs/design.md, contract section
16)."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World, logs, without_logs

from azureml_inference_server_http.supervise import control
from azureml_inference_server_http.supervise.children import Phase
from azureml_inference_server_http.supervise.events import (
    Continued,
    Exited,
    Finish,
    Kill,
    KillWanted,
    Log,
    Ready,
    RecycleWanted,
    Role,
    Spawned,
    SpawnFailed,
    SpawnFront,
    SpawnWorker,
    Started,
    Stopped,
    TellFront,
    Tick,
)
from azureml_inference_server_http.supervise.restart_delay import BACK_OFF, CRASH_BACK_OFF, MAX_EARLY_DEATHS, STEADY
from azureml_inference_server_http.supervise.state import Supervisor

KILLED = -signal.SIGKILL


# ---- Starting


def test_the_front_is_started_before_the_workers():
    assert World(worker_count=3).started == [SpawnFront(), SpawnWorker(), SpawnWorker(), SpawnWorker()]


def test_a_server_that_serves_has_nothing_planned(two):
    assert two.state.next_wakeup() is None
    assert two.tell(Tick()) == []


def test_workers_that_get_ready_cause_nothing(one):
    assert one.tell(Ready(one.workers[0])) == []


def test_strangers_are_ignored(one):
    told = (Exited(4711, 3), Stopped(4711, 19), Continued(4711), Ready(4711))
    for event in (*told, KillWanted(4711, "x"), RecycleWanted(4711, "served", "x")):
        assert one.tell(event) == []


@pytest.mark.parametrize("code", [3, 4])
def test_a_script_that_cannot_start_ends_the_command(code):
    world = World(worker_count=2)
    first, second = world.workers
    actions = world.exit(first, code)
    assert logs(actions, "error")
    assert without_logs(actions) == [
        TellFront(control.Exited(first, f"exited with code {code}")),
        Kill(second, signal.SIGQUIT),
        TellFront(control.Stop()),
    ]
    assert world.exit(world.front) == []
    assert world.exit(second, 3) == [Finish(code)]


def test_a_fatal_code_of_a_worker_that_served_is_an_ordinary_death(one):
    (worker,) = one.workers
    assert SpawnWorker() in one.exit(worker, 3)
    assert one.state.phase is Phase.SERVING


@pytest.mark.parametrize("role", [Role.FRONT, Role.WORKER])
def test_a_process_that_cannot_be_forked_is_tried_again_and_told_once(role):
    state = Supervisor(1, 30.0)
    state.handle(Started(), 0.0)
    state.handle(Spawned(1, Role.WORKER if role is Role.FRONT else Role.FRONT), 0.0)

    def refuse(now, reason="No processes."):
        actions = state.handle(SpawnFailed(role, reason), now)
        assert state.next_wakeup() == now + 1
        assert state.handle(Tick(), now + 1) == [SpawnFront() if role is Role.FRONT else SpawnWorker()]
        return [action.level for action in actions if isinstance(action, Log)]

    assert refuse(5.0) == ["error"]
    assert refuse(6.0) == refuse(7.0) == []
    assert refuse(8.0, "No memory.") == ["error"]
    state.handle(Spawned(2, role), 9.0)
    state.handle(Exited(2, -9), 9.5)
    state.handle(Tick(), 9.9)
    assert refuse(10.0, "No memory.") == ["error"]


# ---- Deaths before anyone is ready: back off, then give up


def test_early_deaths_back_off_and_then_give_up():
    world = World()
    pauses = []
    for _ in range(MAX_EARLY_DEATHS - 1):
        actions = world.exit(world.workers[0], 1)
        assert SpawnWorker() not in actions
        pauses.append(world.state.next_wakeup() - world.now)
        assert world.wake_up() == [SpawnWorker()]
    assert pauses == pytest.approx(BACK_OFF[: MAX_EARLY_DEATHS - 1])
    (last,) = world.workers
    actions = world.exit(last, 7)
    (text,) = logs(actions, "critical")
    assert text.startswith(f"{MAX_EARLY_DEATHS} workers in a row died before they were ready")
    assert "exited with code 7" in text
    assert TellFront(control.Stop()) in actions
    assert world.exit(world.front) == [Finish(3)]


def test_the_pause_is_not_cut_short():
    world = World()
    world.exit(world.workers[0], 1)
    assert world.wait(BACK_OFF[0] / 2) == []
    assert world.wait(BACK_OFF[0]) == [SpawnWorker()]


def test_early_deaths_at_the_same_time_share_one_pause():
    world = World(worker_count=3)
    for worker in list(world.workers):
        world.exit(worker, 1)
    assert world.wake_up() == [SpawnWorker()] * 3


def test_a_worker_that_gets_ready_ends_the_counting():
    world = World()
    for _ in range(MAX_EARLY_DEATHS - 1):
        world.exit(world.workers[0], 1)
        world.wake_up()
    world.ready(*world.workers)
    assert SpawnWorker() in world.exit(world.workers[0], KILLED)
    world.exit(world.workers[0], 1)
    assert world.state.phase is Phase.SERVING
    assert world.state.next_wakeup() - world.now == pytest.approx(BACK_OFF[0])


def test_nobody_gives_up_while_another_worker_serves(two):
    serving, dying = two.workers
    two.exit(dying, KILLED)
    for _ in range(3 * MAX_EARLY_DEATHS):
        (dying,) = (pid for pid in two.workers if pid != serving)
        two.exit(dying, 1)
        assert two.state.next_wakeup() - two.now < BACK_OFF[-1] + 0.001
        two.wake_up()
    assert two.state.phase is Phase.SERVING
    assert len(two.workers) == 2


# ---- Deaths of workers that served


@pytest.mark.parametrize(
    ("code", "text", "level"),
    [
        (0, "exited with code 0", "info"),
        (1, "exited with code 1", "error"),
        (-signal.SIGSEGV, "was killed by signal 11 (SIGSEGV)", "error"),
        (-200, "was killed by signal 200", "error"),
    ],
)
def test_a_dead_worker_is_reported_and_replaced_at_once(two, code, text, level):
    dead, _ = two.workers
    actions = two.exit(dead, code)
    assert actions == [
        TellFront(control.Exited(dead, f"{text}")),
        Log(level, f"Worker (pid:{dead}) {text}."),
        SpawnWorker(),
    ]


def test_a_killed_worker_hints_at_memory(one):
    (text,) = logs(one.exit(one.workers[0], KILLED), "error")
    assert text.endswith("was killed by signal 9 (SIGKILL). Perhaps the system ran out of memory.")


def test_a_stuck_worker_is_killed_and_replaced(one):
    (worker,) = one.workers
    actions = one.tell(KillWanted(worker, "did not return"))
    assert actions == [
        Log("critical", f"Worker (pid:{worker}) did not return. It is killed and replaced."),
        Kill(worker, signal.SIGKILL),
    ]
    actions = one.exit(worker, KILLED)
    assert SpawnWorker() in actions
    assert logs(actions, "error") == [], "the log has the reason, and it was not the memory"


def test_a_worker_that_dies_of_something_else_before_it_is_killed_is_reported(one):
    (worker,) = one.workers
    one.tell(KillWanted(worker, "did not return"))
    (text,) = logs(one.exit(worker, -signal.SIGSEGV), "error")
    assert "(SIGSEGV)" in text


def test_a_worker_that_dies_while_there_is_no_front_is_replaced_silently(one):
    (worker,) = one.workers
    one.exit(one.front, KILLED)
    actions = one.exit(worker, KILLED)
    assert without_logs(actions) == [SpawnWorker()]


def test_workers_that_keep_dying_soon_after_they_are_ready_are_replaced_ever_more_slowly(one):
    pauses = []
    assert SpawnWorker() in one.exit(one.workers[0], KILLED)
    for _ in range(3 * MAX_EARLY_DEATHS):
        one.ready(*one.workers)
        one.now += STEADY / 2
        actions = one.exit(one.workers[0], KILLED)
        assert SpawnWorker() not in actions
        assert len(logs(actions, "warning")) == 1
        pauses.append(one.state.next_wakeup() - one.now)
        assert one.wake_up() == [SpawnWorker()]
    assert pauses[: len(CRASH_BACK_OFF)] == pytest.approx(list(CRASH_BACK_OFF))
    assert pauses[-1] == pytest.approx(CRASH_BACK_OFF[-1])
    assert one.state.phase is Phase.SERVING


def test_a_worker_that_served_for_a_while_is_replaced_at_once(one):
    for _ in range(5):
        one.ready(*one.workers)
        one.exit(one.workers[0], KILLED)
        one.wait(CRASH_BACK_OFF[-1])
    one.ready(*one.workers)
    one.now += STEADY
    assert SpawnWorker() in one.exit(one.workers[0], KILLED)


def test_a_new_front_does_not_make_workers_young_again(two):
    two.now += STEADY
    two.ready(*two.workers)
    for worker in list(two.workers):
        assert SpawnWorker() in two.exit(worker, KILLED)


def test_a_replacement_that_cannot_start_does_not_end_those_who_serve(two):
    two.exit(two.workers[0], KILLED)
    for _ in range(2 * MAX_EARLY_DEATHS):
        assert two.exit(two.workers[-1], 3)
        assert two.wake_up() == [SpawnWorker()]
    assert two.state.phase is Phase.SERVING


# ---- Workers that are stopped


def test_the_front_and_the_log_are_told_when_a_worker_is_stopped_and_goes_on(two):
    pid, _ = two.workers
    actions = two.tell(Stopped(pid, signal.SIGSTOP))
    assert without_logs(actions) == [TellFront(control.Stopped(pid))]
    (text,) = logs(actions, "warning")
    assert f"pid:{pid}" in text
    assert "SIGSTOP" in text
    actions = two.tell(Continued(pid))
    assert without_logs(actions) == [TellFront(control.Continued(pid))]
    assert logs(actions, "info")


def test_a_front_that_did_not_know_the_worker_yet_is_told_again(one):
    (pid,) = one.workers
    one.tell(Stopped(pid, signal.SIGSTOP))
    assert one.ready(pid) == [TellFront(control.Stopped(pid))]
    one.exit(one.front, KILLED)
    assert not without_logs(one.tell(Continued(pid)))
    one.wake_up()
    assert one.ready(pid) == []


def test_a_stopped_worker_is_killed_at_the_end_like_any_other(one):
    (pid,) = one.workers
    one.tell(Stopped(pid, signal.SIGSTOP))
    one.signal(signal.SIGINT)
    assert Kill(pid, signal.SIGKILL) in one.wake_up()
