"""A container without a container engine: a process in namespaces of its own, with the restrictions that a page names.

Owns how the restrictions of ``docker run`` and of Kubernetes are read, and how ``unshare`` and ``setpriv`` of
util-linux impose them, which needs root. They are really imposed. Only the file system of an image is missing, so the
process keeps one capability, with which an ordinary user can read (not write) Python wherever it is installed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import PATIENCE, TIED_TO_US, eventually
from wire import Connection, Response

_READS_ALL = "dac_read_search"
# /proc belongs to the new namespace of processes.
_READ_ONLY = """
while read -r _ target _; do
  case "$target" in /proc*) ;; *) mount -o remount,bind,ro "$target" 2>/dev/null || true ;; esac
done </proc/mounts
"""
_MEMORY = Path("/sys/fs/cgroup/memory")


class Restrictions(NamedTuple):
    """What a container may not do."""

    user: int
    group: int
    is_read_only: bool
    has_no_capability: bool
    gains_no_privileges: bool


def of_docker(command: str) -> tuple[Restrictions, dict[str, str]]:
    """The restrictions of a ``docker run``, and its other options. Each option must be known here."""
    program, run, *words = shlex.split(command)
    assert (program, run) == ("docker", "run")
    options: dict[str, str] = {}
    while words and words[0].startswith("--"):
        name = words.pop(0)
        options[name] = "" if name == "--read-only" else words.pop(0)
    assert len(words) == 1, "only the image may follow"
    user, group = map(int, options.pop("--user").split(":"))
    return (
        Restrictions(
            user,
            group,
            options.pop("--read-only", None) is not None,
            options.pop("--cap-drop", None) == "ALL",
            options.pop("--security-opt", None) == "no-new-privileges",
        ),
        options,
    )


def of_kubernetes(pod: Mapping[str, Any]) -> Restrictions:
    """The restrictions of the one container of a pod's specification."""
    (container,) = pod["containers"]
    security = {**pod["securityContext"], **container["securityContext"]}
    return Restrictions(
        security["runAsUser"],
        security["runAsGroup"],
        security["readOnlyRootFilesystem"],
        security["capabilities"] == {"drop": ["ALL"]},
        not security["allowPrivilegeEscalation"],
    )


def why_not() -> str:
    """Why no container can be made here; empty if one can."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return "no containers: unshare and setpriv of util-linux are not installed"
    command = [*_namespaces("true"), *_identity(Restrictions(1000, 1000, True, True, True)), sys.executable, "-V"]
    done = subprocess.run(command, capture_output=True, check=False)
    return "" if done.returncode == 0 else "no containers: this user may not make namespaces"


def _namespaces(preparation: str) -> list[str]:
    new = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    return [*new, "sh", "-ec", f'{preparation}\nexec "$@"', "sh"]


def _identity(limits: Restrictions) -> list[str]:
    # If ``unshare`` is killed, the kernel ends PID 1 as well, and with it the namespace. It is told so here, because a
    # change of the user cancels that.
    words = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "--reuid",
        str(limits.user),
        "--regid",
        str(limits.group),
        "--clear-groups",
    ]
    if limits.gains_no_privileges:
        words.append("--no-new-privs")
    if limits.has_no_capability:
        words += [f"--{kind}-caps=-all,+{_READS_ALL}" for kind in ("inh", "ambient")]
        words.append(f"--bounding-set=-all,+{_READS_ALL}")
    return words


class Container:
    """The command as PID 1 of its namespace. ``pid`` is what the host calls it."""

    def __init__(self, folder: Path, command: Sequence[str], limits: Restrictions, preparation: str = "") -> None:
        """Start the command in ``folder``, on a free port. Does not wait for anything."""
        self.folder = folder
        self._log = folder / "log"
        more = _READ_ONLY if limits.is_read_only else ""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*TIED_TO_US, str(shutil.which("unshare")), *_namespaces(preparation + more)[1:], *_identity(limits)]
                + [*command, "--port", "0"],
                cwd=folder,
                env={**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.port = int(eventually(lambda: re.search(r"^Score: +POST +\S+:(\d+)/", self.log(), re.M), "a port")[1])
        (self.pid,) = map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())

    def log(self) -> str:
        assert self.process.poll() is None or self._log.stat().st_size, "it ended without a word"
        return self._log.read_text(errors="replace")

    def get(self, target: str) -> Response:
        with Connection(self.port) as connection:
            return connection.exchange("GET", target)

    def score(self, body: str = "") -> Response:
        with Connection(self.port) as connection:
            return connection.exchange("POST", "/score", body.encode())

    def is_ready(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return self.get("/readyz").status == 200
        return False

    def wait_until_ready(self) -> Container:
        eventually(self.is_ready, "the container is ready")
        return self

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait_for_exit(self) -> int:
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Kill what is left (``_identity``)."""
        self.process.kill()
        self.process.wait(PATIENCE)


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """A control group with this limit of memory in bytes; None where none can be made."""
    group = _MEMORY / f"azmlinfsrv-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError:
        yield None
        return
    with contextlib.suppress(OSError):  # where swap is not counted
        (group / "memory.memsw.limit_in_bytes").write_text(str(limit))
    try:
        yield group
    finally:
        eventually(lambda: _removed(group), "the control group is gone")


def enter(group: Path) -> str:
    """Shell commands that move a container into its group, and show it the group as its own, as engines do."""
    return f"echo $$ >{group}/cgroup.procs\nmount --bind {group} {_MEMORY}\n"


def _removed(group: Path) -> bool:
    """Kill what is left in the group, and remove it as soon as it is empty."""
    with contextlib.suppress(OSError):
        for pid in map(int, (group / "cgroup.procs").read_text().split()):
            os.kill(pid, signal.SIGKILL)
        group.rmdir()
    return not group.exists()
