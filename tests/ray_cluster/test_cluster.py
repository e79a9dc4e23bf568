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
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from cluster import LONG, SCRIPTS, Service, running
from exchanges import EXCHANGES, Answer, Exchange, ask, comparable
from harness import eventually, is_running
from ray import serve
from ray.serve.schema import ServeDeploySchema
from receiver import Receiver, data

from azureml_inference_server_http.ray import build
from azureml_inference_server_http.replica.arguments import ArgumentsError
from azureml_inference_server_http.testing import ScoringServer
from azureml_inference_server_http.testing import serve as serve_alone

pytestmark = pytest.mark.timeout(600)
FOLDER = Path(__file__).parent
ORIGINS = "http://a.com"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as made:
        yield made


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
    first, second, end = tmp_path / "first", tmp_path / "second", tmp_path / "end"
    # After a slow request, the worker gets one request at a time, so the next one stays in the queue of the server.
    same.post({"sleep": 0.1})
    slow = threading.Thread(target=same.post, args=({"touch": str(first), "until": str(end)}, "/score", 2 * LONG))
    slow.start()
    try:
        eventually(first.exists, "the worker is busy", LONG)
        body = json.dumps({"touch": str(second)}).encode()
        with socket.create_connection(("127.0.0.1", same.port)) as client:
            client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            eventually(lambda: waiting(same, "plain") == [1], "the second request is in the queue", LONG)
        eventually(lambda: waiting(same, "plain") == [0], "the queue has lost it", LONG)
    finally:
        end.touch()
    slow.join()
    assert same.post({"a": 1}) == {"a": 1}
    assert not second.exists()


# ---- What Ray sees


def test_the_health_of_the_proxy_is_that_of_serve(same: Service) -> None:
    assert same.get("/-/healthz") == (200, b"success")
    assert json.loads(same.get("/-/routes")[1])["/"] == "plain"


def test_ray_exports_the_metrics_of_each_server(same: Service) -> None:
    before = counted(same, "plain")
    for _ in range(3):
        same.post({"a": 1})
    eventually(lambda: counted(same, "plain") >= before + 3, "the exporter shows the requests", LONG)
    eventually(lambda: "\nray_azmlinfsrv_queue_depth{" in same.metrics(), "the exporter shows the queue", LONG)


def counted(service: Service, application: str) -> float:
    """How many calls of run() Ray's exporters show."""
    return sum(shown(service, application, "azmlinfsrv_run_duration_seconds_count"))


def waiting(service: Service, application: str) -> list[float]:
    """How many requests wait for a worker in each server that Ray's exporters show. Without those of an exporter that
    does not answer."""
    return shown(service, application, "azmlinfsrv_queue_depth")


def shown(service: Service, application: str, name: str) -> list[float]:
    """The numbers of a metric, one for each series of this application."""
    lines = [line for line in service.metrics().splitlines() if line.startswith(f"ray_{name}{{")]
    return [float(line.split()[-1]) for line in lines if f'application="{application}"' in line]


def test_telemetry_of_a_replica_continues_the_trace_of_the_caller(service: Service) -> None:
    with Receiver() as receiver:
        target = f"InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint={receiver.url}/"
        environment = {"APPLICATIONINSIGHTS_CONNECTION_STRING": target, "AML_APP_INSIGHTS_ENABLED": "true"}
        service.deploy("watched", "/watched", entry_script="score.py", environment=environment)
        trace = "3" * 32
        service.post({"a": 1}, "/watched/score", traceparent=f"00-{trace}-{'4' * 16}-01")
        eventually(lambda: receiver.of_kind("Request"), "the request is in the telemetry", LONG)
        (item,) = receiver.of_kind("Request")
        assert item["tags"]["ai.operation.id"] == trace
        assert data(item)["responseCode"] == "200"
        # Before the receiver ends, so that nothing waits for it.
        serve.delete("watched")


def test_replicas_come_with_the_load_and_go_with_it(service: Service) -> None:
    """Four clients are four ongoing requests, and a replica of one worker shall have one."""
    service.deploy(
        "plain",
        "/",
        entry_script="score.py",
        num_replicas="auto",
        max_replicas=3,
        upscale_delay_s=1,
        downscale_delay_s=1,
        look_back_period_s=11,
    )
    with clients_of(service, 4) as outcomes:
        servers = service.servers(3)
    assert set(outcomes) == {"version None"}, outcomes
    eventually(lambda: sum(map(is_running, servers)) == 1, "one replica is left", LONG)
    assert service.who()


@contextmanager
def clients_of(service: Service, number: int, at_least: int = 0) -> Iterator[Counter[str]]:
    """Clients that send one request after the other, until the end and until there were this many. Yields what they
    got: versions of the script, and errors."""
    outcomes: Counter[str] = Counter()
    done = threading.Event()

    def client() -> None:
        while not done.is_set() or sum(outcomes.values()) < at_least:
            try:
                outcomes[f"version {service.post({'who': True, 'sleep': 0.01})['version']}"] += 1
            except OSError as error:
                outcomes[repr(error)] += 1

    clients = [threading.Thread(target=client) for _ in range(number)]
    for each in clients:
        each.start()
    try:
        yield outcomes
    finally:
        done.set()
        for each in clients:
            each.join()


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
    with clients_of(service, 4, at_least=500) as outcomes:
        eventually(lambda: outcomes["version 1"] > 50, "requests are answered", LONG)
        service.deploy("plain", "/", entry_script="score.py", num_replicas=2, environment={"VERSION": "2"})
        eventually(lambda: outcomes["version 2"] > 50, "the new version answers", LONG)
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
