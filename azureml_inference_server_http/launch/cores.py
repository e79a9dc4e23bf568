"""How many processor cores this process may use: those of its control group, and of its affinity.

A container usually sees all cores of its machine, but gets the time of a few only, by the quota of
its control group. Pure, except for the files that ``usable`` reads. Runs in the launcher.
"""

from __future__ import annotations

import math
import os
from typing import Callable, NamedTuple

_MOUNT = "/sys/fs/cgroup"


class Cores(NamedTuple):
    """How many cores there are, and what says so, for people."""

    number: int
    source: str


def usable() -> Cores:
    """The cores of this process."""
    return of(_read, _affinity(), os.cpu_count() or 1)


def of(read: Callable[[str], str | None], affinity: int | None, machine: int) -> Cores:
    """The cores, at least 1. ``read`` returns the text of a file, or None; ``affinity`` is how many
    cores the process may run on, None if the system does not tell; ``machine`` is how many there
    are."""
    found = Cores(machine, "cores of the machine")
    if affinity is not None and affinity < machine:
        found = Cores(affinity, f"CPU affinity, of {machine} cores")
    quota = _quota(read)
    if quota is not None and max(1, math.ceil(quota)) <= found.number:
        found = Cores(max(1, math.ceil(quota)), f"CPU quota of the control group, {quota:g} of {machine} cores")
    return found


def _quota(read: Callable[[str], str | None]) -> float | None:
    """The smallest quota of the control groups that this process is in, in cores; None without
    one."""
    quotas = []
    for line in (read("/proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            quotas += [_version_2(read(f"{_MOUNT}{folder}/cpu.max")) for folder in _folders(path)]
        elif "cpu" in controllers.split(","):
            # The folder is named by all its controllers, with a link for each of them.
            for folder in _folders(path):
                whole = f"{_MOUNT}/cpu{folder}"
                quotas.append(_version_1(read(f"{whole}/cpu.cfs_quota_us"), read(f"{whole}/cpu.cfs_period_us")))
    return min((quota for quota in quotas if quota is not None), default=None)


def _folders(path: str) -> list[str]:
    """The folder of a control group and of those around it, below the mount. A container sees its
    own group as the outermost one, whatever ``path`` is."""
    from pathlib import PurePosixPath  # imported here, because most starts count no cores

    parts = PurePosixPath(path.strip() or "/")
    return ["" if str(folder) == "/" else str(folder) for folder in (parts, *parts.parents)]


def _version_2(text: str | None) -> float | None:
    """The quota of ``cpu.max``, such as ``150000 100000``, or ``max 100000``."""
    words = (text or "").split()
    return _share(words[0], words[1]) if len(words) == 2 else None


def _version_1(quota: str | None, period: str | None) -> float | None:
    return None if quota is None or period is None else _share(quota, period)


def _share(quota: str, period: str) -> float | None:
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # such as "max"
        return None
    return share if share > 0 else None


def _affinity() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return None
