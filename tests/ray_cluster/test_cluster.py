"""A scoring script on a real Ray cluster of three nodes: the same answers as from a server alone, and what survives.

`make test-ray` runs this, twice: with Serve's own proxy, and with HAProxy. The cluster is started by Ray's own means
for tests, in processes of this machine. The tests run in this order, because a node that is killed does not come back.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# Ray's default is too short for a machine that does other things too.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
ray = pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from exchanges import EXCHANGES, Answer, Exchange, ask, comparable  # noqa: E402
from harness import eventually, is_running  # noqa: E402
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.serve.schema import ServeDeploySchema  # noqa: E402

from azureml_inference_server_http.ray import build  # noqa: E402
from azureml_inference_server_http.replica.arguments import ArgumentsError  # noqa: E402
from azureml_inference_server_http.testing import ScoringServer  # noqa: E402
from azureml_inference_server_http.testing import serve as serve_alone  # noqa: E402

pytestmark = pytest.mark.timeout(600)
FOLDER = Path(__file__).parent
SCRIPTS = FOLDER / "scripts"
# Seconds that the cluster may take for anything.
LONG = 240.0
ORIGINS = "http://a.com"
MEMORY = 80_000_000


def free_port() -> int:
    """A port for Serve, which cannot take a free one itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """The cluster, and the port of its proxy."""

    def __init__(self, cluster: Any, port: int) -> None:
        self.cluster = cluster
        self.port = port

    def deploy(self, name: str, prefix: str, entry_script: str | Path, **args: Any) -> None:
        # The whole path, because replicas have another current folder without --working-dir.
        script = str(SCRIPTS / entry_script)
        serve.run(build({"num_cpus": 0.1, "entry_script": script, **args}), name=name, route_prefix=prefix)

    def post(self, body: Any, path: str = "/score", timeout: float = 60) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
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


def started() -> Any:
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


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    cluster = started()
    ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
    port = free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    yield Service(cluster, port)
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def alone() -> Iterator[dict[bool, ScoringServer]]:
    with ExitStack() as servers:
        scripts = {False: "score.py", True: "raw.py"}
        yield {
            is_raw: servers.enter_context(serve_alone(SCRIPTS / script, cors_origins=ORIGINS))
            for is_raw, script in scripts.items()
        }


@pytest.fixture(scope="module")
def same(service: Service) -> Service:
    service.deploy("plain", "/", entry_script="score.py", cors_origins=ORIGINS)
    service.deploy("raw", "/raw", entry_script="raw.py", cors_origins=ORIGINS)
    return service


# ---- Before anything is deployed


def test_wrong_arguments_are_refused_before_anything_is_deployed() -> None:
    with pytest.raises(ArgumentsError, match="did you mean worker_count"):
        build({"entry_script": str(FOLDER / "score.py"), "worker_cuont": 2})


def test_a_generated_configuration_is_one_of_serve() -> None:
    for file in (FOLDER.parent / "golden").glob("*/serve.yaml"):
        found = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
        assert found.applications[0].import_path == "azureml_inference_server_http.ray:build"


# ---- The same answers


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_an_answer_is_that_of_the_server_alone(
    exchange: Exchange, same: Service, alone: dict[bool, ScoringServer]
) -> None:
    expected = ask(alone[exchange.is_raw].port, exchange, "")
    found = ask(same.port, exchange, "/raw" if exchange.is_raw else "")
    assert comparable(found, exchange) == comparable(expected, exchange)
    if exchange.name == "a stream":
        assert len(paced(found)) >= 4, found.pauses


def paced(answer: Answer) -> list[float]:
    """The pauses of a stream that are those of the script."""
    return [pause for pause in answer.pauses if pause > 0.1]


def test_a_client_that_leaves_is_passed_on(same: Service, tmp_path: Path) -> None:
    """The second request waits for the only worker, so it is never run if its client leaves."""
    first, second = tmp_path / "first", tmp_path / "second"
    slow = threading.Thread(target=same.post, args=({"touch": str(first), "sleep": 3},))
    slow.start()
    eventually(first.exists, "the worker is busy", LONG)
    body = json.dumps({"touch": str(second)}).encode()
    with socket.create_connection(("127.0.0.1", same.port)) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.5)  # the request is on its way to the queue of the server
    slow.join()
    assert same.post({"a": 1}) == {"a": 1}
    assert not second.exists()


# ---- What survives


def test_a_broken_script_is_a_failed_deployment_with_its_traceback(service: Service, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def init():\n    raise ValueError('no model here')\n\ndef run(data): ...\n")
    with pytest.raises(RuntimeError):
        service.deploy("broken", "/broken", entry_script=tmp_path / "broken.py")
    application = serve.status().applications["broken"]
    assert application.status == "DEPLOY_FAILED"
    said = application.deployments["score"].message + application.message
    assert "ValueError: no model here" in said
    assert "broken.py" in said
    serve.delete("broken")
    assert service.who()


def test_a_server_that_is_killed_takes_its_replica_along_and_is_replaced(service: Service) -> None:
    service.deploy("plain", "/", entry_script="score.py")
    (server,) = service.servers(1)
    replica = parent_of(server)
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not is_running(replica), "the replica ends", 5)
    assert service.servers(1) != {server}


def test_a_replica_that_is_killed_takes_its_server_along_and_is_replaced(service: Service) -> None:
    (server,) = service.servers(1)
    os.kill(parent_of(server), signal.SIGKILL)
    eventually(lambda: not is_running(server), "the server ends", 5)
    assert service.servers(1) != {server}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_rolling_update_loses_no_request(service: Service) -> None:
    service.deploy("plain", "/", entry_script="score.py", num_replicas=2, environment={"VERSION": "1"})
    service.servers(2)
    outcomes: Counter[str] = Counter()
    done = threading.Event()

    def client() -> None:
        while not done.is_set() or sum(outcomes.values()) < 500:
            try:
                outcomes[f"version {service.post({'who': True, 'sleep': 0.01})['version']}"] += 1
            except OSError as error:
                outcomes[repr(error)] += 1

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    eventually(lambda: outcomes["version 1"] > 50, "requests are answered", LONG)
    service.deploy("plain", "/", entry_script="score.py", num_replicas=2, environment={"VERSION": "2"})
    eventually(lambda: outcomes["version 2"] > 50, "the new version answers", LONG)
    done.set()
    for each in clients:
        each.join()
    assert set(outcomes) == {"version 1", "version 2"}, outcomes
    assert sum(outcomes.values()) >= 500


def test_a_node_that_is_killed_is_made_up_for_by_the_others(service: Service) -> None:
    # One on each node, as no node has room for two.
    service.deploy("plain", "/", entry_script="score.py", num_replicas=3, num_cpus=0.6)
    before = service.servers(3)
    service.cluster.remove_node(list(service.cluster.worker_nodes)[-1], allow_graceful=False)
    eventually(lambda: not all(map(is_running, before)), "a server has ended with its node", LONG)
    assert len(service.servers(2)) == 2


def test_no_server_is_left_when_applications_are_deleted(service: Service) -> None:
    servers = service.servers(2)
    for name in list(serve.status().applications):
        serve.delete(name)
    eventually(lambda: not any(map(is_running, servers)), "the servers end", LONG)
