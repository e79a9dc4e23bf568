"""One running candidate: its start, its health, its memory, its end.

Each gets a session and a process group of its own, a port that the system chose, a small
environment made for it, and a file for everything it prints: the same kind of sink for all. Ended
as a group, whatever happens. Runs in the benchmark process.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from . import environments
from .candidates import Candidate
from .environments import FOLDER, PEERS, Installed

LOGS = FOLDER / "logs"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.001
# User and system time in /proc/PID/stat (fields 14 and 15 in proc(5)), counted from the field after
# the session.
_USER, _SYSTEM = 7, 8
# The unit of these times: kernel ticks per second.
TICKS = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """A candidate did not start, or gave a wrong answer. The text contains its last output."""


@dataclass(frozen=True)
class Work:
    """The script and settings that a candidate must serve."""

    script: Path
    workers: int = 1
    # The way in which other servers call run(); see peers/scoring.py.
    call: str = "text"
    # The file that the bare HTTP server answers with.
    reply: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Server:
    """A running candidate, healthy when ``serve`` returns it. ``with serve(...) as server:`` ends
    it."""

    def __init__(self, candidate: Candidate, installed: Installed, work: Work) -> None:
        self.port = _free_port()
        self.candidate = candidate
        LOGS.mkdir(parents=True, exist_ok=True)
        self._log = LOGS / f"{candidate.key}.log"
        names = {
            "bin": installed.bin, "port": self.port, "workers": work.workers, "script": work.script,
            "reply": work.reply or os.devnull, "target": environments.TARGET, "peers": PEERS, "home": FOLDER / "home",
        }  # fmt: skip
        command = [part.format_map(names) for part in candidate.command]
        environment = {
            "PATH": f"{installed.bin}:{os.environ['PATH']}",
            "HOME": str(FOLDER / "home"),
            "LANG": "C.UTF-8",
            "BENCH_SCRIPT": str(work.script),
            "BENCH_CALL": work.call,
            "BENCH_PORT": str(self.port),
            "BENCH_WORKERS": str(work.workers),
            **{name: value.format_map(names) for name, value in candidate.environment.items()},
            **work.environment,
        }
        (FOLDER / "home").mkdir(exist_ok=True)
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=FOLDER / "home", env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_healthy()
            self.start_seconds = time.perf_counter() - started
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Send TERM to the group, and after a while KILL to all processes of the candidate that are
        left. When it returns, none is running."""
        processes = self.processes()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        _wait_for_the_end(processes)
        for pid in processes:
            if read_process(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        _wait_for_the_end(processes)

    def processes(self) -> list[int]:
        """Every process of the candidate: those of its session, and their descendants, as some
        servers start their workers in sessions of their own."""
        running = {int(name): read_process(int(name)) for name in os.listdir("/proc") if name.isdigit()}
        found = {pid for pid, read in running.items() if read and read.session == self._process.pid}
        while True:
            more = {pid for pid, read in running.items() if read and read.parent in found} - found
            if not more:
                return sorted(found)
            found |= more

    def memory(self) -> dict[str, float]:
        """Proportional and resident memory of all its processes together, in MiB."""
        total = {"pss_mib": 0.0, "rss_mib": 0.0}
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
                for name, label in (("pss_mib", "Pss"), ("rss_mib", "Rss")):
                    found = re.search(rf"^{label}:\s+(\d+) kB", text, re.MULTILINE)
                    total[name] += int(found[1]) / 1024 if found else 0
        return total

    def cpu_time(self) -> CpuTime:
        """Processor time that all its processes have used so far."""
        read = [process for process in map(read_process, self.processes()) if process]
        return CpuTime(sum(process.user for process in read) / TICKS, sum(process.system for process in read) / TICKS)

    def story(self) -> str:
        """The last lines of its output."""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it printed nothing"

    def _wait_until_healthy(self) -> None:
        request = f"GET {self.candidate.health} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy(request):
            if self._process.poll() is not None:
                raise ServerFailed(f"ended at its start: {self.story()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"not healthy within {START_SECONDS:.0f} s: {self.story()}")
            time.sleep(POLL_SECONDS)

    def _is_healthy(self, request: bytes) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(request)
            return b" 200 " in connection.recv(4096).split(b"\r\n", 1)[0]
        return False


@contextlib.contextmanager
def serve(candidate: Candidate, installed: Installed, work: Work) -> Iterator[Server]:
    """Start a candidate, and yield it when it is healthy."""
    server = Server(candidate, installed, work)
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    """A port that is free now. The candidates cannot report a port that the system chooses for
    them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class CpuTime(NamedTuple):
    """Seconds of processor time: in the programs themselves, and in the kernel on their behalf."""

    user: float
    system: float


class Process(NamedTuple):
    """The facts about a process from /proc."""

    parent: int
    session: int
    # Processor time in ticks.
    user: int
    system: int


def _wait_for_the_end(processes: Sequence[int]) -> None:
    deadline = time.monotonic() + STOP_SECONDS / 5
    while any(map(read_process, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def read_process(pid: int) -> Process | None:
    """Read the facts about a process; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in parentheses and may contain any character. The words after it contain no
    # spaces.
    state, parent, _, session, *others = text.rpartition(")")[2].split()
    return None if state in "ZX" else Process(int(parent), int(session), int(others[_USER]), int(others[_SYSTEM]))
