"""The generated manifests on a real cluster: whether it takes them, and what a rolling update, the death of process 1
and an eviction cost.

`make test-kubernetes` builds Kubernetes 1.20 and runs this. Each test with clients prints how many requests they have
sent and lost. The cluster is older than the manifests, and smaller than one they are made for; ``adapted`` has all
that is changed.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import images
import pytest
import yaml
from harness import eventually
from one_node import LONG, PODS, Cluster
from wire import clients

from tools.build_kubernetes import missing

# `make test-kubernetes` names the folder.
BINARIES = Path(os.environ.get("KUBERNETES", "/nowhere"))
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/flowers"
ENDPOINTS = "/api/v1/namespaces/default/endpoints/flowers"
# Requests on their way at any time, how long run() takes, and how often clients ask for the endpoints.
CLIENTS, SLEEP, LAG = 6, 0.05, 0.5
# Seconds that a pod goes on serving after it has been asked to end, as deployment.yaml says.
PRE_STOP = 5
GOLDEN = Path(__file__).parents[1] / "golden"
# Kubernetes itself does not know the kinds of the others: they are of Kustomize and the Prometheus operator.
MANIFESTS = [
    file
    for file in sorted(GOLDEN.glob("*/kubernetes/**/*.yaml"))
    if file.name not in ("kustomization.yaml", "service-monitor.yaml")
]
pytestmark = pytest.mark.timeout(3000)


def adapted(thing: dict[str, Any]) -> dict[str, Any]:
    """The object as Kubernetes 1.20 takes it. policy/v1 came with 1.21, and autoscaling/v2 with 1.23; both are the
    same as the beta before them in all fields that are generated. Three pods that request a processor each do not
    fit on the machines of these tests, which may be so busy that a start takes minutes."""
    older = {"policy/v1": "policy/v1beta1", "autoscaling/v2": "autoscaling/v2beta2"}
    thing["apiVersion"] = older.get(thing["apiVersion"], thing["apiVersion"])
    if thing["kind"] == "Deployment":
        (container,) = thing["spec"]["template"]["spec"]["containers"]
        container["resources"]["requests"]["cpu"] = "100m"
        container["startupProbe"].update(failureThreshold=int(LONG / 2), timeoutSeconds=30)
        container["livenessProbe"]["timeoutSeconds"] = 60
    return thing


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not (BINARIES / "kubelet").exists():
        pytest.skip("Kubernetes is not built (make test-kubernetes)")
    reason = missing() or images.missing()
    if reason:
        pytest.skip(reason)
    app = tmp_path_factory.mktemp("app")
    storage = images.make_flowers(app, ["kubernetes"])
    folder = tmp_path_factory.mktemp("k")
    made = Cluster(BINARIES, folder)
    try:
        (folder / "Dockerfile").write_text('FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n')
        storage.buildah("bud", "-t", "localhost/pause:1", "-f", str(folder / "Dockerfile"), str(BINARIES))
        for name in (images.NAME, "localhost/pause:1"):
            archive = folder / f"{name.rpartition('/')[2].partition(':')[0]}.tar"
            storage.buildah("push", name, f"docker-archive:{archive}:{name}")
            made.load(archive)
        manifests = app / "kubernetes"
        for file in yaml.safe_load((manifests / "kustomization.yaml").read_text())["resources"]:
            made.api.create(adapted(yaml.safe_load((manifests / file).read_text())))
        eventually(lambda: len(made.ready_pods()) == 2, "the autoscaler's two pods are ready", LONG)
        yield made
    finally:
        made.stop()


class Traffic:
    """What clients got that follow the endpoints as kube-proxy does. Each request has a connection of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._addresses: list[str] = []
        self.outcomes: Counter[str] = Counter()

    def follow(self, done: threading.Event) -> None:
        while not done.is_set():
            subsets = self._cluster.api.get(ENDPOINTS).get("subsets", [])
            self._addresses = [address["ip"] for subset in subsets for address in subset.get("addresses", [])]
            done.wait(LAG)

    def send(self, done: threading.Event) -> None:
        while not done.is_set():
            addresses = self._addresses
            if addresses:
                self.outcomes[self._outcome(random.choice(addresses))] += 1
            else:
                done.wait(0.05)

    def _outcome(self, address: str) -> str:
        connection = http.client.HTTPConnection(address, 5001, timeout=60)
        try:
            connection.request("POST", "/score", json.dumps({"sleep": SLEEP}))
            answer = connection.getresponse()
            text = answer.read()
            return f"version {json.loads(text)['version']}" if answer.status == 200 else f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            time.sleep(0.02)
            return f"{'late ' if self._is_late(address) else ''}{type(error).__name__}"
        finally:
            connection.close()

    def _is_late(self, address: str) -> bool:
        """Whether its pod has been asked to end longer ago than preStop waits. On a machine that does other things too,
        the news may take longer to get here. Kubernetes tells seconds only, so one too many may be found."""
        for pod in self._cluster.api.get(PODS)["items"]:
            if pod["status"].get("podIP") == address:
                told = pod["metadata"]
                if "deletionTimestamp" not in told:
                    return False
                end = datetime.fromisoformat(told["deletionTimestamp"].replace("Z", "+00:00")).timestamp()
                return time.time() > end - told["deletionGracePeriodSeconds"] + PRE_STOP
        return True  # it is gone altogether

    def wrong(self) -> set[str]:
        """What should not have happened in an update or an eviction."""
        return {name for name in self.outcomes if not name.startswith(("version ", "late "))}

    def lost(self) -> int:
        return sum(count for name, count in self.outcomes.items() if not name.startswith("version "))

    def total(self) -> int:
        return sum(self.outcomes.values())


