"""Replacing workers (HUP, recycling) and changing their number, rule by rule, without a process."""

from __future__ import annotations

import signal
from random import Random

import pytest
from supervisor_world import World, logs, without_logs

from azureml_inference_server_http.supervise import control
from azureml_inference_server_http.supervise.children import KILL_AFTER, Phase
from azureml_inference_server_http.supervise.events import (
    Kill,
    Log,
    RecycleWanted,
    Role,
    Signalled,
    Spawned,
    SpawnFailed,
    SpawnWorker,
    TellFront,
)
from azureml_inference_server_http.supervise.replacing import RECYCLE_PAUSE
from azureml_inference_server_http.supervise.worker_kinds import DEBUGGED_PROCESS

KILLED = -signal.SIGKILL


# ---- HUP


def test_hup_replaces_one_worker_after_the_other(two):
    first, second = two.workers
    assert without_logs(two.signal(signal.SIGHUP)) == [SpawnWorker()]
    third = two.workers[-1]
    assert two.ready(third) == [TellFront(control.Retire(first)), SpawnWorker()]
    fourth = two.workers[-1]
    assert without_logs(two.exit(first)) == [TellFront(control.Exited(first, "exited with code 0"))]
    assert two.ready(fourth) == [
        TellFront(control.Retire(second)),
        Log("info", "The new workers serve. An old worker exits when it has finished its requests."),
    ]
    assert without_logs(two.exit(second)) == [TellFront(control.Exited(second, "exited with code 0"))]
    assert two.workers == [third, fourth]
    assert two.state.next_wakeup() is None


def test_hup_begins_a_successor_again_that_is_not_ready(two):
    # It may have read the script before the script was changed.
    first, second = two.workers
    two.signal(signal.SIGHUP)
    outdated = two.workers[-1]
    assert without_logs(two.signal(signal.SIGHUP)) == [Kill(outdated, signal.SIGTERM), SpawnWorker()]
    successor = two.workers[-1]
    assert without_logs(two.wait(KILL_AFTER)) == [Kill(outdated, signal.SIGKILL)]
    assert without_logs(two.exit(outdated, KILLED)) == [
        TellFront(control.Exited(outdated, "was killed by signal 9 (SIGKILL)"))
    ]
    assert two.ready(successor) == [TellFront(control.Retire(first)), SpawnWorker()]
    assert without_logs(two.ready(two.workers[-1])) == [TellFront(control.Retire(second))]


def test_hup_keeps_the_old_workers_if_the_script_is_broken_now(two):
    workers = list(two.workers)
    two.signal(signal.SIGHUP)
    failed = two.workers[-1]
    actions = two.exit(failed, 3)
    text = logs(actions, "error")[-1]
    assert text.startswith(f"The new worker (pid:{failed}) exited with code 3 before it was ready")
    assert "2 workers go on serving with the code loaded before." in text
    assert [action for action in without_logs(actions) if not isinstance(action, TellFront)] == []
    assert (two.workers, two.state.phase, two.state.next_wakeup()) == (workers, Phase.SERVING, None)


def test_hup_replaces_a_worker_that_is_not_ready_yet():
    world = World()
    (old,) = world.workers
    world.signal(signal.SIGHUP)
    new = world.workers[-1]
    assert without_logs(world.ready(new)) == [Kill(old, signal.SIGTERM)]
    assert without_logs(world.exit(old, 0)) == [TellFront(control.Exited(old, "exited with code 0"))]
    assert world.workers == [new]


def test_a_worker_that_dies_before_its_turn_is_replaced_once(two):
    first, second = two.workers
    two.signal(signal.SIGHUP)
    successor = two.workers[-1]
    two.exit(second, KILLED)
    two.ready(*two.workers)
    two.exit(first)
    two.ready(*two.workers)
    assert successor in two.workers
    assert len(two.workers) == 2


def test_an_old_worker_that_dies_while_its_successor_starts_leaves_no_surplus(one):
    (old,) = one.workers
    one.signal(signal.SIGHUP)
    one.exit(old, KILLED)
    one.ready(*one.workers)
    running = [pid for pid in one.workers if not one.state.workers[pid].retiring]
    assert len(running) == 1


def test_a_worker_that_is_let_go_before_it_is_ready_is_killed_soon(one):
    # It is killed, because its init() may take any time, and a Python signal handler does not run
    # before native code returns.
    world = World()
    (old,) = world.workers
    world.signal(signal.SIGHUP)
    world.ready(world.workers[-1])
    assert world.wait(KILL_AFTER) == [Kill(old, signal.SIGKILL)]
    assert world.exit(old, KILLED) == [TellFront(control.Exited(old, "was killed by signal 9 (SIGKILL)"))]
    assert world.state.next_wakeup() is None


def test_hup_goes_on_when_the_system_has_processes_again(one):
    # As in World.tell, but without the fork.
    (asked,) = without_logs(one.state.handle(Signalled(signal.SIGHUP), one.now))
    assert asked == SpawnWorker()
    one.state.handle(SpawnFailed(Role.WORKER, "Resource temporarily unavailable"), one.now)
    assert one.wake_up() == [SpawnWorker()]
    old, new = one.workers[0], one.workers[-1]
    assert TellFront(control.Retire(old)) in one.ready(new)


def test_the_end_of_a_replacement_is_told_once(two):
    two.signal(signal.SIGHUP)
    first = two.ready(two.workers[-1])
    assert logs(first, "info") == []
    assert logs(two.ready(two.workers[-1]), "info") == [
        "The new workers serve. An old worker exits when it has finished its requests."
    ]
    two.exit(two.workers[0], 0)
    assert logs(two.exit(two.workers[0], 0), "info") == []


def test_a_failed_replacement_is_not_told_as_done(one):
    one.signal(signal.SIGHUP)
    assert logs(one.exit(one.workers[-1], 3), "info") == []


def test_hup_does_nothing_if_the_worker_has_the_port_of_a_debugger():
    world = World(kind=DEBUGGED_PROCESS)
    world.ready(world.workers[0])
    (log,) = world.signal(signal.SIGHUP)
    assert log.text.startswith("HUP does nothing: the new worker would need the port of --debug_port")


def test_hup_is_ignored_at_the_end(one):
    one.signal(signal.SIGTERM)
    assert one.signal(signal.SIGHUP) == []


def test_a_second_hup_while_the_first_is_at_work_leaves_no_surplus(two):
    two.signal(signal.SIGHUP)
    two.signal(signal.SIGHUP)
    for _ in range(6):
        for pid in list(two.workers):
            two.ready(pid)
        for pid in list(two.workers):
            if two.state.workers[pid].retiring:
                two.exit(pid, 0)
    assert [worker.retiring for worker in two.state.workers.values()] == [False, False]


# ---- Recycling


def served(pid):
    return RecycleWanted(pid, "served", "has served 1000 requests")


def large(pid):
    return RecycleWanted(pid, "large", "uses 300 MiB (--max_worker_rss 200)")


def recycle(world, event):
    """Let the worker be replaced. Returns the pid of its successor."""
    assert SpawnWorker() in world.tell(event)
    new = world.workers[-1]
    assert TellFront(control.Retire(event.pid)) in world.ready(new)
    world.exit(event.pid)
    return new


def test_a_worker_that_served_its_time_is_replaced(one):
    (old,) = one.workers
    actions = one.tell(served(old))
    assert actions == [Log("info", f"Worker (pid:{old}) has served 1000 requests. It is replaced."), SpawnWorker()]
    assert one.tell(served(old)) == []
    assert one.ready(one.workers[-1]) == [TellFront(control.Retire(old))]
    assert one.tell(served(old)) == []


def test_workers_are_recycled_one_after_the_other(two):
    first, second = two.workers
    assert SpawnWorker() in two.tell(served(first))
    assert SpawnWorker() not in two.tell(served(second))
    assert two.ready(two.workers[-1]) == [TellFront(control.Retire(first)), SpawnWorker()]


def test_a_worker_that_served_its_time_is_replaced_at_once_however_short_that_was(one):
    recycle(one, served(recycle(one, served(one.workers[0]))))


def test_a_worker_that_is_too_large_like_the_one_before_it_waits(one):
    second = recycle(one, large(one.workers[0]))
    one.now += 5
    (told,) = one.tell(large(second))
    assert told.level == "warning"
    assert "--max_worker_rss 200" in told.text
    assert one.state.next_wakeup() == pytest.approx(one.now - 5 + RECYCLE_PAUSE)
    assert one.wake_up() == [SpawnWorker()]
    third = one.workers[-1]
    assert one.ready(third) == [TellFront(control.Retire(second))]
    one.exit(second)
    # The warning is logged only once.
    assert one.tell(large(third)) == []
    assert one.state.next_wakeup() == pytest.approx(one.now + RECYCLE_PAUSE)


def test_a_worker_that_was_to_wait_and_dies_needs_no_replacement_later(one):
    second = recycle(one, large(one.workers[0]))
    one.tell(large(second))
    one.exit(second, KILLED)
    one.ready(one.workers[-1])
    assert one.state.next_wakeup() is None


def test_a_reload_that_fails_says_how_to_repeat_it_and_what_is_tried_again(two):
    first, _ = two.workers
    two.tell(served(first))
    two.signal(signal.SIGHUP)
    (text,) = [text for text in logs(two.exit(two.workers[-1], 3), "error") if "see above" in text]
    assert "Correct the cause, then send HUP again. The next attempt to replace Worker (pid:" in text


def test_recycling_is_tried_again_when_the_successor_could_not_start(two):
    first, second = two.workers
    two.tell(served(first))
    two.tell(served(second))
    actions = two.exit(two.workers[-1], 3)
    names = f"Worker (pid:{first}), Worker (pid:{second})"
    assert logs(actions, "error")[-1].endswith(f" before. The next attempt to replace {names} is in 60 s.")
    assert two.wake_up() == [SpawnWorker()]
    assert two.ready(two.workers[-1]) == [TellFront(control.Retire(first)), SpawnWorker()]
    assert two.ready(two.workers[-1]) == [TellFront(control.Retire(second))]
    assert two.state.next_wakeup() is None


# ---- TTIN and TTOU


def test_ttin_adds_a_worker(one):
    assert one.signal(signal.SIGTTIN) == [SpawnWorker()]
    assert one.signal(signal.SIGTTIN) == [SpawnWorker()]
    assert one.state.worker_count == 3


def test_ttou_retires_the_newest_worker(two):
    first, second = two.workers
    assert two.signal(signal.SIGTTOU) == [TellFront(control.Retire(second))]
    assert without_logs(two.exit(second)) == [TellFront(control.Exited(second, "exited with code 0"))]
    assert two.workers == [first]
    assert SpawnWorker() in two.exit(first, KILLED)
    assert len(two.workers) == 1


def test_ttou_keeps_the_last_worker(one):
    assert one.signal(signal.SIGTTOU) == []
    assert one.state.worker_count == 1


def test_ttou_ends_a_worker_that_is_still_starting(one):
    one.signal(signal.SIGTTIN)
    starting = one.workers[-1]
    assert one.signal(signal.SIGTTOU) == [Kill(starting, signal.SIGTERM)]
    # Before it has installed its handler, TERM kills it. That is intended, so no error is logged.
    actions = one.exit(starting, -signal.SIGTERM)
    assert logs(actions, "error") == []
    assert one.state.next_wakeup() is None


