"""Translates reports of the kernel about processes: wait statuses to events, and the signs of a
debugger.

Used in the supervisor process.
"""

from __future__ import annotations

import os

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


def of_child(pid: int, status: int) -> events.Event:
    """The event for a status that ``waitpid`` has returned."""
    if os.WIFSTOPPED(status):
        return events.Stopped(pid, os.WSTOPSIG(status))
    if os.WIFCONTINUED(status):
        return events.Continued(pid)
    return events.Exited(pid, os.waitstatus_to_exitcode(status))