@pytest.fixture
def traffic(cluster: Cluster, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[Traffic]:
    made = Traffic(cluster)
    with clients(made.follow, 1), clients(made.send, CLIENTS):
        eventually(lambda: made.total() > 20, "requests are answered", LONG)
        yield made
    with capsys.disabled():
        print(f"\n{request.node.name}: {made.lost()} of {made.total()} requests lost: {dict(made.outcomes)}")


def update(cluster: Cluster, version: str, **changes: Any) -> None:
    """Roll out another version of the script, and wait until nothing else is left."""
    container = {"name": "server", "env": [{"name": "VERSION", "value": version}], **changes}
    cluster.api.patch(DEPLOYMENT, {"spec": {"template": {"spec": {"containers": [container]}}}})

    def is_done() -> bool:
        found = cluster.api.get(DEPLOYMENT)
        status = found["status"]
        # Those that are being deleted too. A pod without a container may stay in the list for minutes.
        states = [pod["status"].get("containerStatuses", []) for pod in cluster.api.get(PODS)["items"]]
        running = sum("running" in each["state"] for state in states for each in state)
        is_seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return is_seen and status.get("updatedReplicas") == status.get("availableReplicas") == running == 2

    eventually(is_done, f"version {version} alone serves", LONG)


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: "-".join(file.relative_to(GOLDEN).parts))
def test_the_api_server_takes_what_is_written_and_drops_nothing(cluster: Cluster, file: Path) -> None:
    """Kubernetes 1.20 drops fields that it does not know without a word, so what it stores must have all of them."""
    written = adapted(yaml.safe_load(file.read_text()))
    # The objects of the other tests have these names.
    written["metadata"]["name"] += "-dry"
    assert_has(cluster.api.create(written, dry=True), written, written["kind"])


def assert_has(found: Any, expected: Any, where: str) -> None:
    """Assert that ``found`` has everything of ``expected``, and perhaps defaults beside it."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            # An empty mapping or list is the same as none to the server.
            assert key in found or not value, f"{where}.{key}"
            if key in found:
                assert_has(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected)):
            assert_has(one, other, f"{where}[{number}]")
    else:
        assert found == expected, where


def test_a_pod_is_as_the_manifests_say(cluster: Cluster) -> None:
    pod = cluster.ready_pods()[0]
    status = Path(f"/proc/{cluster.pid_of(pod)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1000"] * 4
    assert fields["NSpid"].split()[-1] == "1"
    assert fields["CapEff"] == "0" * 16
    assert fields["Seccomp"] == "2"


def test_a_rolling_update_loses_no_request(cluster: Cluster, traffic: Traffic) -> None:
    before = traffic.total()
    update(cluster, "2")
    eventually(lambda: traffic.total() >= before + 500, "enough requests", LONG)
    assert not traffic.wrong(), traffic.outcomes
    assert {"version 1", "version 2"} <= set(traffic.outcomes)


def test_a_server_that_is_killed_is_started_again(cluster: Cluster, traffic: Traffic) -> None:
    """What it had is lost, and what came until the endpoints were known to have changed."""
    victim = cluster.ready_pods()[0]
    name = victim["metadata"]["name"]
    os.kill(cluster.pid_of(victim), signal.SIGKILL)

    def is_back() -> bool:
        pods = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0] for pod in cluster.ready_pods()}
        return name in pods and pods[name]["restartCount"] == 1

    eventually(is_back, "the container was started again and is ready", LONG)
    lost = {"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"}
    assert traffic.wrong() <= lost, traffic.outcomes


def test_evictions_lose_no_request(cluster: Cluster, traffic: Traffic) -> None:
    """As `kubectl drain` asks for them. The second is refused until the first pod has a successor that is ready."""
    before = {pod["metadata"]["name"] for pod in cluster.pods()}
    refusals = 0
    for name in sorted(before):
        path = f"{PODS}/{name}/eviction"
        eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": name}}
        deadline = time.monotonic() + LONG
        while (answer := cluster.api.ask("POST", path, eviction))[0] == 429:
            refusals += 1
            assert time.monotonic() < deadline, answer
            time.sleep(0.2)
        assert answer[0] == 201, answer
    assert refusals > 0

    def names() -> set[str]:
        return {pod["metadata"]["name"] for pod in cluster.ready_pods()}

    eventually(lambda: len(names() - before) == 2 and not names() & before, "two other pods serve", LONG)
    assert not traffic.wrong(), traffic.outcomes


def test_what_a_rolling_update_loses_without_prestop(cluster: Cluster, traffic: Traffic) -> None:
    """For comparison: how many depends on the machine, so only the report has them."""
    update(cluster, "3", lifecycle=None)
    update(cluster, "4")
    # A client that has asked a pod without preStop may wait for its time-out before it asks another one.
    eventually(lambda: traffic.outcomes["version 4"] > 0, "clients are answered by the new version", LONG)
