"""What the scripts noted when their run() began: which request, in which process, when.

Owns reading the file that ``scripts/deeds.py`` writes. A worker that dies cannot tear a line, as
each is one write to a file opened for appending. Runs in the test process, after the server has
ended.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Start(NamedTuple):
    """One beginning of run(); the time is that of the monotonic clock."""

    pid: int
    time: float


def read(path: Path) -> dict[str, list[Start]]:
    """The starts of every request, by its id."""
    starts: dict[str, list[Start]] = defaultdict(list)
    for line in path.read_text().splitlines():
        id, pid, nanoseconds = line.split(" ")
        starts[id].append(Start(int(pid), int(nanoseconds) / 1e9))
    return starts
