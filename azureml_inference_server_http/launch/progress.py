"""How long init() has been running, on a terminal: one line that is drawn again and again until it has ended.

The process that loads the script writes to memory that it shares with the supervisor when it begins, what it printed
last, and when it ends. The supervisor draws the line, because it waits for nothing else, while the other process is
busy with init(). The line ends with the cursor at its beginning, so that the next output replaces it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import struct
import time

# Seconds that init() may take without being noticed, and between two drawings.
PATIENCE = 2.0
INTERVAL = 0.5
ERASE = "\x1b[K"
# Time of the beginning (0: nothing runs), pid, whether the line is on the terminal, length of the text.
_HEAD = struct.Struct("dq?H")
_SIZE = 1024
_NARROWEST, _USUAL_COLUMNS = 20, 80


class Progress:
    """The memory, and the line. ``descriptor`` is the terminal."""

    def __init__(self, descriptor: int = 1) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._descriptor = descriptor

    # ---- In the process that loads the script

    def begin(self) -> None:
        """The script is being loaded in this process. If that is so in several, the last one counts."""
        self._write(time.monotonic(), os.getpid(), False, b"")

    def note(self, text: str) -> None:
        """The script has printed this."""
        began, pid, is_drawn, _ = self._read()
        if began and pid == os.getpid():
            last = text.rstrip().rpartition("\n")[2]
            shown = "".join(char for char in last if char.isprintable())
            self._write(began, pid, is_drawn, shown.encode("utf-8", "replace")[: _SIZE - _HEAD.size])

    def end(self) -> None:
        """The script is loaded, or that has failed."""
        _, pid, is_drawn, _ = self._read()
        if pid == os.getpid():
            self._write(0.0, 0, is_drawn, b"")

    def erasing(self) -> str:
        """What the next line of output must begin with, so that nothing is left of this one."""
        began, pid, is_drawn, text = self._read()
        if not is_drawn:
            return ""
        self._write(began, pid, False, text)
        return ERASE

    # ---- In the supervisor

    def next_look(self) -> float:
        """When ``draw`` wants to be called, in seconds of ``time.monotonic``."""
        return time.monotonic() + INTERVAL

    def draw(self) -> None:
        """Draw the line, or erase it, as is needed now. Does nothing while the terminal takes no output."""
        began, pid, is_drawn, text = self._read()
        seconds = time.monotonic() - began if began else 0.0
        if began and not os.path.exists(f"/proc/{pid}") and os.path.exists("/proc/self"):
            began = 0.0  # it has died
        if began and seconds >= PATIENCE:
            shown = line(seconds, _resident(pid), text.decode("utf-8", "replace"), _columns(self._descriptor))
            if self._put(f"{ERASE}{shown}\r"):
                self._write(began, pid, True, text)
        elif is_drawn and self._put(ERASE):
            self._write(began, pid, False, text)

    def _put(self, text: str) -> bool:
        """Write to the terminal if it takes the text now: the supervisor must not wait for it."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if not any(event & select.POLLOUT for _, event in poll.poll(0)):
            return False
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode("utf-8", "replace"))
            return True
        return False

    def _read(self) -> tuple[float, int, bool, bytes]:
        began, pid, is_drawn, length = _HEAD.unpack_from(self._memory)
        return began, pid, is_drawn, self._memory[_HEAD.size : _HEAD.size + length]

    def _write(self, began: float, pid: int, is_drawn: bool, text: bytes) -> None:
        _HEAD.pack_into(self._memory, 0, began, pid, is_drawn, len(text))
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text


def line(seconds: float, resident: int | None, last: str, columns: int) -> str:
    """The line: elapsed time, memory in bytes if it is known, and what was printed last."""
    parts = [f"The script is loading: {seconds:.0f} s"]
    if resident is not None:
        parts.append(f"{resident / 2**20:,.0f} MiB")
    if last:
        parts.append(last)
    # A line that fills the last column would scroll.
    return ", ".join(parts)[: columns - 1]


def _resident(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return None


def _columns(descriptor: int) -> int:
    try:
        # 0: the terminal does not know its size.
        return max(_NARROWEST, os.get_terminal_size(descriptor).columns or _USUAL_COLUMNS)
    except OSError:
        return _USUAL_COLUMNS
