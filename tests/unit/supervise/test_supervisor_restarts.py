"""Which restarts of workers the supervisor counts, and by which reason (docs/metrics.md)."""

from __future__ import annotations

import signal

import pytest
from supervisor_world import World

from azureml_inference_server_http.supervise import reports
from azureml_inference_server_http.supervise.events import Exited, KillWanted, RecycleWanted


def serving(count=2):
    world = World(worker_count=count)
    world.ready(*world.workers)
    return world


@pytest.mark.parametrize(
    ("code", "is_oom", "reason"),
    [
        (0, False, "crash"),
        (1, False, "crash"),
        (-signal.SIGSEGV, False, "crash"),
        (-signal.SIGABRT, False, "crash"),
        (-signal.SIGKILL, False, "signal"),
        (-signal.SIGTERM, False, "signal"),
        (-signal.SIGKILL, True, "oom"),
    ],
)
def test_a_worker_that_dies_counts_by_how_it_died(code, is_oom, reason):
    world = serving()
    world.tell(Exited(world.workers[0], code, is_oom))
    assert world.restarts == [reason]


def test_a_worker_that_is_killed_for_a_limit_counts_as_timeout():
    world = serving()
    world.tell(KillWanted(world.workers[0], "did not finish a request in time"))
    world.exit(world.workers[0], -signal.SIGKILL)
    assert world.restarts == ["timeout"]


@pytest.mark.parametrize("kind", ["served", "large"])
def test_a_worker_that_is_recycled_counts_once(kind):
    world = serving()
    old = world.workers[0]
    world.tell(RecycleWanted(old, kind, "has served"))
    assert world.restarts == []
    world.ready(world.workers[-1])
    world.exit(old)
    assert world.restarts == ["recycle"]


def test_a_worker_that_leaves_before_its_successor_is_ready_counts_once():
    world = serving()
    old = world.workers[0]
    world.tell(RecycleWanted(old, "leaving", "was told to end"))
    world.exit(old)
    world.ready(world.workers[-1])
    assert world.restarts == ["recycle"]


def test_each_worker_that_hup_replaces_counts_once():
    world = serving()
    old = list(world.workers)
    world.signal(signal.SIGHUP)
    for pid in old:
        world.ready(world.workers[-1])
        world.exit(pid)
    assert world.restarts == ["reload", "reload"]


def test_workers_that_are_not_replaced_do_not_count():
    fewer = serving()
    gone = fewer.workers[-1]
    fewer.signal(signal.SIGTTOU)
    fewer.exit(gone)
    stopped = serving()
    stopped.signal(signal.SIGINT)
    stopped.exit(stopped.workers[0])
    assert fewer.restarts == stopped.restarts == []


def test_workers_that_are_wanted_and_do_not_serve_are_starting():
    world = World(worker_count=3)
    assert world.state.starting_workers == 3
    world.ready(*world.workers[:2])
    assert world.state.starting_workers == 1
    world.ready(world.workers[2])
    assert world.state.starting_workers == 0
    world.exit(world.workers[0], 1)
    assert world.state.starting_workers == 1
    world.signal(signal.SIGINT)
    assert world.state.starting_workers == 0


def test_the_kernel_tells_when_there_was_no_memory(tmp_path):
    missing, counter = tmp_path / "missing", tmp_path / "memory.events"
    counter.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    kills = reports.OomKills([str(missing), str(counter)])
    assert not kills.have_grown()
    counter.write_text("low 0\noom 3\noom_kill 3\n")
    assert kills.have_grown()
    assert not kills.have_grown()
    counter.unlink()
    assert not kills.have_grown()


def test_only_a_kill_can_be_for_memory(tmp_path):
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    kills = reports.OomKills([str(counter)])
    counter.write_text("oom_kill 1\n")
    assert reports.of_child(12, 256, kills) == Exited(12, 1)
    assert reports.of_child(12, signal.SIGKILL, kills) == Exited(12, -signal.SIGKILL, True)
    assert reports.of_child(13, signal.SIGKILL, kills) == Exited(13, -signal.SIGKILL, False)
