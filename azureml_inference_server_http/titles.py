"""What ``ps`` and ``top`` call the processes of the server, so that they can be told apart.

The supervisor keeps its command line, by which people find it (``pgrep -f "azmlinfsrv.*score.py"``). The front, the
template and the workers put their role in the place of the program. Works by way of ``/proc`` on Linux, and does
nothing elsewhere. Used at the start of each process.
"""

from __future__ import annotations

import contextlib
import sys

# The short name of the command itself, as the installed script has it. Kept by the kernel: 15 bytes at most, and
# without spaces, as many programs split ``/proc/PID/stat`` at them.
COMMAND = "azmlinfsrv"
FRONT = "azml:front"
TEMPLATE = "azml:template"
# While a debugger inside the process holds run(). The front looks for it (``src/dispatch/debugger.rs``).
DEBUGGED = "azml:debugged"

_NAME_FILE = "/proc/self/comm"
# The fields of ``/proc/self/stat`` after the name that say where the arguments of the process are in its memory.
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 45, 46


def worker(number: int) -> str:
    """The short name of a worker; ``number`` counts the workers in the order of their start."""
    return f"azml:worker-{number}"


def set_worker(number: int) -> None:
    """Both names of this worker."""
    set_name(worker(number))
    set_role(f"worker {number}")


def set_name(name: str) -> None:
    """The short name: ``top``, ``ps -o comm``."""
    with contextlib.suppress(OSError), open(_NAME_FILE, "w") as file:
        file.write(name)


def get_name() -> str:
    """The short name; empty where the system has none."""
    with contextlib.suppress(OSError), open(_NAME_FILE) as file:
        return file.read().rstrip("\n")
    return ""


def set_role(role: str) -> None:
    """Make the command line begin with this role: ``azmlinfsrv: worker 1 --entry_script score.py``."""
    title = " ".join([f"{COMMAND}: {role}", *sys.argv[1:]])
    with contextlib.suppress(OSError), open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
        begin, end = int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_END])
        # The arguments are the process's own memory, and no longer needed: Python has made objects of them.
        room = end - begin
        text = title.encode("utf-8", "surrogateescape")[: room - 1]
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            memory.write(text.ljust(room, b"\0"))
