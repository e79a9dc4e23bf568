"""What ``ps`` and ``top`` call the processes of a server."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from harness import eventually


def name_of(pid):
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()


def test_processes_are_told_apart_by_name_and_by_command_line(start):
    server = start("pid.py", "--worker_count", "2")
    first, second = sorted(server.wait_for_workers(2))
    front = server.front()
    assert [name_of(pid) for pid in (server.pid, front)] == ["azmlinfsrv", "azml:front"]
    assert {name_of(first), name_of(second)} == {"azml:worker-1", "azml:worker-2"}
    assert command_of(front).startswith("azmlinfsrv: front --port")
    assert {command_of(pid).partition(" --")[0] for pid in (first, second)} == {
        "azmlinfsrv: worker 1",
        "azmlinfsrv: worker 2",
    }
    assert server.score("x").json() in (first, second)


def test_the_command_is_found_as_before(start):
    server = start("pid.py")
    # Under -m, as here, or as the installed script: `pgrep -f "azmlinfsrv.*score.py"`.
    assert re.search("azureml_inference_server_http.*pid.py", command_of(server.pid))


def test_a_replaced_worker_has_the_next_number(start):
    server = start("pid.py")
    server.signal(signal.SIGHUP)
    server.wait_for_record("The new workers serve. An old worker exits when it has finished its requests.")
    (worker,) = server.wait_for_workers(1)
    eventually(lambda: name_of(worker) == "azml:worker-2", "its name is set")


def test_the_log_has_the_pids_that_the_system_knows(start):
    server = start("pid.py")
    (worker,) = server.wait_for_workers(1)
    assert server.score("x").json() == worker
    assert server.wait_for_record("POST /score").pid == worker
