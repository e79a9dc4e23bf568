"""Translates reports of the kernel about processes: wait statuses to events, and the signs of a
debugger.

Used in the supervisor process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from . import events, titles


def is_debugged(pid: int) -> bool:
    """True if a debugger holds this process. The front decides by the same rule
    (``dispatch/debugger.rs``). Linux only."""
    try:
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return False
    return status.get("TracerPid", "0") != "0" or status.get("Name") == titles.DEBUGGED


# Where Linux counts the processes that it has ended because there was no memory: of the container (cgroup v2 and v1),
# or of the whole machine.
_OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat")


class OomKills:
    """Notices that the kernel has ended processes because there was no memory."""

    def __init__(self, counters: Sequence[str] = _OOM_COUNTERS) -> None:
        self._counters = counters
        self._count = self._read()

    def have_grown(self) -> bool:
        """True if there were some since the last call. False where the system does not count
        them."""
        before, self._count = self._count, self._read()
        return self._count > before

    def _read(self) -> int:
        for path in self._counters:
            try:
                with open(path) as file:
                    found = [int(count) for name, count in map(str.split, file) if name == "oom_kill"]
            except (OSError, ValueError):
                continue
            if found:
                return found[0]
        return 0


def of_child(pid: int, status: int, oom_kills: OomKills | None = None) -> events.Event:
    """The event for a status that ``waitpid`` has returned."""
    if os.WIFSTOPPED(status):
        return events.Stopped(pid, os.WSTOPSIG(status))
    if os.WIFCONTINUED(status):
        return events.Continued(pid)
    code = os.waitstatus_to_exitcode(status)
    return events.Exited(pid, code, code == -signal.SIGKILL and oom_kills is not None and oom_kills.have_grown())
