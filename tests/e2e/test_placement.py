"""``--worker_env``, ``WORKER_COUNT=auto`` and ``--init_concurrency``, with real workers."""

from __future__ import annotations

import os
import signal

# Each worker writes its device when it loads the script.
DEVICE = """
import os
with open("devices", "a") as file:
    file.write(f"{os.getpid()} {os.environ['DEVICE']} {os.environ['B']}\\n")
def init(): pass
def run(data): pass
"""
# A second worker that loads at the same time finds the file of the first.
ALONE = """
import os, time
def init():
    os.close(os.open("loading", os.O_CREAT | os.O_EXCL))
    time.sleep(0.1)
    os.unlink("loading")
def run(data): return os.environ["WORKER_COUNT"]
"""


def devices(server):
    """The device of each worker, by pid."""
    lines = (server.folder / "devices").read_text().splitlines()
    return {int(pid): device for pid, device, b in map(str.split, lines) if int(pid) in server.workers() and b == "x"}


def test_each_worker_has_its_own_device_and_a_successor_inherits_it(start, script):
    server = start(script(DEVICE), "--worker_count", "2", "--worker_env", "DEVICE=gpu{worker}", "--worker_env", "B=x")
    server.wait_for_workers(2)
    first = devices(server)
    assert sorted(first.values()) == ["gpu0", "gpu1"]
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    server.wait_for_workers(2, instead_of=[victim])
    second = devices(server)
    assert sorted(second.values()) == ["gpu0", "gpu1"]
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, instead_of=list(second))
    assert sorted(devices(server).values()) == ["gpu0", "gpu1"]


def test_workers_load_one_after_the_other(start, script):
    server = start(script(ALONE), "--worker_count", "3", "--init_concurrency", "1")
    server.wait_for_workers(3)
    assert server.score().json() == "3"
    assert not [record for record in server.records() if record.level == "E"]


def test_as_many_workers_as_cores(start):
    server = start("pid.py", WORKER_COUNT="auto")
    assert "(auto: " in server.output().partition("Worker Count: ")[2].splitlines()[0]
