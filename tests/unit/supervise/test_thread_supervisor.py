"""Worker threads: what is decided for them, in virtual time and without threads, and how that is
carried out.

``e2e/test_threads.py`` has the rest.
"""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import pytest
from harness import eventually
from supervisor_world import World, logs, without_logs

from azureml_inference_server_http.supervise import control, events, threads
from azureml_inference_server_http.supervise.children import (
    EXIT_CANNOT_START,
    EXIT_FAILED,
    KILL_AFTER,
    MANY_LEFT_BEHIND,
    Phase,
)
from azureml_inference_server_http.supervise.events import (
    Exited,
    Finish,
    HungUp,
    Kill,
    KillWanted,
    Ready,
    Released,
    ReleaseTemplate,
    Returned,
    Role,
    Spawned,
    SpawnFailed,
    SpawnFront,
    SpawnTemplate,
    SpawnWorker,
    TellFront,
)
from azureml_inference_server_http.supervise.state import FRONT_GRACE
from azureml_inference_server_http.supervise.threads import FRONT, LEFT_BEHIND, MAIN
from azureml_inference_server_http.supervise.worker_kinds import THREADS

# ---- Decisions


@pytest.fixture
def starting():
    """A server whose main thread loads the script."""
    return World(worker_count=2, kind=THREADS)


@pytest.fixture
def serving(starting):
    """A server with two threads that serve."""
    starting.load()
    starting.ready(*starting.workers)
    return starting


def leave_behind(world, number):
    """Let the front report that this thread does not return. Returns all actions."""
    return [*world.tell(KillWanted(number, "did not finish a request in time")), *world.exit(number, LEFT_BEHIND)]


def test_workers_start_when_the_main_thread_has_loaded_the_script(starting):
    assert starting.started == [SpawnFront(), SpawnTemplate()]
    (main,) = starting.templates
    assert starting.load() == [SpawnWorker(main)] * 2


def test_the_main_thread_may_say_again_that_it_has_loaded_the_script(serving):
    assert serving.load() == []


def test_a_script_that_cannot_start_ends_the_server(starting):
    actions = starting.exit(starting.templates[0], EXIT_CANNOT_START)
    assert logs(actions, "error") == ["The scoring script could not be started, see above. The server ends."]
    assert without_logs(actions) == [TellFront(control.Stop())]
    assert starting.exit(starting.front) == [Finish(3)]


def test_a_front_that_fails_is_the_end(serving):
    actions = serving.exit(serving.front, EXIT_FAILED)
    assert logs(actions, "critical") == ["The front failed. The server ends."]
    assert serving.state.exit_code == EXIT_FAILED
    assert SpawnFront() not in actions


def test_a_front_that_ends_by_itself_is_the_end(serving):
    assert logs(serving.exit(serving.front, 0), "critical")
    assert serving.state.exit_code == EXIT_FAILED


def test_a_front_that_was_asked_to_end_is_not(serving):
    serving.signal(signal.SIGTERM)
    assert logs(serving.exit(serving.front, 0), "critical") == []
    assert (serving.state.exit_code, serving.state.phase) == (0, Phase.CLEANING_UP)


def test_a_front_that_fails_while_it_is_at_its_end_is_no_good_end(serving):
    serving.signal(signal.SIGTERM)
    assert logs(serving.exit(serving.front, EXIT_FAILED), "critical")
    assert serving.state.exit_code == EXIT_FAILED


def test_a_stuck_thread_is_left_behind_and_another_takes_its_place(serving):
    first, _ = serving.workers
    actions = leave_behind(serving, first)
    assert without_logs(actions) == [
        Kill(first, signal.SIGKILL),
        TellFront(control.Exited(first, "did not return in time")),
        SpawnWorker(serving.templates[0]),
    ]
    assert logs(actions, "critical") == [
        f"Worker thread {first} did not finish a request in time. A thread cannot be killed. Another one takes its "
        "place, and this one ends when its call returns."
    ]
    assert logs(actions, "error") == []


def test_a_thread_that_comes_back_late_is_not_replaced_again(serving):
    first, _ = serving.workers
    leave_behind(serving, first)
    text = f"The call of worker thread {first} has returned, and the thread has ended."
    actions = serving.tell(Returned(first))
    assert (logs(actions, "info"), without_logs(actions)) == ([text], [])
    assert serving.tell(Returned(first)) == []


def test_threads_that_pile_up_are_told_each_time(serving):
    told = []
    for _ in range(MANY_LEFT_BEHIND * 2 + 1):
        serving.ready(*serving.workers)
        told += logs(leave_behind(serving, serving.workers[0]), "error")
    assert [text.split(" are stuck in calls of run()")[0] for text in told] == [
        "16 worker threads",
        "17 worker threads",
    ]
    assert len(serving.workers) == 2


