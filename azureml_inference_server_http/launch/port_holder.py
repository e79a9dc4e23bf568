"""Finds the process that listens on a port, for the message that the port is in use.

Reads ``/proc``, so it works on Linux only, and finds only processes of the same user, unless the
user is root. Runs in the launcher, only if a port could not be opened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
# State of a listening socket in these tables.
_LISTENING = "0A"
# Characters of a command line that are shown at most.
_SHOWN = 100


def find(port: int) -> str | None:
    """The process that listens on this port, by its number and command: ``process 71 (python3
    app.py)``."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    holders = (
        {pid: parent for pid, parent in _processes() if not sockets.isdisjoint(_open_files(pid))} if sockets else {}
    )
    # Children inherit the listener of their parent. The user must stop the parent.
    top = [pid for pid, parent in holders.items() if parent not in holders]
    if not top:
        return None
    command = _command(min(top))
    return f"process {min(top)} ({command})" if command else f"process {min(top)}"


def _listening(port: int) -> Iterator[str]:
    """The inodes of sockets that listen on this port, at any address."""
    for table in _TABLES:
        with contextlib.suppress(OSError), open(table) as rows:
            for row in rows:
                # Number, local address, remote address, state, ...; the inode is the tenth.
                fields = row.split()
                if len(fields) > 9 and fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _processes() -> Iterator[tuple[int, int]]:
    """The pids of all processes, each with the pid of its parent."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                # The process may have ended meanwhile.
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                    yield int(name), int(file.read().rpartition(")")[2].split()[1])


def _open_files(pid: int) -> set[str]:
    """The targets of a process's descriptors, as far as this user may read them."""
    found = set()
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry.path))
    return found


def _command(pid: int) -> str:
    """The command line of a process. Characters that a terminal must not show are replaced."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        text = file.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        shown = "".join(character if character.isprintable() else "?" for character in text)
        return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return ""
