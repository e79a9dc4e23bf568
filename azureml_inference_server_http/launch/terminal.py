"""The controlling terminal: decides if a SIGHUP means that the terminal is lost, or is an order to
replace the workers.

The signal and its sender do not show the difference, because a shell that loses its terminal sends
SIGHUP to its jobs. So the state of the terminal decides: if it was lost a moment before the signal,
the signal is about the terminal. Runs in the supervisor, and in the server with worker threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time

# A SIGHUP within this many seconds of the loss of the terminal is about the terminal. A later one
# is an order.
MOMENT = 3.0
GONE = "The terminal is gone, so the server ends. To keep a server without its terminal, start it with nohup or setsid."


class Terminal:
    """The terminal that the command was started from, if there was one."""

    def __init__(self) -> None:
        # nohup starts programs with SIGHUP ignored. Then the server must continue without the
        # terminal.
        self.is_ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        # Open file of the terminal; None if there is no terminal, or if it was lost. ``poll`` is
        # called with no events, because then it reports only the loss.
        self.descriptor: int | None = None
        self._lost_at: float | None = None
        # Needed because ``watch`` and another thread may note the loss at the same time.
        self._lock = threading.Lock()
        if hasattr(select, "poll"):
            # OSError: there is no terminal. Services, many containers and processes after setsid
            # have none.
            with contextlib.suppress(OSError):
                self.descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    def look(self) -> None:
        """Check if the terminal is lost, and note it. Call this when ``poll`` reports the
        descriptor, or on SIGHUP."""
        with self._lock:
            if self.descriptor is None:
                return
            poll = select.poll()
            poll.register(self.descriptor, 0)
            if poll.poll(0):
                self.close()
                self._lost_at = time.monotonic()

    def watch(self) -> None:
        """Wait until the terminal is lost, and note it. Blocks, so it needs a thread of its own."""
        if self.descriptor is not None:
            poll = select.poll()
            poll.register(self.descriptor, 0)
            poll.poll()
            self.look()

    def has_hung_up(self) -> bool:
        """True if a SIGHUP that has just been received is about the terminal."""
        self.look()
        return self._lost_at is not None and time.monotonic() - self._lost_at < MOMENT

    def close(self) -> None:
        """Close the descriptor of the terminal. Children must call this."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
