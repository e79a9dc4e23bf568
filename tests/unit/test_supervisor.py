"""The supervisor's decisions, rule by rule, without a process (DESIGN "Processes", contract section 16)."""

from __future__ import annotations

import signal

import pytest

from azureml_inference_server_http import supervisor
from azureml_inference_server_http.events import (
    Exited,
    Finish,
    Kill,
    KillWanted,
    Log,
    PreloadFailed,
    Ready,
    RecycleWanted,
    Signalled,
    Spawned,
    SpawnFailed,
    SpawnFront,
    SpawnWorker,
    Started,
    TellFront,
    Tick,
)
from azureml_inference_server_http.supervisor import (
    BACK_OFF,
    FRONT_GRACE,
    KILL_AFTER,
    MAX_EARLY_DEATHS,
    Supervisor,
)

KILLED = -signal.SIGKILL


class World:
    """A supervisor whose forks always work, and a clock that the test moves."""

    def __init__(self, worker_count=1, graceful_timeout=30.0):
        self.state = Supervisor(worker_count, graceful_timeout)
        self.now = 1000.0
        self.last_pid = 0
        self.fronts, self.workers = [], []
        self.started = self.tell(Started())

    def tell(self, event):
        """Handle an event, and the forks that follow from it as ``process.py`` does; all actions."""
        pending, found = [event], []
        while pending:
            for action in self.state.handle(pending.pop(0), self.now):
                found.append(action)
                if isinstance(action, (SpawnFront, SpawnWorker)):
                    is_front = isinstance(action, SpawnFront)
                    self.last_pid += 1
                    (self.fronts if is_front else self.workers).append(self.last_pid)
                    pending.append(Spawned(self.last_pid, is_front))
        return found

    def signal(self, number):
        return self.tell(Signalled(number))

    def exit(self, pid, code=0):
        for pids in (self.fronts, self.workers):
            if pid in pids:
                pids.remove(pid)
        return self.tell(Exited(pid, code))

    def wait(self, seconds):
        self.now += seconds
        return self.tell(Tick())

    def wake_up(self):
        """Let the time pass until the supervisor wants to be woken up."""
        at = self.state.next_wakeup()
        assert at is not None, "nothing is planned"
        return self.wait(max(0.0, at - self.now))

    def ready(self, *pids):
        return [action for pid in pids for action in self.tell(Ready(pid))]

    @property
    def front(self):
        (pid,) = self.fronts
        return pid


@pytest.fixture
def one():
    """A server with one worker that serves."""
    world = World()
    world.ready(*world.workers)
    return world


@pytest.fixture
def two():
    """A server with two workers that serve."""
    world = World(worker_count=2)
    world.ready(*world.workers)
    return world


def without_logs(actions):
    return [action for action in actions if not isinstance(action, Log)]


def logs(actions, level):
    return [action.text for action in actions if isinstance(action, Log) and action.level == level]


# ---- Starting


def test_the_front_is_started_before_the_workers():
    assert World(worker_count=3).started == [SpawnFront(), SpawnWorker(), SpawnWorker(), SpawnWorker()]


def test_a_server_that_serves_has_nothing_planned(two):
    assert two.state.next_wakeup() is None
    assert two.tell(Tick()) == []


def test_workers_that_get_ready_cause_nothing(one):
    assert one.tell(Ready(one.workers[0])) == []


def test_strangers_are_ignored(one):
    for event in (Exited(4711, 3), Ready(4711), KillWanted(4711, "x"), RecycleWanted(4711, "x")):
        assert one.tell(event) == []


@pytest.mark.parametrize("code", [3, 4])
def test_a_script_that_cannot_start_ends_the_command(code):
    world = World(worker_count=2)
    first, second = world.workers
    actions = world.exit(first, code)
    assert logs(actions, "error")
    assert without_logs(actions) == [
        TellFront(f"exited {first} exited with code {code}"),
        TellFront("stop"),
        Kill(second, signal.SIGTERM),
    ]
    assert world.exit(world.front) == []
    assert world.exit(second, 3) == [Finish(code)]


def test_a_failed_preload_ends_the_command():
    state = Supervisor(2, 30.0)
    assert state.handle(Started(), 0.0)[0] == SpawnFront()
    state.handle(Spawned(1, is_front=True), 0.0)
    assert TellFront("stop") in state.handle(PreloadFailed(), 0.0)
    assert state.handle(Exited(1, 0), 0.0) == [Finish(3)]


