"""What the supervisor does when files change (--reload), rule by rule, without processes and files.

A change is handled like HUP, whose rules ``test_supervisor_replacing.py`` and
``test_supervisor_templates.py`` test.
"""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World, logs, without_logs

from azureml_inference_server_http.supervise import control
from azureml_inference_server_http.supervise.events import (
    FilesChanged,
    Kill,
    LoadFailed,
    SpawnFront,
    SpawnTemplate,
    SpawnWorker,
    TellFront,
)
from azureml_inference_server_http.supervise.worker_kinds import PRELOADED_PROCESSES

CHANGED = FilesChanged("score.py and 1 other file")
WHERE = "score.py:12 ZeroDivisionError"
KILLED = -signal.SIGKILL


@pytest.fixture
def one():
    world = World(watches_files=True)
    world.ready(*world.workers)
    return world


def break_script(world):
    """The files change, and the successor reports an error and exits. Returns the actions."""
    world.tell(CHANGED)
    successor = world.workers[-1]
    world.tell(LoadFailed(successor, WHERE, "division by zero"))
    return world.exit(successor, 3)


def test_a_change_starts_a_successor_which_replaces_the_worker_when_it_is_ready(one):
    (old,) = one.workers
    actions = one.tell(CHANGED)
    assert without_logs(actions) == [SpawnWorker()]
    assert logs(actions, "info") == ["score.py and 1 other file changed. Replacing the workers one by one."]
    assert without_logs(one.ready(one.workers[-1])) == [TellFront(control.Retire(old))]


def test_a_change_loads_the_script_in_another_template():
    world = World(kind=PRELOADED_PROCESSES, watches_files=True)
    world.load()
    world.ready(*world.workers)
    assert without_logs(world.tell(CHANGED)) == [SpawnTemplate()]


def test_a_broken_change_keeps_the_worker_and_the_front_is_told_why(one):
    (old,) = one.workers
    actions = break_script(one)
    assert actions[-1] == TellFront(control.Outdated(WHERE))
    (text,) = logs(actions, "error")[-1:]
    assert text.startswith(f"{WHERE}: division by zero. The new worker (pid:")
    assert text.endswith("The next change of a file starts another attempt.")
    assert "1 worker goes on serving with the code loaded before." in text
    assert one.workers == [old]
    assert one.state.next_wakeup() is None


def test_a_template_that_cannot_load_the_change_is_told_as_well():
    world = World(kind=PRELOADED_PROCESSES, watches_files=True)
    world.load()
    world.ready(*world.workers)
    world.tell(CHANGED)
    world.tell(LoadFailed(world.templates[-1], WHERE, "division by zero"))
    assert world.exit(world.templates[-1], 3)[-1] == TellFront(control.Outdated(WHERE))


def test_the_front_is_told_when_a_later_change_is_loaded(one):
    break_script(one)
    one.tell(CHANGED)
    assert one.ready(one.workers[-1])[-1] == TellFront(control.Current())
    one.tell(CHANGED)
    assert TellFront(control.Current()) not in one.ready(one.workers[-1])


def test_a_new_front_is_told_of_the_broken_change(one):
    break_script(one)
    one.exit(one.front, KILLED)
    assert one.wake_up() == [SpawnFront(), TellFront(control.Outdated(WHERE))]


def test_a_successor_that_dies_without_a_report_is_told_by_its_end(one):
    one.tell(CHANGED)
    successor = one.workers[-1]
    told = one.exit(successor, KILLED)[-1]
    assert told == TellFront(control.Outdated(f"The new worker (pid:{successor}) was killed by signal 9 (SIGKILL)"))


def test_a_change_while_the_successor_loads_begins_it_again_and_forgets_its_error(one):
    one.tell(CHANGED)
    outdated = one.workers[-1]
    assert without_logs(one.tell(CHANGED)) == [Kill(outdated, signal.SIGTERM), SpawnWorker()]
    one.tell(LoadFailed(outdated, WHERE, "division by zero"))
    assert without_logs(one.exit(outdated, 3)) == [TellFront(control.Exited(outdated, "exited with code 3"))]
    assert TellFront(control.Retire(one.workers[0])) in one.ready(one.workers[-1])


def test_a_change_starts_a_worker_at_once_that_waits_for_another_attempt():
    world = World(2, watches_files=True)
    first, second = world.workers
    world.ready(first)
    world.exit(second, 3)
    assert len(world.workers) == 1
    world.tell(CHANGED)
    # The missing worker, and the successor of the other one.
    assert len(world.workers) == 3


def test_changes_do_nothing_when_the_server_ends(one):
    one.signal(signal.SIGTERM)
    assert one.tell(CHANGED) == []


def test_term_during_a_reload_ends_the_successor_as_well(one):
    one.tell(CHANGED)
    one.signal(signal.SIGTERM)
    one.exit(one.front, 0)
    for pid in list(one.workers):
        one.exit(pid, 0)
    assert one.workers == []
    assert one.state.exit_code == 0


def test_without_reload_replies_say_nothing_about_a_failed_hup():
    world = World()
    world.ready(*world.workers)
    world.signal(signal.SIGHUP)
    actions = world.exit(world.workers[-1], 3)
    assert not [action for action in actions if isinstance(getattr(action, "order", None), control.Outdated)]
    assert logs(actions, "error")[-1].endswith("Correct the cause, then send HUP again.")
