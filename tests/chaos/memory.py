"""How much memory a server takes: what its processes alone hold, and their share of what several
hold (PSS).

Runs in the test process.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from harness import Server


class Memory(NamedTuple):
    """MiB of one or several servers."""

    front: float
    workers: float


def measure(servers: list[Server]) -> Memory:
    """The memory of all these servers together. "front" includes the supervisor."""
    front = workers = 0.0
    for server in servers:
        own = server.workers()
        front += sum(pss(pid) for pid in server.members() if pid not in own)
        workers += sum(pss(pid) for pid in own)
    return Memory(front, workers)


def pss(pid: int) -> float:
    """The proportional set size of a process in MiB; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