def test_a_fatal_code_of_a_worker_that_served_is_an_ordinary_death(one):
    (worker,) = one.workers
    assert SpawnWorker() in one.exit(worker, 3)
    assert one.state.phase == "serving"


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
    assert TellFront("stop") in actions
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
    assert world.state.phase == "serving"
    assert world.state.next_wakeup() - world.now == pytest.approx(BACK_OFF[0])


def test_nobody_gives_up_while_another_worker_serves(two):
    serving, dying = two.workers
    two.exit(dying, KILLED)
    for _ in range(3 * MAX_EARLY_DEATHS):
        (dying,) = (pid for pid in two.workers if pid != serving)
        two.exit(dying, 1)
        assert two.state.next_wakeup() - two.now < BACK_OFF[-1] + 0.001
        two.wake_up()
    assert two.state.phase == "serving"
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
        TellFront(f"exited {dead} {text}"),
        Log(level, f"Worker (pid:{dead}) {text}."),
        SpawnWorker(),
    ]


def test_a_killed_worker_hints_at_memory(one):
    (text,) = logs(one.exit(one.workers[0], KILLED), "error")
    assert text.endswith("was killed by signal 9 (SIGKILL). Perhaps it ran out of memory.")


def test_a_stuck_worker_is_killed_and_replaced(one):
    (worker,) = one.workers
    actions = one.tell(KillWanted(worker, "did not return"))
    assert actions == [
        Log("critical", f"Worker (pid:{worker}) did not return. It is killed and replaced."),
        Kill(worker, signal.SIGKILL),
    ]
    assert SpawnWorker() in one.exit(worker, KILLED)


def test_a_worker_that_dies_while_there_is_no_front_is_replaced_silently(one):
    (worker,) = one.workers
    one.exit(one.front, KILLED)
    actions = one.exit(worker, KILLED)
    assert without_logs(actions) == [SpawnWorker()]


# ---- Deaths of the front


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


def test_a_front_that_works_again_is_trusted_again(one):
    for _ in range(5):
        one.exit(one.front, 1)
        one.wake_up()
    one.ready(*one.workers)
    one.exit(one.front, 1)
    assert one.state.next_wakeup() == one.now


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


# ---- HUP


def test_hup_replaces_one_worker_after_the_other(two):
    first, second = two.workers
    assert without_logs(two.signal(signal.SIGHUP)) == [SpawnWorker()]
    third = two.workers[-1]
    assert two.ready(third) == [TellFront(f"retire {first}"), SpawnWorker()]
    fourth = two.workers[-1]
    assert without_logs(two.exit(first)) == [TellFront(f"exited {first} exited with code 0")]
    assert two.ready(fourth) == [TellFront(f"retire {second}")]
    assert without_logs(two.exit(second)) == [TellFront(f"exited {second} exited with code 0")]
    assert two.workers == [third, fourth]
    assert two.state.next_wakeup() is None


def test_hup_asks_for_no_successor_before_the_last_one_is_ready(two):
    two.signal(signal.SIGHUP)
    assert without_logs(two.signal(signal.SIGHUP)) == []
    assert len(two.workers) == 3


def test_hup_keeps_the_old_workers_if_the_script_is_broken_now(two):
    workers = list(two.workers)
    two.signal(signal.SIGHUP)
    actions = two.exit(two.workers[-1], 3)
    assert logs(actions, "error")[-1] == "The replacement could not start. The workers that serve now stay."
    assert [action for action in without_logs(actions) if not isinstance(action, TellFront)] == []
    assert (two.workers, two.state.phase, two.state.next_wakeup()) == (workers, "serving", None)


def test_hup_replaces_a_worker_that_is_not_ready_yet():
    world = World()
    (old,) = world.workers
    world.signal(signal.SIGHUP)
    new = world.workers[-1]
    assert world.ready(new) == [Kill(old, signal.SIGTERM)]
    assert without_logs(world.exit(old, 0)) == [TellFront(f"exited {old} exited with code 0")]
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


def test_hup_is_ignored_at_the_end(one):
    one.signal(signal.SIGTERM)
    assert one.signal(signal.SIGHUP) == []


# ---- Recycling


