"""Sets the names and command lines of the server's processes, so that people can tell them apart in
``ps`` and ``top``.

The supervisor keeps its command line, because people look for it by that (``pgrep -f
"azmlinfsrv.*score.py"``). In the command lines of the others, their
role replaces the name of the program. Uses ``/proc`` on Linux, and does nothing elsewhere. Each
process calls it at its start.
"""

from __future__ import annotations

import contextlib
import sys

# The short names of processes. This one is the name of the installed command. The kernel keeps at
# most 15 bytes. Names have no spaces, because many programs split ``/proc/PID/stat`` at spaces.
COMMAND = "azmlinfsrv"
FRONT = "azml:front"
TEMPLATE = "azml:template"
WATCHER = "azml:watcher"
# The name of a worker while a debugger inside it holds a call of run(). The front reads it
# (``dispatch/debugger.rs``).
DEBUGGED = "azml:debugged"

_NAME_FILE = "/proc/self/comm"
# Indexes of the fields of ``/proc/self/stat``, counted after the name, with the addresses of the
# process's arguments.
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 45, 46


def worker(number: int) -> str:
    """The short name of a worker. Workers are numbered in the order of their start."""
    return f"azml:worker-{number}"


def set_worker(number: int) -> None:
    """Set the short name and the command line of this worker."""
    set_name(worker(number))
    set_role(f"worker {number}")


def set_name(name: str) -> None:
    """Set the short name, which ``top`` and ``ps -o comm`` show."""
    with contextlib.suppress(OSError), open(_NAME_FILE, "w") as file:
        file.write(name)


def get_name() -> str:
    """The short name; empty if the system has none."""
    with contextlib.suppress(OSError), open(_NAME_FILE) as file:
        return file.read().rstrip("\n")
    return ""


def set_role(role: str) -> None:
    """Make the command line begin with this role: ``azmlinfsrv: worker 1 --entry_script
    score.py``."""
    title = " ".join([f"{COMMAND}: {role}", *sys.argv[1:]])
    with contextlib.suppress(OSError), open("/proc/self/stat") as file:
        begin, end = arguments_of(file.read())
        # The kernel reads the command line from the memory of the process. It may be overwritten,
        # because Python has copied the arguments.
        room = end - begin
        if room <= 0:
            return
        text = title.encode("utf-8", "surrogateescape")[: room - 1]
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            memory.write(text.ljust(room, b"\0"))


def arguments_of(stat: str) -> tuple[int, int]:
    """The addresses of the process's arguments, from the text of ``/proc/self/stat``. Equal if they are not told: an
    emulator such as qemu-user leaves the fields out, a sandbox such as gVisor has zeros."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) <= _ARGUMENTS_END:
        return 0, 0
    return int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_END])
