"""What the supervisor decides about templates (WORKER_PRELOAD), rule by rule, without a process."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World, logs, without_logs

from azureml_inference_server_http.supervise import control
from azureml_inference_server_http.supervise.children import KILL_AFTER, SPAWN_AGAIN, Phase
from azureml_inference_server_http.supervise.events import (
    Exited,
    Finish,
    Kill,
    Loaded,
    RecycleWanted,
    ReleaseTemplate,
    Role,
    Signalled,
    Spawned,
    SpawnFailed,
    SpawnFront,
    SpawnTemplate,
    SpawnWorker,
    TellFront,
)
from azureml_inference_server_http.supervise.restart_delay import BACK_OFF, MAX_EARLY_DEATHS
from azureml_inference_server_http.supervise.template import ENDED
from azureml_inference_server_http.supervise.worker_kinds import PRELOADED_PROCESSES

KILLED = -signal.SIGKILL


@pytest.fixture
def loading():
    """A server for two workers, whose template is loading the script."""
    return World(worker_count=2, kind=PRELOADED_PROCESSES)


@pytest.fixture
def serving(loading):
    """The same server when both workers are ready."""
    loading.load()
    loading.ready(*loading.workers)
    return loading


def hup(world):
    return without_logs(world.signal(signal.SIGHUP))


# ---- The start


def test_workers_are_started_from_a_template_that_has_loaded_the_script(loading):
    assert loading.started == [SpawnFront(), SpawnTemplate()]
    (template,) = loading.templates
    assert loading.load() == [SpawnWorker(template), SpawnWorker(template)]


def test_orders_for_more_workers_wait_for_the_template(loading):
    assert loading.signal(signal.SIGTTIN) == []
    assert len(loading.load()) == 3


@pytest.mark.parametrize("code", [3, 4])
def test_a_script_that_cannot_be_loaded_ends_the_command(loading, code):
    (template,) = loading.templates
    actions = loading.exit(template, code)
    assert logs(actions, "error") == [
        f"The template process (pid:{template}) exited with code {code}.",
        "The scoring script could not be started, see above. The server ends.",
    ]
    assert without_logs(actions) == [TellFront(control.Stop())]
    assert loading.exit(loading.front) == [Finish(code)]


def test_a_template_that_dies_while_it_loads_is_tried_again_and_given_up(loading):
    for pause in BACK_OFF[: MAX_EARLY_DEATHS - 1]:
        assert SpawnTemplate() not in loading.exit(loading.templates[0], KILLED)
        assert loading.state.next_wakeup() - loading.now == pytest.approx(pause)
        assert loading.wake_up() == [SpawnTemplate()]
    assert logs(loading.exit(loading.templates[0], 7), "critical")
    assert loading.exit(loading.front) == [Finish(3)]


def test_a_template_that_the_system_refuses_is_tried_again(loading):
    state = loading.state
    loading.exit(loading.templates[0], KILLED)
    state.handle(Loaded(4711), loading.now)
    loading.now = state.next_wakeup()
    assert state.handle(Signalled(signal.SIGTTIN), loading.now) == [SpawnTemplate()]
    actions = state.handle(SpawnFailed(Role.TEMPLATE, "No memory."), loading.now)
    assert logs(actions, "error") == ["Cannot start the template process: No memory. Trying again every second."]
    assert loading.wait(SPAWN_AGAIN) == [SpawnTemplate()]


# ---- While it serves


def test_a_dead_worker_is_replaced_from_the_same_template(serving):
    assert SpawnWorker(serving.templates[0]) in serving.exit(serving.workers[0], KILLED)


def test_workers_do_not_need_a_template_that_dies(serving):
    actions = serving.exit(serving.templates[0], KILLED)
    assert without_logs(actions) == []
    assert "ran out of memory" in logs(actions, "error")[0]
    assert serving.state.next_wakeup() is None


def test_the_next_worker_needs_another_template(serving):
    serving.exit(serving.templates[0], KILLED)
    assert without_logs(serving.exit(serving.workers[0], 0))[-1] == SpawnTemplate()
    assert SpawnTemplate() not in serving.exit(serving.workers[0], 0)
    assert serving.load() == [SpawnWorker(serving.templates[0])] * 2


def test_recycling_needs_another_template_too(serving):
    serving.exit(serving.templates[0], KILLED)
    old = serving.workers[0]
    assert without_logs(serving.tell(RecycleWanted(old, "served", "has served 5 requests"))) == [SpawnTemplate()]
    assert serving.load() == [SpawnWorker(serving.templates[0])]
    assert TellFront(control.Retire(old)) in serving.ready(serving.workers[-1])


def test_workers_that_a_dying_template_was_asked_for_come_from_the_next_one(serving):
    (template,) = serving.templates
    state = serving.state
    assert state.handle(Signalled(signal.SIGTTIN), serving.now) == [SpawnWorker(template, 2)]
    state.handle(SpawnFailed(Role.WORKER, ENDED, template), serving.now)
    actions = serving.exit(template, KILLED)
    assert without_logs(actions) == [SpawnTemplate()]
    assert serving.load() == [SpawnWorker(serving.templates[0])]


# ---- HUP


def test_hup_loads_the_script_in_another_template_and_then_replaces_the_workers(serving):
    (old,) = serving.templates
    first, second = serving.workers
    assert hup(serving) == [SpawnTemplate()]
    new = serving.templates[-1]
    assert without_logs(serving.load()) == [ReleaseTemplate(old), SpawnWorker(new)]
    assert serving.ready(serving.workers[-1]) == [TellFront(control.Retire(first)), SpawnWorker(new)]
    actions = serving.ready(serving.workers[-1])
    assert TellFront(control.Retire(second)) in actions
    assert logs(actions, "info") == ["The new workers serve. An old worker exits when it has finished its requests."]
    for pid in (old, first, second):
        assert logs(serving.exit(pid), "error") == []
    assert serving.state.next_wakeup() is None


def test_nothing_is_told_as_done_while_the_script_loads(serving):
    actions = serving.signal(signal.SIGHUP)
    assert logs(actions, "info") == ["Loading the script again. Then the workers are replaced one by one."]


def test_a_broken_script_leaves_the_old_template_and_its_workers(serving):
    (old,) = serving.templates
    serving.signal(signal.SIGHUP)
    new = serving.templates[-1]
    actions = serving.exit(new, 3)
    text = logs(actions, "error")[-1]
    assert text.startswith(f"The new template process (pid:{new}) exited with code 3 before it was ready")
    assert "2 workers go on serving with the code loaded before." in text
    assert without_logs(actions) == []
    assert SpawnWorker(old) in serving.exit(serving.workers[0], KILLED)
    assert serving.state.phase is Phase.SERVING


def test_a_new_template_that_the_system_refuses_is_told_like_a_broken_script(serving):
    serving.state.handle(Signalled(signal.SIGHUP), serving.now)
    actions = serving.tell(SpawnFailed(Role.TEMPLATE, "No memory."))
    assert "on serving with the code loaded before." in logs(actions, "error")[0]
    assert serving.state.next_wakeup() is None
    assert hup(serving) == [SpawnTemplate()]


def test_a_broken_script_after_the_old_template_has_died_is_told_and_tried_again(serving):
    serving.exit(serving.templates[0], KILLED)
    serving.signal(signal.SIGHUP)
    serving.exit(serving.workers[0], KILLED)
    actions = serving.exit(serving.templates[0], 3)
    assert "1 worker goes on serving" in logs(actions, "error")[-1]
    assert serving.wake_up() == [SpawnTemplate()]


def test_hup_while_the_script_loads_loads_it_again(loading):
    (first,) = loading.templates
    assert hup(loading) == [ReleaseTemplate(first), SpawnTemplate()]
    assert loading.tell(Loaded(first)) == [], "it may have the old script"
    assert loading.wait(KILL_AFTER) == [Kill(first, signal.SIGKILL)]
    assert logs(loading.exit(first, KILLED), "error") == []
    assert without_logs(loading.load()) == [SpawnWorker(loading.templates[0])] * 2


def test_workers_that_die_while_the_new_script_loads_come_from_the_old_template_and_are_replaced(serving):
    (old,) = serving.templates
    serving.signal(signal.SIGHUP)
    assert SpawnWorker(old) in serving.exit(serving.workers[0], KILLED)
    from_old = serving.workers[-1]
    serving.load()
    for _ in range(4):
        serving.ready(*serving.workers)
        for pid in [pid for pid in serving.workers if serving.state.workers[pid].retiring]:
            serving.exit(pid)
    assert from_old not in serving.workers
    assert {serving.state.workers[pid].template for pid in serving.workers} == {serving.templates[-1]}
    assert len(serving.workers) == 2


def test_a_worker_that_the_old_template_starts_late_is_replaced_as_well(serving):
    (old,) = serving.templates
    state = serving.state
    assert state.handle(Signalled(signal.SIGTTIN), serving.now) == [SpawnWorker(old, 2)]
    serving.signal(signal.SIGHUP)
    serving.load()
    late = 4711
    serving.workers.append(late)
    serving.tell(Spawned(late, Role.WORKER, old))
    for _ in range(6):
        serving.ready(*serving.workers)
        for pid in [pid for pid in serving.workers if serving.state.workers[pid].retiring]:
            serving.exit(pid)
    assert late not in serving.workers
    assert len(serving.workers) == 3


# ---- The end


def test_the_template_stays_for_replacements_until_the_requests_are_answered(serving):
    (template,) = serving.templates
    assert without_logs(serving.signal(signal.SIGTERM)) == [TellFront(control.Drain())]
    assert SpawnWorker(template) in serving.exit(serving.workers[0], KILLED)
    assert ReleaseTemplate(template) in serving.exit(serving.front)
    for pid in list(serving.workers):
        assert serving.exit(pid) == []
    assert serving.exit(template) == [Finish(0)]


def test_a_template_that_loads_is_killed_soon_at_the_end(loading):
    (template,) = loading.templates
    loading.signal(signal.SIGTERM)
    assert loading.exit(loading.front) == [ReleaseTemplate(template)]
    assert loading.wait(KILL_AFTER) == [Kill(template, signal.SIGKILL)]
    assert loading.exit(template, KILLED) == [Finish(0)]


def test_a_template_that_does_not_end_in_time_is_told_and_stopped(serving):
    (template,) = serving.templates
    serving.signal(signal.SIGTERM)
    serving.exit(serving.front)
    for pid in list(serving.workers):
        serving.exit(pid)
    hurried = serving.wake_up()
    assert f"template {template}. They are stopped." in logs(hurried, "warning")[0]
    assert without_logs(hurried) == [Kill(template, signal.SIGQUIT)]
    assert serving.wake_up() == [Kill(template, signal.SIGKILL)]
    assert serving.exit(template, KILLED) == [Finish(0)]


@pytest.mark.parametrize("moment", ["loading", "serving"])
def test_int_ends_the_template_at_once(loading, moment):
    if moment == "serving":
        loading.load()
    (template,) = loading.templates
    actions = loading.signal(signal.SIGINT)
    assert actions.index(Kill(template, signal.SIGQUIT)) < actions.index(ReleaseTemplate(template))
    assert Kill(template, signal.SIGKILL) in loading.wait(KILL_AFTER)
    for pid in (*list(loading.workers), loading.front):
        loading.exit(pid, KILLED)
    assert loading.exit(template, KILLED) == [Finish(0)]


def test_a_template_that_loads_late_starts_nothing_at_the_end(loading):
    loading.signal(signal.SIGINT)
    assert loading.load() == []


def test_a_template_that_has_been_released_at_hup_has_its_time(serving):
    (old,) = serving.templates
    serving.signal(signal.SIGHUP)
    serving.load()
    assert serving.state.next_wakeup() is None
    serving.signal(signal.SIGINT)
    assert Kill(old, signal.SIGKILL) in serving.wait(KILL_AFTER)
    assert serving.tell(Exited(4711, 0)) == []
