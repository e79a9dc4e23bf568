"""What /proc says about the processes of this machine. ``harness.py`` looks there for those of a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Stat(NamedTuple):
    pid: int
    name: str
    state: str
    parent: int
    session: int


def processes() -> Iterator[Stat]:
    """All processes of this machine."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := stat_of(int(name))):
            yield stat


def stat_of(pid: int) -> Stat | None:
    """What /proc says about a process. None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in parentheses, and may contain any character.
    name = text[text.index("(") + 1 : text.rindex(")")]
    state, parent, _, session = text[text.rindex(")") + 2 :].split()[:4]
    return Stat(pid, name, state, int(parent), int(session))


def is_running(pid: int) -> bool:
    """True unless the process is gone or only waits to be reaped."""
    stat = stat_of(pid)
    return stat is not None and stat.state != "Z"
