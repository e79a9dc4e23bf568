"""What the scripts noted when their run() began and ended: for which requests, in which process,
when.

Owns reading the file that ``scripts/deeds.py`` writes. A worker that dies cannot tear a line, as
each is one write to a file opened for appending. Runs in the test process, after the server has
ended.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Call(NamedTuple):
    """One call of run(): the process or the worker thread, and the number of the call."""

    pid: int
    number: int


class Start(NamedTuple):
    """One beginning of run(); the time is that of the monotonic clock."""

    pid: int
    time: float
    number: int = 1

    @property
    def call(self) -> Call:
        return Call(self.pid, self.number)


@dataclasses.dataclass
class Journal:
    """The starts of every request, by its id, and when calls ended that did not fail."""

    starts: dict[str, list[Start]]
    ends: dict[Call, float]

    def calls(self) -> dict[Call, list[str]]:
        """The requests of each call."""
        found: dict[Call, list[str]] = defaultdict(list)
        for id, starts in self.starts.items():
            for start in starts:
                found[start.call].append(id)
        return found


def read(path: Path) -> Journal:
    """The whole journal of one server."""
    journal = Journal(defaultdict(list), {})
    for line in path.read_text().splitlines():
        id, pid, number, nanoseconds = line.split(" ")
        call, time = Call(int(pid), int(number)), int(nanoseconds) / 1e9
        if id == "-":
            journal.ends[call] = time
        else:
            journal.starts[id].append(Start(call.pid, time, call.number))
    return journal
