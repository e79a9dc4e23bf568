"""A real Ray cluster of three nodes on this machine, and the clients that tests need.

Owns the start of the cluster and its end. After the end, no process of the cluster may be left: neither one of Ray nor
one of our servers. Ray's own means for tests (``ray.cluster_utils``) start the cluster; ``ray stop`` would end other
clusters of this machine too. Runs in the test process.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# Ray's default is too short for a machine that does other things too.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
# Ray's exporter shows new values after this time; its default is ten seconds.
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")
# Every process of the cluster inherits this variable, by which those that are left are found.
MARK = f"RAY_CLUSTER_OF_TESTS={uuid.uuid4()}"
os.environ.update([MARK.split("=")])

import ray  # noqa: E402
from harness import eventually, is_running  # noqa: E402
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from surroundings import free_port  # noqa: E402

from azureml_inference_server_http.ray import build  # noqa: E402

SCRIPTS = Path(__file__).parents[1] / "scripts" / "replica"
# Seconds that the cluster may take for anything.
LONG = 240.0
MEMORY = 80_000_000


class Service:
    """The cluster, and the port of its proxy."""

    def __init__(self, cluster: Any, port: int) -> None:
        self.cluster = cluster
        self.port = port

    def deploy(self, name: str, prefix: str, entry_script: str | Path, **args: Any) -> None:
        # The whole path, because replicas have another current folder without --working-dir.
        script = str(SCRIPTS / entry_script)
        serve.run(build({"num_cpus": 0.1, "entry_script": script, **args}), name=name, route_prefix=prefix)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of this path."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def post(self, body: Any, path: str = "/score", timeout: float = 60, **fields: str) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, fields)
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return json.load(reply)

    def who(self, sleep: float = 0) -> Any:
        """Who answers, or None while nobody does."""
        try:
            return self.post({"who": True, "sleep": sleep})
        except (OSError, urllib.error.URLError):
            return None

    def servers(self, number: int) -> set[int]:
        """The pids of this many servers, as soon as they have answered. The requests come together, because a proxy
        prefers the replicas of its own node while they have room."""

        def found() -> set[int]:
            with ThreadPoolExecutor(3 * number) as clients:
                answers = list(clients.map(lambda _: self.who(0.2), range(3 * number)))
            return {who["server"] for who in answers if who and is_running(who["server"])}

        pids: set[int] = set()

        def are_enough() -> bool:
            pids.update(found())
            pids.intersection_update({pid for pid in pids if is_running(pid)})
            return len(pids) >= number

        eventually(are_enough, f"{number} servers answer", LONG)
        return pids

    def metrics(self) -> str:
        """What Ray's exporters show, one on each node."""
        texts = []
        for node in ray.nodes():
            # An exporter that is busy is asked again by those who wait for a number.
            with contextlib.suppress(OSError, http.client.HTTPException):
                url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
                with urllib.request.urlopen(url, timeout=60) as reply:
                    texts.append(reply.read().decode())
        return "".join(texts)


@contextlib.contextmanager
def running() -> Iterator[Service]:
    """Start the cluster and Serve, and end them. Fails if a process of them is left."""
    cluster = _started()
    try:
        ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
        port = free_port()
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield Service(cluster, port)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        _assert_nothing_is_left()


def _started() -> Any:
    """A cluster of three nodes. Ray gives each process of a node fifteen seconds, which a busy machine exceeds."""
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    for _ in range(5):
        cluster = Cluster()
        try:
            cluster.add_node(**head)
            for _ in range(2):
                cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            return cluster
        except Exception as error:
            cluster.shutdown()
            failure = error
    pytest.exit(f"Ray does not start its nodes here: {failure}", 1)


def _assert_nothing_is_left() -> None:
    try:
        eventually(lambda: not _left(), "every process of the cluster ends", LONG)
    except AssertionError:
        left = _left()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pytest.fail(f"these processes of the cluster were left: {left}")


def _left() -> dict[int, str]:
    """Processes that the cluster has started and that run: their pids and command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if MARK.encode() in (folder / "environ").read_bytes().split(b"\0") and is_running(int(folder.name)):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found