def test_ttou_leaves_a_retiring_worker_in_peace():
    world = World(worker_count=3)
    world.ready(*world.workers)
    first, second, third = world.workers
    assert world.signal(signal.SIGTTOU) == [TellFront(control.Retire(third))]
    assert world.signal(signal.SIGTTOU) == [TellFront(control.Retire(second))]
    world.exit(third)
    world.exit(second)
    assert world.workers == [first]


def test_ttou_while_workers_are_replaced_ends_with_the_right_number(two):
    two.signal(signal.SIGHUP)
    two.signal(signal.SIGTTOU)
    for _ in range(10):
        for pid, worker in list(two.state.workers.items()):
            if worker.retiring:
                two.exit(pid)
            elif not worker.ready:
                two.ready(pid)
    assert len(two.workers) == 1
    assert two.state.workers[two.workers[0]].ready


def settle(world):
    """Complete everything that has begun: workers that retire end, workers that start get ready,
    and planned actions are done."""
    for _ in range(50):
        for pid, worker in list(world.state.workers.items()):
            if worker.retiring:
                world.exit(pid)
            elif not worker.ready:
                world.ready(pid)
        if world.state.next_wakeup() is not None:
            world.wake_up()


def test_ttin_while_a_surplus_successor_ends_adds_one_worker(two):
    two.signal(signal.SIGHUP)
    two.signal(signal.SIGTTOU)
    two.signal(signal.SIGTTIN)
    settle(two)
    assert len(two.workers) == 2


def test_a_worker_that_ttou_retires_gets_no_successor():
    world = World(worker_count=3)
    world.ready(*world.workers)
    first, second, third = world.workers
    world.signal(signal.SIGHUP)
    assert world.signal(signal.SIGTTOU) == [TellFront(control.Retire(third))]
    # The worker is not ready at once.
    while not all(worker.ready for worker in world.state.workers.values()):
        world.ready(*(pid for pid, worker in world.state.workers.items() if not worker.ready))
    settle(world)
    assert len(world.workers) == 2
    assert not {first, second, third} & set(world.workers)


def test_a_worker_that_is_no_longer_wanted_when_it_has_been_started_ends(two):
    first, second = two.workers
    # Its start takes a while.
    assert two.state.handle(Signalled(signal.SIGTTIN), two.now) == [SpawnWorker(slot=2)]
    assert two.signal(signal.SIGTTOU) == []
    two.workers.append(third := 99)
    assert two.tell(Spawned(third, Role.WORKER, None)) == [Kill(third, signal.SIGTERM)]
    two.exit(third, -signal.SIGTERM)
    assert two.workers == [first, second]


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_while_workers_are_replaced_their_number_is_right_and_none_is_old(seed):
    random = Random(seed)
    world = World(worker_count=random.randrange(1, 4))
    world.ready(*world.workers)
    for _ in range(random.randrange(30)):
        choice = random.choice(["HUP", "TTIN", "TTOU", "TTOU", "ready", "ready", "exit", "kill"])
        workers = world.state.workers
        retiring = [pid for pid, worker in workers.items() if worker.retiring]
        starting = [pid for pid, worker in workers.items() if not worker.ready and not worker.retiring]
        serving = [pid for pid, worker in workers.items() if worker.ready]
        if choice == "ready" and starting:
            world.ready(random.choice(starting))
        elif choice == "exit" and retiring:
            world.exit(random.choice(retiring))
        elif choice == "kill" and len(serving) > 1:
            world.exit(random.choice(serving), KILLED)
        elif choice in ("HUP", "TTIN", "TTOU"):
            world.signal(signal.Signals[f"SIG{choice}"])
    newest = world.last_pid
    world.signal(signal.SIGHUP)
    successors = {pid for pid, worker in world.state.workers.items() if worker.replaces is not None}
    settle(world)
    assert len(world.workers) == world.state.worker_count
    assert all(pid > newest or pid in successors for pid in world.workers)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGWINCH])
def test_other_signals_mean_nothing(one, number):
    assert one.signal(number) == []
