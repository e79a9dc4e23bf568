"""The server of a replica lives and dies with it. Ray is not needed: ``tests/ray_cluster`` has a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, SCRIPTS, TIED_TO_US, eventually, is_running

# Starts a server as a replica does, says so, and waits for an order.
REPLICA = """
import json, os, sys
from azureml_inference_server_http.replica.server import Server, ServerError
try:
    server = Server(["--plain", "--host", "127.0.0.1", "--port", "0", "--entry_script", sys.argv[1]], os.environ, 5)
except ServerError as error:
    print(json.dumps({"error": str(error)}), file=sys.stderr, flush=True)
    sys.exit(9)
print(json.dumps({"port": server.port, "pid": server._process.pid}), file=sys.stderr, flush=True)
for order in sys.stdin:
    server.stop()
    print("{}", file=sys.stderr, flush=True)
"""


class Replica:
    """A process with a server."""

    def __init__(self, script: str | Path) -> None:
        self.process = subprocess.Popen(
            [*TIED_TO_US, sys.executable, "-c", REPLICA, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.said = self.hear()

    def hear(self) -> Any:
        assert self.process.stderr is not None
        return json.loads(self.process.stderr.readline())

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"stop\n")
        self.process.stdin.flush()
        self.hear()


@pytest.fixture
def replica() -> Iterator[Replica]:
    made = Replica(SCRIPTS / "echo.py")
    yield made
    made.process.kill()
    made.process.communicate(timeout=PATIENCE)


def processes_of(pid: int) -> list[int]:
    """The server and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def test_the_port_of_a_server_with_a_json_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZMLINFSRV_LOG_FORMAT", "json")
    made = Replica(SCRIPTS / "echo.py")
    assert made.said["port"] > 0
    made.process.kill()
    made.process.communicate(timeout=PATIENCE)


def test_the_replica_ends_with_its_server(replica: Replica) -> None:
    os.kill(replica.said["pid"], signal.SIGKILL)
    assert replica.process.stdout is not None
    out = replica.process.stdout.read()
    assert replica.process.wait(PATIENCE) == 1
    assert b"The server ended with code -9, and so does this replica.\n" in out


def test_the_server_ends_with_its_replica(replica: Replica) -> None:
    processes = processes_of(replica.said["pid"])
    assert len(processes) > 2
    replica.process.kill()
    eventually(lambda: not any(map(is_running, processes)), "the processes of the server end")


def test_a_server_that_is_stopped_does_not_take_the_replica_along(replica: Replica) -> None:
    replica.stop()
    assert not is_running(replica.said["pid"])
    assert replica.process.poll() is None


def test_a_broken_script_is_told_with_its_traceback() -> None:
    broken = Replica(SCRIPTS / "init_fails.py")
    broken.process.communicate(timeout=PATIENCE)
    assert broken.process.returncode == 9
    assert "The script cannot be served: the server ended with code 3." in broken.said["error"]
    assert "Traceback (most recent call last):" in broken.said["error"]
    assert "init_fails.py" in broken.said["error"]
    assert "Server Settings" not in broken.said["error"]