def test_a_worker_that_fails_is_replaced(serving):
    first, _ = serving.workers
    actions = serving.exit(first, EXIT_FAILED)
    assert logs(actions, "error") == [f"Worker thread {first} ended unexpectedly."]
    assert without_logs(actions) == [
        TellFront(control.Exited(first, "ended unexpectedly")),
        SpawnWorker(serving.templates[0]),
    ]


def test_workers_that_fail_again_and_again_are_replaced_ever_more_slowly(serving):
    serving.exit(serving.workers[0], EXIT_FAILED)
    serving.ready(*serving.workers)
    assert SpawnWorker(serving.templates[0]) not in serving.exit(serving.workers[0], EXIT_FAILED)
    assert serving.wake_up() == [SpawnWorker(serving.templates[0])]


def test_a_thread_that_cannot_be_started_is_tried_again(serving):
    main = serving.templates[0]
    serving.state.handle(events.Signalled(signal.SIGTTIN), serving.now)
    actions = serving.tell(SpawnFailed(Role.WORKER, "can't start new thread.", main))
    assert logs(actions, "error") == ["Cannot start a worker: can't start new thread. Trying again every second."]
    assert serving.wake_up() == [SpawnWorker(main)]


def test_hup_is_refused(serving):
    actions = serving.signal(signal.SIGHUP)
    assert (without_logs(actions), len(logs(actions, "warning"))) == ([], 1)


def test_a_lost_terminal_is_like_term(serving):
    assert TellFront(control.Drain()) in serving.tell(HungUp(is_ignored=False))


def test_ttin_and_ttou_change_the_number_and_the_last_worker_stays(serving):
    assert serving.signal(signal.SIGTTIN) == [SpawnWorker(serving.templates[0])]
    serving.ready(*serving.workers)
    first, second, third = serving.workers
    assert serving.signal(signal.SIGTTOU) == [TellFront(control.Retire(third))]
    assert serving.signal(signal.SIGTTOU) == [TellFront(control.Retire(second))]
    assert serving.signal(signal.SIGTTOU) == []
    for number in (second, third):
        assert without_logs(serving.exit(number, 0)) == [TellFront(control.Exited(number, "ended"))]
    assert serving.workers == [first]


def test_term_lets_the_threads_end_after_the_last_request(serving):
    first, second = serving.workers
    (main,) = serving.templates
    assert without_logs(serving.signal(signal.SIGTERM)) == [TellFront(control.Drain())]
    ends = [Kill(first, signal.SIGTERM), Kill(second, signal.SIGTERM), ReleaseTemplate(main)]
    assert serving.tell(Released()) == ends
    for number in (main, first, second):
        assert not [action for action in serving.exit(number) if isinstance(action, (SpawnWorker, Finish))]
    assert serving.exit(serving.front) == [Finish(0)]


def test_int_leaves_behind_what_does_not_end(serving):
    first, second = serving.workers
    serving.signal(signal.SIGINT)
    serving.exit(serving.templates[0])
    serving.exit(second)
    assert serving.wait(KILL_AFTER) == [Kill(first, signal.SIGKILL)]
    serving.exit(first, LEFT_BEHIND)
    actions = serving.wait(FRONT_GRACE)
    assert (logs(actions, "error"), without_logs(actions)) == (
        ["The front did not end in time. It is killed."],
        [Kill(serving.front, signal.SIGKILL)],
    )
    assert serving.exit(serving.front, LEFT_BEHIND) == [Finish(0)]


def test_int_during_init_ends_the_server(starting):
    (main,) = starting.templates
    assert ReleaseTemplate(main) in starting.signal(signal.SIGINT)
    starting.exit(main)
    assert starting.exit(starting.front) == [Finish(0)]


# ---- Threads


@pytest.fixture
def performer(monkeypatch):
    """Threads that wait until the test releases them. The test plays the front."""
    let_go = threading.Event()
    monkeypatch.setattr(threads.front, "serve", lambda *_: let_go.wait(20))
    monkeypatch.setattr(threads._core, "work", lambda *_, **__: let_go.wait(20))
    monkeypatch.setattr(threads.worker, "log_scoring_timeout", lambda *_: None)
    # The front's thread must be one that can be joined.
    monkeypatch.setattr(
        threads.system_threads, "start", lambda target, name: threading.Thread(target=target, name=name).start()
    )
    before = set(threading.enumerate())
    made = threads.Threads(
        SimpleNamespace(
            exports_telemetry=False,
        ),
        [],
    )
    made.let_go = let_go
    yield made
    let_go.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    for end in (made._line, made._line_of_front, made._wake_reader, made._wake_writer, made._selector):
        end.close()


def told(performer, count=1):
    """Wait for the next events."""
    found = []
    eventually(lambda: found.extend(performer.wait(time.monotonic() + 0.1)) or len(found) >= count, f"{count} events")
    return found


