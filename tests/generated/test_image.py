"""A generated Dockerfile is built, and its image run as the generated commands and manifests do: read-only root, user
1000, the server as process 1.

`make test-generate` builds the wheel for it. The tests are skipped, with the reason, where images cannot be built.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import eventually
from images import NAME, PATIENCE, Images, make_flowers, missing

pytestmark = pytest.mark.timeout(4 * PATIENCE)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The image, built as the generated file says."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    return make_flowers(tmp_path_factory.mktemp("app"))


# Runs in the container, whose network is its loopback interface alone.
POST = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 5001)
connection.request("POST", "/score", sys.argv[1])
print(connection.getresponse().read().decode())
"""


class Container:
    """The image with its own command, and the restrictions of the generated commands and manifests."""

    def __init__(self, images: Images) -> None:
        self.images = images
        words = ["--detach", "--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "ALL"]
        words += ["--security-opt", "no-new-privileges"]
        # systemd would run the health check, which is not everywhere; a test runs it.
        self.id = images.podman("run", *words, "--health-interval", "disable", NAME).strip()
        self.pid = int(images.podman("inspect", "--format", "{{.State.Pid}}", self.id))
        eventually(lambda: "ready for serving traffic" in self.log(), "it serves", PATIENCE)

    def log(self) -> str:
        return self.images.podman("logs", self.id)

    def post(self, body: Any) -> Any:
        return json.loads(self.images.podman("exec", self.id, "python3", "-c", POST, json.dumps(body)))

    def status(self) -> dict[str, str]:
        """What the kernel says of its first process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def remove(self) -> None:
        self.images.podman("rm", "--force", "--time", "5", self.id, check=False)


@pytest.fixture(scope="module")
def container(images: Images) -> Iterator[Container]:
    made = Container(images)
    yield made
    made.remove()


def test_the_server_is_process_1_of_user_1000(container: Container) -> None:
    status = container.status()
    assert status["Uid"].split() == ["1000"] * 4
    assert status["NSpid"].split()[-1] == "1"
    assert status["CapEff"] == "0" * 16
    assert Path(f"/proc/{container.pid}/cmdline").read_bytes().split(b"\0")[1] == b"/opt/venv/bin/azmlinfsrv"


def test_it_serves_the_script_with_the_model_in_the_image(container: Container) -> None:
    assert container.post({}) == {
        "uid": 1000,
        "parent": 1,
        "written": True,
        "model": ["weights"],
        "version": "1",
    }


def test_only_tmp_can_be_written(container: Container) -> None:
    assert container.post({"write": "/app/a"})["written"] == "Read-only file system"


def test_what_a_script_leaves_behind_is_reaped(container: Container) -> None:
    container.post({"orphan": True})

    def zombies() -> list[str]:
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        states = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children]
        return [state for state in states if state == "Z"]

    eventually(lambda: b"sleep" not in _commands(container.pid) and not zombies(), "the orphan is reaped", PATIENCE)


def _commands(pid: int) -> bytes:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return b"".join(Path(f"/proc/{child}/cmdline").read_bytes() for child in children)


def test_the_health_check_of_the_image_succeeds(container: Container) -> None:
    container.images.podman("healthcheck", "run", container.id)


def test_stop_ends_it_with_code_0(container: Container) -> None:
    began = time.monotonic()
    container.images.podman("stop", "--time", "60", container.id)
    took = time.monotonic() - began
    assert container.images.podman("inspect", "--format", "{{.State.ExitCode}}", container.id).strip() == "0"
    assert took < 60, "it was killed"