def test_a_worker_that_served_its_time_is_replaced(one):
    (old,) = one.workers
    actions = one.tell(RecycleWanted(old, "has served 1000 requests"))
    assert actions == [Log("info", f"Worker (pid:{old}) has served 1000 requests. It is replaced."), SpawnWorker()]
    assert one.tell(RecycleWanted(old, "again")) == []
    assert one.ready(one.workers[-1]) == [TellFront(f"retire {old}")]
    assert one.tell(RecycleWanted(old, "again")) == []


def test_workers_are_recycled_one_after_the_other(two):
    first, second = two.workers
    assert SpawnWorker() in two.tell(RecycleWanted(first, "x"))
    assert SpawnWorker() not in two.tell(RecycleWanted(second, "x"))
    assert two.ready(two.workers[-1]) == [TellFront(f"retire {first}"), SpawnWorker()]


# ---- TTIN and TTOU


def test_ttin_adds_a_worker(one):
    assert one.signal(signal.SIGTTIN) == [SpawnWorker()]
    assert one.signal(signal.SIGTTIN) == [SpawnWorker()]
    assert one.state.worker_count == 3


def test_ttou_retires_the_newest_worker(two):
    first, second = two.workers
    assert two.signal(signal.SIGTTOU) == [TellFront(f"retire {second}")]
    assert without_logs(two.exit(second)) == [TellFront(f"exited {second} exited with code 0")]
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
    # Before it has installed its handler, TERM simply ends it: as wanted, and no reason for alarm.
    actions = one.exit(starting, -signal.SIGTERM)
    assert logs(actions, "error") == []
    assert one.state.next_wakeup() is None


def test_ttou_leaves_a_retiring_worker_in_peace():
    world = World(worker_count=3)
    world.ready(*world.workers)
    first, second, third = world.workers
    assert world.signal(signal.SIGTTOU) == [TellFront(f"retire {third}")]
    assert world.signal(signal.SIGTTOU) == [TellFront(f"retire {second}")]
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


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGWINCH])
def test_other_signals_mean_nothing(one, number):
    assert one.signal(number) == []


# ---- TERM


def test_term_drains_and_then_stops(two):
    first, second = two.workers
    assert without_logs(two.signal(signal.SIGTERM)) == [TellFront("drain")]
    assert two.signal(signal.SIGTERM) == []
    # The front returns when everything is answered.
    assert two.exit(two.front) == [Kill(first, signal.SIGTERM), Kill(second, signal.SIGTERM)]
    assert two.exit(first) == []
    assert two.exit(second, -signal.SIGTERM) == [Finish(0)]


def test_a_worker_that_dies_while_draining_is_replaced(one):
    # Its queue still has to be answered by someone.
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


# ---- INT and QUIT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_stops_at_once(two, number):
    first, second = two.workers
    assert two.signal(number) == [TellFront("stop"), Kill(first, signal.SIGTERM), Kill(second, signal.SIGTERM)]
    assert two.exit(two.front) == []
    assert two.exit(first) == []
    assert two.exit(second) == [Finish(0)]


def test_int_overtakes_term(one):
    one.signal(signal.SIGTERM)
    assert one.signal(signal.SIGINT) == [TellFront("stop"), Kill(one.workers[0], signal.SIGTERM)]
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
    assert two.tell(RecycleWanted(first, "x")) == []
    assert two.exit(first, KILLED) == [TellFront(f"exited {first} was killed by signal 9 (SIGKILL)")]
    two.exit(two.front)
    assert two.exit(second, 1) == [Finish(0)]
    assert two.state.next_wakeup() is None or two.wait(3600) == []


def test_a_fork_that_was_asked_for_before_the_stop_is_killed():
    state = Supervisor(1, 30.0)
    state.handle(Started(), 0.0)
    state.handle(Spawned(1, is_front=True), 0.0)
    state.handle(Signalled(signal.SIGINT), 0.0)
    assert state.handle(Spawned(2, is_front=False), 0.0) == [Kill(2, signal.SIGKILL)]
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
    assert supervisor.describe_exit(code) == text


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


def test_a_worker_that_cannot_be_forked_is_tried_again():
    state = Supervisor(1, 30.0)
    state.handle(Started(), 0.0)
    state.handle(Spawned(1, is_front=True), 0.0)
    actions = state.handle(SpawnFailed(is_front=False, reason="Resource temporarily unavailable"), 5.0)
    assert [action.level for action in actions if isinstance(action, Log)] == ["error"]
    assert state.next_wakeup() == 6.0
    assert state.handle(Tick(), 6.0) == [SpawnWorker()]