def load(performer):
    performer.script_loaded((None, {}, None, 0.0))
    assert told(performer) == [events.Loaded(MAIN)]


def test_the_main_thread_tells_how_it_went(performer):
    performer.script_loaded(None)
    assert told(performer) == [Exited(MAIN, EXIT_CANNOT_START)]
    assert not performer.is_loaded
    load(performer)
    assert performer.is_loaded
    load(performer)


def test_threads_have_numbers_and_tell_their_end(performer, records):
    load(performer)
    assert performer.perform(SpawnTemplate()) == Spawned(MAIN, Role.TEMPLATE)
    assert performer.perform(SpawnFront()) == Spawned(FRONT, Role.FRONT)
    for number in (1, 2):
        assert performer.perform(SpawnWorker(MAIN)) == Spawned(number, Role.WORKER, MAIN)
    performer.let_go.set()
    assert sorted(told(performer, 3)) == [Exited(FRONT, 0), Exited(1, 0), Exited(2, 0)]
    assert performer.perform(ReleaseTemplate(MAIN)) == Exited(MAIN, 0)


@pytest.mark.parametrize("role", [Role.FRONT, Role.WORKER])
def test_an_exception_is_logged_with_its_traceback_and_told(performer, monkeypatch, records, caplog, role):
    load(performer)
    monkeypatch.setattr(threads.front, "serve", lambda *_: 1 / 0)
    monkeypatch.setattr(threads._core, "work", lambda *_, **__: 1 / 0)
    performer.perform(SpawnFront() if role is Role.FRONT else SpawnWorker(MAIN))
    assert told(performer) == [Exited(FRONT if role is Role.FRONT else 1, EXIT_FAILED)]
    assert "ZeroDivisionError" in caplog.text


def test_a_thread_that_is_killed_is_left_behind_and_told_when_it_returns(performer):
    load(performer)
    performer.perform(SpawnWorker(MAIN))
    assert performer.perform(Kill(1, events.KILL)) == Exited(1, LEFT_BEHIND)
    assert performer.perform(Kill(1, events.KILL)) is None
    performer.let_go.set()
    assert told(performer) == [Returned(1)]


def test_other_signals_ask_a_thread_to_end(performer):
    load(performer)
    performer.perform(SpawnWorker(MAIN))
    retirement = performer._workers[1]
    assert (retirement(), performer.perform(Kill(1, events.TERM)), retirement()) == (False, None, True)
    assert performer.perform(Kill(4711, events.TERM)) is None


@pytest.mark.parametrize("action", [SpawnFront(), SpawnWorker(MAIN)])
def test_a_thread_that_the_system_refuses_is_told(performer, monkeypatch, action):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    load(performer)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    failed = performer.perform(action)
    assert type(failed) is SpawnFailed
    assert failed.reason.startswith("can't start new thread. Raise the limit of processes and threads (ulimit -u")


def test_a_front_that_lacks_descriptors_says_so(performer, monkeypatch, records):
    def lack(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(threads.front, "serve", lack)
    performer.perform(SpawnFront())
    assert told(performer) == [Exited(FRONT, EXIT_FAILED)]
    ((level, text),) = records()
    assert level == "CRITICAL"
    assert text.startswith("The front failed: Too many open files. Raise the limit of open files (ulimit -n")


def test_lines_of_the_front_may_come_in_pieces(performer, records):
    performer._line_of_front.send(b"ready 1\nnonsense\nkill 1 did not fi")
    assert told(performer) == [Ready(1)]
    performer._line_of_front.send(b"nish\n")
    assert told(performer) == [KillWanted(1, "did not finish")]
    assert [level for level, _ in records()] == ["ERROR"]


def test_what_the_front_has_said_comes_before_the_end_of_a_worker(performer):
    load(performer)
    performer.perform(SpawnWorker(MAIN))
    performer._line_of_front.send(b"released\n")
    performer.let_go.set()
    assert told(performer, 2) == [Released(), Exited(1, 0)]


def test_orders_are_lines(performer):
    performer.perform(TellFront(control.Retire(1)))
    assert performer._line_of_front.recv(100) == b"retire 1\n"
    performer._line_of_front.close()
    performer.perform(TellFront(control.Stop()))


def test_signals_become_events(performer):
    performer._wake_writer.send(bytes([signal.SIGTERM, 0, signal.SIGQUIT, signal.SIGTTIN]))
    expected = (signal.SIGTERM, signal.SIGINT, signal.SIGTTIN)
    assert told(performer, 3) == [events.Signalled(number) for number in expected]


def test_ctrl_break_of_windows_counts_as_term(performer, monkeypatch):
    monkeypatch.setattr(threads, "BREAK", 21)
    performer._wake_writer.send(bytes([21, signal.SIGINT]))
    assert told(performer, 2) == [events.Signalled(signal.SIGTERM), events.Signalled(signal.SIGINT)]
