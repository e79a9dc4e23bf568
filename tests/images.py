"""Builds the image of a generated Dockerfile and runs it, without a daemon and without a registry of images.

Owns the application, the tools (mmdebstrap for a root file system of Debian in place of ``python:3.11-slim``, buildah,
podman and runc), their storage, which is a folder of the tests, and the root file system, which is made once. Needs
root. Does not own what is expected.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# `make test-generate` builds the wheel, and keeps both folders.
WHEELS = Path(os.environ.get("GENERATE_WHEELS", "/nowhere"))
STORAGE = Path(os.environ.get("GENERATE_IMAGES", "/nowhere"))
NAME = "localhost/flowers:1"
# Tells of the container in which it runs.
SCRIPT = """
import json
import os
import time


def init():
    pass


def run(data):
    body = json.loads(data)
    time.sleep(body.get("sleep", 0))
    if "orphan" in body:
        # The child of a child that has ended: process 1 becomes its parent, and must reap it.
        if os.fork() == 0:
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "0.2"])
            os._exit(0)
        os.wait()
    try:
        open(body.get("write", "/tmp/a"), "w").close()
        written = True
    except OSError as error:
        written = error.strerror
    model = os.listdir(os.environ["AZUREML_MODEL_DIR"])
    version = os.environ.get("VERSION", "1")
    return {"uid": os.getuid(), "parent": os.getppid(), "written": written, "model": model, "version": version}
"""
# Debian 12 has Python 3.11.
SUITE, PYTHON = "bookworm", (3, 11)
PACKAGES = "python3,python3-venv,ca-certificates"
BASE = "localhost/python:3.11-slim"
PROGRAMS = ("mmdebstrap", "buildah", "podman", "runc")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# Seconds for the slowest step: the root file system is 60 MB of packages to be fetched and unpacked.
PATIENCE = 900


def missing() -> str:
    """Why images cannot be built here. Empty if they can."""
    if not any(WHEELS.glob("*.whl")):
        return "there is no wheel (make test-generate)"
    if os.geteuid() != 0:
        return "images are built by root only"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: apt-get install {' '.join(PROGRAMS)})"
    if sys.version_info[:2] != PYTHON:
        return f"the root file system has Python {'.'.join(map(str, PYTHON))}, and this is another"
    return ""


def make_flowers(folder: Path, kinds: Sequence[str] = ()) -> Images:
    """Write the application to ``folder``, generate its files there (Dockerfile and ``kinds``), and build the image."""
    wheel = next(WHEELS.glob("*.whl"))
    (folder / "score.py").write_text(SCRIPT)
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text("1")
    (folder / "dist").mkdir()
    shutil.copy(wheel, folder / "dist")
    (folder / "sample.json").write_text("{}")
    words = ["--entry_script", "score.py", "--model_dir", "model", "--name", "flowers", "--sample", "sample.json"]
    generate = [sys.executable, "-m", "azureml_inference_server_http", "generate", "docker", *kinds, *words]
    command = [*generate, "--image", NAME, "--wheel", f"dist/{wheel.name}"]
    subprocess.run(command, cwd=folder, check=True, timeout=PATIENCE)
    images = Images(STORAGE)
    images.make_base()
    images.build(folder, NAME)
    return images


class Images:
    """A storage of images and containers in ``folder``, which has the root file system of earlier runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tar = folder / f"{SUITE}.tar"
        folder.mkdir(parents=True, exist_ok=True)
        # Without podman's own limits of resources, which are higher than some roots may set.
        self._configuration = folder / "containers.conf"
        self._configuration.write_text("[containers]\ndefault_ulimits = []\n")

    def make_base(self) -> None:
        """The image that generated Dockerfiles begin with."""
        if not self._tar.exists():
            part = self._tar.with_suffix(".part.tar")
            # In a mount namespace of its own: mmdebstrap mounts this machine's /dev/shm into its folder in /tmp. If it
            # is killed, the mount would stay, and whoever cleans /tmp would delete the files of all programs.
            apart = ["unshare", "--mount", "--propagation", "private"]
            command = [*apart, "mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(part)]
            _run(command)
            part.rename(self._tar)
        dockerfile = self.folder / "Dockerfile.base"
        dockerfile.write_text(
            "FROM scratch\nADD bookworm.tar /\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        )
        self.buildah("bud", "--layers", "-t", BASE, "-f", str(dockerfile), str(self.folder))

    def build(self, context: Path, name: str) -> None:
        """Build the Dockerfile of this folder. pip in it gets what pip of this machine has in its environment."""
        words = ["bud", "--pull-never", "--format", "docker", "--build-arg", f"PYTHON_IMAGE={BASE}"]
        if Path(CERTIFICATES).exists():
            words += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        for variable in ("PIP_INDEX_URL", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
            if variable in os.environ:
                words += ["--env", variable]
        self.buildah(*words, "-t", name, str(context))

    def buildah(self, *words: str) -> str:
        return _run(["buildah", *self._storage(), *words])

    def podman(self, *words: str, check: bool = True) -> str:
        command = ["podman", *self._storage(), "--runtime", "runc", "--cgroup-manager", "cgroupfs", *words]
        return _run(command, check, CONTAINERS_CONF=str(self._configuration))

    def _storage(self) -> list[str]:
        return ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]


def _run(command: Sequence[str], check: bool = True, **variables: str) -> str:
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout
